"""Every file of a report, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fenlei.artifact import saving, whole_file, write_bytes, write_text
from fenlei.data.encodings import same_file
from fenlei.data.jsonvalues import to_json
from fenlei.errors import ConfigError
from fenlei.report.markdown import render_markdown
from fenlei.report.page import Page, render_html

WRITTEN = ("predictions.jsonl", "bad_cases.jsonl", "differences.jsonl", "metrics.json", "report.md", "report.html", "confusion.png")
"""What a report consists of."""


def write_page(out: Path, page: Page) -> None:
    """The page, as HTML and as Markdown, and the picture that the Markdown shows."""
    if page.confusion_png is None:
        remove(out / "confusion.png")
    else:
        write_bytes(out / "confusion.png", page.confusion_png)
    write_text(out / "report.md", render_markdown(page))
    write_text(out / "report.html", render_html(page))


def refuse_overwriting(out: Path, rows: Iterable[str | Path]) -> None:
    """ConfigError where a file of the report would be written over one of those that the rows to evaluate come from."""
    for source in rows:
        if any(same_file(source, out / name) for name in WRITTEN):
            raise ConfigError(
                f"{source}: holds the rows to evaluate, and the report in {out} would be written over it; give another folder with --out"
            )


def remove(path: Path) -> None:
    """Takes away what an earlier evaluation wrote and this one does not: it would lie beside a report that it does not belong to."""
    with saving(path):
        path.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON lines, one at a time: all in one text may be gigabytes. What is no UTF-8 becomes what `write_text` makes of it."""
    with whole_file(path) as temporary, saving(path), temporary.open("wb") as file:
        for row in rows:
            file.write(f"{to_json(row)}\n".encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """One JSON document, an entry a line."""
    write_text(path, _indented(figures) + "\n")


def _indented(value: Any, before: str = "\n") -> str:
    """As JSON with an indent, but lists of plain values on one line: the row of a matrix may have thousands."""
    within = before + "  "
    if isinstance(value, Mapping) and value:
        entries = (f"{json.dumps(str(name), ensure_ascii=False)}: {_indented(one, within)}" for name, one in value.items())
        return "{" + within + ("," + within).join(entries) + before + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(one, (Mapping, list, tuple)) for one in value):
        return "[" + within + ("," + within).join(_indented(one, within) for one in value) + before + "]"
    return json.dumps(value, ensure_ascii=False)

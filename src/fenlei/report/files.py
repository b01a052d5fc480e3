"""Every file of a report, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fenlei.artifact import saving
from fenlei.inference.bulk import to_json
from fenlei.report.markdown import render_markdown
from fenlei.report.page import Page, render_html


def write_page(out: Path, page: Page) -> None:
    """The page, as HTML and as Markdown, and the picture that the Markdown shows."""
    _write(out / "confusion.png", page.confusion_png)
    _write(out / "report.md", _encoded(render_markdown(page)))
    _write(out / "report.html", _encoded(render_html(page)))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON lines."""
    _write(path, _encoded("".join(to_json(row) + "\n" for row in rows)))


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """One JSON document."""
    _write(path, _encoded(json.dumps(figures, ensure_ascii=False, indent=2) + "\n"))


def _encoded(text: str) -> bytes:
    r"""UTF-8; bytes of a file name that are no UTF-8, which Python holds as lone surrogates, as their \u escape."""
    return text.encode("utf-8", "backslashreplace")


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

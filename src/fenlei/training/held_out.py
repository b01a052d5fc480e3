"""Rows that a finished run did not learn from, found again in the files it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fenlei.artifact import fingerprint
from fenlei.data.examples import Example


def dev_rows_of(manifest: Mapping[str, Any]) -> Callable[[Example], bool]:
    """Whether a row of a file was a dev row of the run: by line, in a file with the content that the run's had."""
    lines: dict[str, set[int]] = {}
    for part in ("selecting", "calibrating"):
        for source, ranges in manifest["data"][part].items():
            content = manifest["data"]["files"].get(source)
            if content is not None:
                lines.setdefault(content, set()).update(_lines(ranges))
    contents: dict[str, str] = {}

    def was_dev(row: Example) -> bool:
        if row.source not in contents:
            contents[row.source] = fingerprint(Path(row.source)) if Path(row.source).is_file() else ""
        return row.line in lines.get(contents[row.source], ())

    return was_dev


def _lines(ranges: str) -> set[int]:
    """`1-3,7` as numbers."""
    pairs = [part.partition("-") for part in ranges.split(",") if part]
    return {line for first, _, last in pairs for line in range(int(first), int(last or first) + 1)}

"""Predicted rows as text: JSON lines, or CSV under the columns of the first row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fenlei.data.examples import Example
from fenlei.data.jsonvalues import json_value, to_json
from fenlei.errors import DataError

Row = Mapping[str, Any]
RowText = Callable[[Sequence[Example], Sequence[Row]], str]


def row_text(target: str | Path, begun: Path | None = None) -> RowText:
    """What makes text of rows, by the ending of `target`: lines of CSV under a header, else of JSON.

    `begun` is a file that holds some already. The examples, one a row, say where each is from, for errors.
    """
    return CommaSeparated(begun) if str(target).lower().endswith(".csv") else json_lines


def json_lines(_examples: Sequence[Example], rows: Sequence[Row]) -> str:
    """An object a line."""
    return "".join(to_json(row) + "\n" for row in rows)


class CommaSeparated:
    """Rows to CSV under the columns of the first row; what is no plain value becomes JSON."""

    def __init__(self, begun: Path | None = None) -> None:
        self._header: tuple[str, ...] | None = None
        if begun is not None and begun.is_file():
            with begun.open(encoding="utf-8", newline="") as file:
                self._header = tuple(next(csv.reader(file), ())) or None

    def __call__(self, examples: Sequence[Example], rows: Sequence[Row]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for example, row in zip(examples, rows, strict=True):
            if self._header is None:
                self._header = tuple(row)
                writer.writerow(self._header)
            unknown = [name for name in row if name not in self._header]
            if unknown:
                raise DataError(f"{example.where}: the first row has no column {unknown[0]!r}, so CSV has no place for it; write .jsonl")
            writer.writerow([_cell(row.get(name)) for name in self._header])
        return text.getvalue()


def _cell(value: Any) -> Any:
    plain = json_value(value)
    if plain is None:
        return ""
    return to_json(plain) if isinstance(plain, (dict, list, bool)) else plain

"""Predicted rows as text: JSON lines, or CSV under the columns of the first row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from fenlei.data.examples import Example
from fenlei.data.jsonvalues import json_value, to_json
from fenlei.errors import DataError
from fenlei.inference.windows import ADDED

PROMISED = {"prediction_set": "prediction_sets", "abstained": "abstention", "novelty": "novelty"}
"""Columns of an answer that a row lacks where it is asked among labels that nothing was fitted on, and what a run calls the promise."""

Row = Mapping[str, Any]
RowText = Callable[[Sequence[Example], Sequence[Row]], str]


def promised_columns(described: Mapping[str, Any]) -> frozenset[str]:
    """What a classifier may add to some rows and not to others, by what it says of itself; one that does not say may add all."""
    return frozenset(column for column, promise in PROMISED.items() if described.get(promise, True) is not None)


def row_text(
    target: str | Path, begun: Path | None = None, *, promised: Container[str] = (), among_all: bool = True, marked: bool = False
) -> RowText:
    """What makes text of rows, by the ending of `target`: lines of CSV under a header, else of JSON.

    `begun` is a file that holds some already; `promised` are columns that later rows may have; `among_all`: rows without candidates have
    them if any has. The examples, one a row, say where each is from, for errors. `marked`: CSV begins with a byte order mark, by which
    Excel knows UTF-8.
    """
    return CommaSeparated(begun, promised, among_all=among_all, marked=marked) if str(target).lower().endswith(".csv") else json_lines


def json_lines(_examples: Sequence[Example], rows: Sequence[Row]) -> str:
    """An object a line."""
    return "".join(to_json(row) + "\n" for row in rows)


class CommaSeparated:
    """Rows to CSV under the columns of the first row; what is no plain value becomes JSON."""

    def __init__(self, begun: Path | None = None, promised: Container[str] = (), *, among_all: bool = True, marked: bool = False) -> None:
        self._promised = promised
        self._among_all = among_all
        self._mark = "\ufeff" if marked else ""
        self._header: tuple[str, ...] | None = None
        if begun is not None and begun.is_file():
            with begun.open(encoding="utf-8-sig", newline="") as file:
                self._header = tuple(next(csv.reader(file), ())) or None

    def __call__(self, examples: Sequence[Example], rows: Sequence[Row]) -> str:
        lines = _Lines()
        writer = csv.writer(lines)
        start = self._mark if rows and self._header is None else ""
        for example, row in zip(examples, rows, strict=True):
            if self._header is None:
                self._header = _header(example, row, self._promised, self._among_all)
                writer.writerow(self._header)
            unknown = [name for name in row if name not in self._header]
            if unknown:
                raise DataError(f"{example.where}: the first row has no column {unknown[0]!r}, so CSV has no place for it; write .jsonl")
            writer.writerow([_cell(row.get(name)) for name in self._header])
        return start + str(lines)


class _Lines:
    r"""What csv.writer writes, each row with \n at its end.

    The writer itself keeps its \r\n: before 3.11.9 and 3.12.3, Python puts a lone \r in quotes only where it is part of what ends a row.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, row: str) -> None:
        self._lines.append(row.removesuffix("\r\n") + "\n")

    def __str__(self) -> str:
        return "".join(self._lines)


def _header(example: Example, row: Row, promised: Container[str], among_all: bool) -> tuple[str, ...]:
    """The columns of the first row. Where nothing was fitted on the labels that it chose among, later rows may have promises that it lacks:
    these are given a place, empty where nothing is said.
    """
    added = [name for name in row if name not in example.columns]
    prefix = added[0].removesuffix(ADDED[0]) if added else ""
    if (example.candidates is None and among_all) or not added or row.get(f"{prefix}calibrated") is not False:
        return tuple(row)
    places = [prefix + name for name in ADDED if prefix + name in row or name in promised]
    return (*(name for name in row if name in example.columns), *places)


def _cell(value: Any) -> Any:
    plain = json_value(value)
    if plain is None:
        return ""
    return to_json(plain) if isinstance(plain, (dict, list, bool)) else plain

"""One row of a labelled file, as the rest of the house sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fenlei.errors import DataError, first_few
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class Example:
    """A text, or a pair of texts, with its label (None where the file has none), and where it came from."""

    text: str
    label: str | None
    """Of a multi-label row all its labels in one string, in alphabetical order: to be shown, and compared with other rows'."""
    source: str
    """The file, as the user named it."""
    line: int
    """Its line in the file, counted from 1 (Parquet and JSON arrays: the row)."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Every column of the row as read, in order; bulk prediction writes them back."""
    candidates: tuple[str, ...] | None = None
    """The labels that the row itself offers (Fudan files); None where it offers none. Methods with fixed labels do not look at them."""
    labels: tuple[str, ...] | None = None
    """Multi-label: every label of the row, maybe none; None where a row has one."""
    pair: str | None = None
    """The second text of a pair; None where rows have one text."""
    label_column: str | None = None
    """The column that the label was read from; None where none was."""
    text_columns: tuple[str, ...] = ()
    """Those that the text was read from; none where it came from no file of columns."""

    @property
    def input(self) -> str | tuple[str, str]:
        """What a classifier is asked: the text, or both texts of a pair."""
        return self.text if self.pair is None else (self.text, self.pair)

    @property
    def whole(self) -> str:
        """The text; of a pair both, a line break between: for whoever compares, counts or shows texts."""
        return self.text if self.pair is None else f"{self.text}\n{self.pair}"

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels of the row, whether it may have several or one."""
        return self.labels if self.labels is not None else () if self.label is None else (self.label,)

    @property
    def gold(self) -> str | list[str] | None:
        """The label, or the list of them: what files say."""
        return self.label if self.labels is None else list(self.labels)

    @property
    def named_columns(self) -> dict[str, Any]:
        """Every column, that of the label as names: ids may have names only in the file that they came from."""
        return dict(self.columns) if self.label_column is None else {**self.columns, self.label_column: self.gold}

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"

    def with_labels(self, names: Sequence[str]) -> Example:
        """The row with these labels; a row that has one label takes the first of them, None where there is none."""
        if self.labels is None:
            return replace(self, label=names[0] if names else None)
        return replace(self, label=joined(names), labels=tuple(names))


Rows = tuple[Example, ...]


def candidates_of(examples: Sequence[Example]) -> list[tuple[str, ...] | None] | None:
    """What each row offers; None where none of them offers any."""
    candidates = [example.candidates for example in examples]
    return None if all(one is None for one in candidates) else candidates


def joined(labels: str | Sequence[str]) -> str:
    """Several labels in one string, in alphabetical order; one as it is."""
    return labels if isinstance(labels, str) else " + ".join(sorted(labels)) if labels else "(none)"


def check_gold(row: Example) -> None:
    """DataError where a row offers no labels, or not those it has."""
    if row.candidates is None or (row.candidates and set(row.all_labels) <= set(row.candidates)):
        return
    if not row.candidates:
        raise DataError(f"{row.where}: the list of candidate labels is empty; fill it, or remove it from the row")
    shown = first_few([repr(name) for name in row.candidates])
    missing = next(name for name in row.all_labels if name not in row.candidates)
    raise DataError(f"{row.where}: label {missing!r} is not among the row's candidates, {shown}; add it to them, or correct it")


def with_offered(labels: LabelSet, rows: Sequence[Example]) -> LabelSet:
    """The labels, and behind them those that rows offer; DataError for a row whose list is empty, or lacks a label that it has."""
    for row in rows:
        check_gold(row)
    return LabelSet.in_order_of_appearance([*labels, *(name for row in rows for name in row.candidates or ())])

"""Any labelled file to Examples, one at a time: the entrance of the house.

A file is opened (encodings), told apart and cut into rows (formats), and its columns are chosen on the first row (columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

from fenlei.config import DataConfig, trained_on
from fenlei.data.columns import NO_CLASS, TITLE_NAMES, Columns, choose_columns, find_name
from fenlei.data.delimited import Row
from fenlei.data.encodings import STDIN
from fenlei.data.examples import Example, Rows, joined
from fenlei.data.formats import open_table
from fenlei.data.label_file import CLASS_FILES
from fenlei.data.labelling import ONE_LABEL, Labelling, listed
from fenlei.errors import DataError
from fenlei.labels import LabelSet
from fenlei.text.pairs import pair_column_of

OnBadRow = Callable[[int, DataError], None]
"""Told the line of a row that does not fit, and what is wrong with it."""


class NoRowsError(DataError):
    """A file that can be read, and has no row."""


class ColumnNames(TypedDict):
    """The columns that a user named, as options of `read_examples`; None: found by name (of a second text: there is none)."""

    text_column: str | None
    pair_column: str | None
    label_column: str | None


def columns_named_by(config: DataConfig) -> ColumnNames:
    """Those that the options of a run name."""
    return {"text_column": config.text_column, "pair_column": config.pair_column, "label_column": config.label_column}


def columns_as_trained(run: Path, manifest: Mapping[str, Any], given: ColumnNames) -> ColumnNames:
    """Those given, else those that the run was trained on. ConfigError for a second text that it does not read."""
    trained = trained_on(run)
    return {
        "text_column": trained.text_column if given["text_column"] is None else given["text_column"],
        "pair_column": pair_column_of(manifest, given["pair_column"]),
        "label_column": trained.label_column if given["label_column"] is None else given["label_column"],
    }


@dataclass(frozen=True)
class FileLayout:
    """How a file is read: what was recognised and what was chosen."""

    source: str
    format: str
    encoding: str | None
    columns: Columns
    unread_title: str | None
    """A column with a title beside the text that was found, for the user to know of."""

    def __str__(self) -> str:
        encoding = f", {self.encoding.upper()}" if self.encoding not in (None, "utf-8") else ""
        text = " + ".join(repr(name) for name in self.columns.text)
        pair = f", paired with {self.columns.pair!r}" if self.columns.pair is not None else ""
        label = f", label from {self.columns.label!r}" if self.columns.label is not None else ""
        joined = f"{self.unread_title},{','.join(self.columns.text)}"
        hint = f" (not from {self.unread_title!r}; --text-column {joined} joins them)" if self.unread_title is not None else ""
        return f"{self.source}: {self.format}{encoding}, text from {text}{pair}{label}{hint}"


def read_examples(
    path: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    labelled: bool = True,
    labelling: Labelling = ONE_LABEL,
    blanks: bool = False,
    on_bad_row: OnBadRow | None = None,
    follow: Callable[[], None] | None = None,
    usual_text: Sequence[str] = (),
) -> Iterator[Example]:
    """The rows of a file (`-`: JSON lines from stdin), streamed; DataError at the first row that does not fit.

    text_column: one name, or several joined by commas, whose texts are joined by line breaks. None: found by name.
    pair_column: that of the second text, where rows are pairs of texts.
    label_column: None: found by name. With labelled=False, the column that is not to be taken for anything else, if the file has it.
    class_names: the only labels allowed; an id in the file becomes its name.
    labelled: False leaves labels unread, so that no label column is needed.
    labelling: whether a row has one label or any number, and how they are written.
    blanks: True lets rows without a text or a label pass, as "" and None, for those who count them.
    on_bad_row: is told of each row that does not fit, and reading goes on; what ends it still is a file that cannot be read on.
    follow: JSON lines that are still being written are read for ever; it is called whenever there is none to be read for now.
    usual_text: columns that are the text where none is named and the file has them all, as those that a run learned from.
    """
    known = None if class_names is None else _called(class_names, labelling, "class_names")
    named = (text_column, pair_column, label_column)
    opened = _opened(path, named, labelled, on_bad_row, follow, labelling.multi_label, usual_text)
    with opened as (layout, rows):
        columns = layout.columns
        if columns.names is not None:
            columns = replace(columns, names=_called(columns.names.names, labelling, layout.source))
        for line, row in rows:
            where = f"{layout.source}:{line}"
            try:
                if isinstance(row, DataError):
                    raise row
                text, pair = _texts(columns, row, where, blanks)
                label, names = None, None
                candidates = columns.candidates_of(row)
                candidates = candidates and labelling.offered(candidates, where)
                if not labelled or (blanks and not columns.has_label(row, labelling)):
                    pass
                elif labelling.multi_label:
                    names = columns.labels_of(row, where, labelling, known)
                    label = joined(names)
                else:
                    label = columns.label_of(row, where, labelling, known)
            except DataError as error:
                if on_bad_row is None:
                    raise
                on_bad_row(line, error)
                continue
            yield Example(text, label, layout.source, line, row, candidates, names, pair, columns.label, columns.text)


def read_files(
    files: Sequence[Path],
    config: DataConfig,
    labelling: Labelling,
    class_names: Sequence[str] | None = None,
    usual_text: Sequence[str] = (),
) -> Rows:
    """The labelled rows of a run's files, one file behind the other; DataError at the first row that does not fit.

    usual_text: as of `read_examples`; of several files without it the columns that the first is read from.
    """
    columns = columns_named_by(config)
    rows: list[Example] = []
    for file in files:
        text = usual_text or (rows[0].text_columns if rows else ())
        rows += read_examples(file, **columns, class_names=class_names, labelling=labelling, usual_text=text)
    return tuple(rows)


def file_layout(
    path: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    labelled: bool = True,
    on_bad_row: OnBadRow | None = None,
    usual_text: Sequence[str] = (),
) -> FileLayout:
    """How `read_examples` would read a file, judged by its head; DataError where it cannot."""
    with _opened(path, (text_column, pair_column, label_column), labelled, on_bad_row, usual_text=usual_text) as (layout, _):
        return layout


def check_labelled(
    path: str | Path, *, text_column: str | None, pair_column: str | None, label_column: str | None, usual_text: Sequence[str] = ()
) -> None:
    """DataError where a file has no labels: no column of them, or one in which every row has nothing, or the id of no class."""
    with _opened(path, (text_column, pair_column, label_column), True, None, usual_text=usual_text) as (layout, rows):
        columns = layout.columns
        several = Labelling(multi_label=True)  # a list may be empty in every row, and says so
        if any(isinstance(row, DataError) or columns.has_label(row, several) for _, row in rows):
            return
    found = "none in any row" if columns.names is None else f"{NO_CLASS}, the id of no class, in every row"
    raise DataError(f"{layout.source}: expected labels in column {columns.label!r}, found {found}")


def why_unlabelled(files: Sequence[str | Path], columns: ColumnNames, usual_text: Sequence[str] = ()) -> DataError | None:
    """Why a part has no labels, as test sets of competitions have none; None where one of its files has any."""
    reason: DataError | None = None
    for file in files:
        try:
            check_labelled(file, **columns, usual_text=usual_text)
        except DataError as error:
            reason = reason or error
        else:
            return None
    return reason


def label_cells(
    path: str | Path, *, text_column: str | None, pair_column: str | None, label_column: str | None
) -> Iterator[tuple[str, Any]]:
    """Where each row stands that can be read, and what its column of labels holds: for who asks how labels are written."""
    named = (text_column, pair_column, label_column)
    with _opened(path, named, True, lambda line, error: None, multi_label=True) as (layout, rows):
        for line, row in rows:
            if not isinstance(row, DataError):
                yield f"{layout.source}:{line}", listed(row.get(layout.columns.label or ""))


def find_class_file(data: str | Path) -> Path | None:
    """The class file beside a data file, or None."""
    if str(data) == STDIN:
        return None
    candidates = (Path(data).parent / name for name in CLASS_FILES)
    return next((file for file in candidates if file.is_file() and file.name != Path(data).name), None)


def _called(names: Sequence[str], labelling: Labelling, where: str) -> LabelSet:
    """Class names as the labels of rows are called."""
    return LabelSet(tuple(labelling.path(name, where) for name in names))


def _texts(columns: Columns, row: Mapping[str, Any], where: str, blanks: bool) -> tuple[str, str | None]:
    """The text, and the second of a pair; with `blanks`, "" where one is missing."""
    if blanks and not columns.has_text(row):
        return "", None
    return columns.text_of(row, where), columns.pair_of(row, where)


@contextmanager
def _opened(
    path: str | Path,
    named_columns: tuple[str | None, str | None, str | None],
    labelled: bool,
    on_bad_row: OnBadRow | None,
    follow: Callable[[], None] | None = None,
    multi_label: bool = False,
    usual_text: Sequence[str] = (),
) -> Iterator[tuple[FileLayout, Iterator[Row]]]:
    """The layout of a file, and its rows.

    `named_columns`: those that the user named for the text, the second text and the label.
    """
    text_column, pair_column, label_column = named_columns
    named = [name.strip() for name in (text_column or "").split(",") if name.strip()]
    named += [] if pair_column is None else [pair_column]
    if labelled and label_column is not None:
        named.append(label_column)
    with open_table(
        path, named=named, text_column=text_column, labelled=labelled, multi_label=multi_label, follow=follow, usual_text=usual_text
    ) as table:
        rows = iter(table.rows)
        line, row = _first_that_fits(rows, table.source, on_bad_row)
        where = f"{table.source}:{line}"
        columns = choose_columns(
            row, text_column=text_column, pair_column=pair_column, label_column=label_column, labelled=labelled, where=where,
            usual_text=usual_text,
        )  # fmt: skip
        names = table.class_names.get(columns.label) if columns.label is not None else None
        columns = columns if names is None else replace(columns, names=LabelSet(names))
        title = find_name(row, TITLE_NAMES, excluded=columns.taken) if text_column is None else None
        yield FileLayout(table.source, table.format, table.encoding, columns, title), chain([(line, row)], rows)


def _first_that_fits(rows: Iterator[Row], source: str, on_bad_row: OnBadRow | None) -> tuple[int, dict[str, Any]]:
    """The first row that can be read; `on_bad_row` is told of those before it."""
    refused: DataError | None = None
    for line, row in rows:
        if not isinstance(row, DataError):
            return line, row
        if on_bad_row is None:
            raise row
        refused = refused or row
        on_bad_row(line, row)
    if refused is not None:
        raise DataError(f"{source}: none of its rows can be read; the first: {refused}")
    raise NoRowsError(f"{source}: expected at least one row, found none; the file is empty, or has only a header")

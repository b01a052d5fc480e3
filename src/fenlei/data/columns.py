"""Which column of a row is the text and which the label, and what their values mean.

Columns are chosen once a file, on its first row: by the names that the user gave, else by the names that data sets use.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from fenlei.data.labelling import ONE_LABEL, Labelling, listed
from fenlei.errors import DataError, first_few, shortened
from fenlei.labels import COMMAS, LabelSet, names_in

TEXT_NAMES = (
    *("text", "content", "sentence", "input", "document", "doc", "body", "article", "utterance", "query", "review", "comment"),
    *("文本", "正文", "内容", "句子", "新闻", "title", "headline", "标题", "instruction"),
)
"""Column names taken for the text, the first of them that a file has."""

TITLE_NAMES = ("title", "headline", "标题")
"""Of these, columns that stand beside the text and are worth joining to it."""

LABEL_NAMES = (
    *("label", "labels", "target", "output", "class", "label_name", "class_name", "category", "intent", "topic"),
    *("标签", "类别", "分类", "类"),
)
"""Column names taken for the label. `output` stands before `category`: in the Fudan files `category` lists the candidates."""


NO_CLASS = -1
"""What data sets on hubs have in a column of class ids where a row has no label, as in test sets of competitions."""

CANDIDATE_NAMES = ("category", "categories", "candidates", "候选", "候选类别")
"""Columns that may hold a row's candidate labels, as a list or joined by commas."""

LABEL_COLUMN = "label_column"
"""Key of a run's manifest: the column that its labels were read from. In rows to predict it is neither the text nor candidates."""

READ_FROM = "read_from"
"""Beside it: the columns that its texts were read from, named or found. Runs of earlier versions do not say so."""


class LearnedFrom(TypedDict):
    """How rows without labels are read as those were that a run has learned from, where nothing else is asked."""

    label_column: str | None
    usual_text: tuple[str, ...]


def learned_from(manifest: Mapping[str, Any]) -> LearnedFrom:
    """What a run says of its columns, in its manifest or where it describes itself."""
    label_column = manifest.get(LABEL_COLUMN)
    if LABEL_COLUMN not in manifest and "data" in manifest and Labelling.from_json(manifest).multi_label:
        # A run of before, which does not say. The one name that is taken for labels and for candidates alike was that of its labels, where
        # its rows offered no candidates: else each row would be asked among its own, which are what is right.
        label_column = None if manifest.get("row_candidates") else "category"
    return {"label_column": label_column, "usual_text": tuple(manifest.get(READ_FROM, ()))}


@dataclass(frozen=True)
class Columns:
    """The columns that make the text, joined by a line break where they are several, and the one that is the label."""

    text: tuple[str, ...]
    label: str | None
    pair: str | None = None
    """That of the second text, where rows are pairs."""
    names: LabelSet | None = None
    """Those that the file itself gives to the ids in the column of the label; None where it gives none."""
    unread: str | None = None
    """That of the label where labels are not read: it is not to be taken for anything else."""

    @property
    def taken(self) -> tuple[str, ...]:
        """All of them, for who looks for another column."""
        return (*self.text, *filter(None, (self.pair, self.label, self.unread)))

    def text_of(self, row: Mapping[str, Any], where: str) -> str:
        """The text of a row; DataError if it has none."""
        parts = [part for name in self.text if (part := _text_part(row, name, where))]
        if not parts:
            named = " and ".join(repr(name) for name in self.text)
            absent = "" if any(name in row for name in self.text) else f", found {_listed(row)}"
            raise DataError(f"{where}: expected a text in column {named}, found none{absent}; fill it in or remove the row")
        return "\n".join(parts)

    def pair_of(self, row: Mapping[str, Any], where: str) -> str | None:
        """The second text of a row, None where rows have one; DataError if it is missing."""
        if self.pair is None:
            return None
        text = _text_part(row, self.pair, where)
        if not text:
            absent = "" if self.pair in row else f", found {_listed(row)}"
            raise DataError(f"{where}: expected a second text in column {self.pair!r}, found none{absent}; fill it in or remove the row")
        return text

    def label_of(self, row: Mapping[str, Any], where: str, labelling: Labelling, known: LabelSet | None = None) -> str:
        """The label of a row, by its name in the file and in `known` (an id where no names are known); DataError if it has none."""
        assert self.label is not None, "label_of needs columns chosen with labelled=True"
        value = self._value(row)
        if _is_missing(value):
            absent = "" if self.label in row else f", found {_listed(row)}"
            absent += f" ({NO_CLASS} is the id of no class)" if row.get(self.label) == NO_CLASS else ""
            cure = "fill it in or remove the row" + (", or train with --multi-label if rows may have none" if value == [] else "")
            raise DataError(f"{where}: expected a label in column {self.label!r}, found none{absent}; {cure}")
        return self._name(value, where, labelling, known)

    def labels_of(self, row: Mapping[str, Any], where: str, labelling: Labelling, known: LabelSet | None = None) -> tuple[str, ...]:
        """The labels of a multi-label row, maybe none, named as by `label_of`; DataError if it says nothing."""
        assert self.label is not None, "labels_of needs columns chosen with labelled=True"
        values = labelling.split(row.get(self.label), self.label, where)
        return labelling.completed([self._name(value, where, labelling, known) for value in values])

    def candidates_of(self, row: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The labels that a row offers; None where it has no such column. One word alone is some other column's category."""
        name = find_name(row, CANDIDATE_NAMES, excluded=self.taken)
        value = None if name is None else listed(row[name])
        if isinstance(value, str):
            value = names_in(value) if COMMAS.search(value) else None
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, (str, int)) for one in value):
            return None
        return tuple(dict.fromkeys(one for part in value if (one := str(part).strip())))

    def has_text(self, row: Mapping[str, Any]) -> bool:
        """Whether a text is there; of a pair, both."""
        return any(not _is_missing(row.get(name)) for name in self.text) and (self.pair is None or not _is_missing(row.get(self.pair)))

    def has_label(self, row: Mapping[str, Any], labelling: Labelling = ONE_LABEL) -> bool:
        """Whether the row says what its label is, or, multi-label, that it has none.

        An empty list says so, and an empty string where labels are joined in one; elsewhere it says nothing.
        """
        value = None if self.label is None else self._value(row)
        says_none = isinstance(value, list) or (isinstance(value, str) and labelling.separator is not None)
        return not _is_missing(value) or (labelling.multi_label and says_none)

    def _value(self, row: Mapping[str, Any]) -> Any:
        """What a row has for its label; None too where that is the id of no class."""
        value = listed(row.get(self.label or ""))
        return None if self.names is not None and value == NO_CLASS else value

    def _name(self, value: Any, where: str, labelling: Labelling, known: LabelSet | None) -> str:
        """What a label is called; a number in a column of ids is one by its place, even where names are numbers too."""
        name = labelling.path(_label_text(value, str(self.label), where), where)
        if self.names is not None:
            name = known_label(name, self.names, where) if isinstance(value, str) else _name_of_id(name, self.names, where)
        return name if known is None else known_label(name, known, where)


def choose_columns(
    row: Mapping[str, Any],
    *,
    text_column: str | None,
    label_column: str | None,
    labelled: bool,
    where: str,
    pair_column: str | None = None,
    usual_text: Sequence[str] = (),
) -> Columns:
    """The columns to read, judged by a file's first row; DataError lists what was looked for and what is there.

    usual_text: columns that are taken for the text where none is named and the row has them all, before any that is found by name.
    """
    named = named_texts(text_column, row) if text_column is not None else None
    wanted = (*(named or ()), pair_column, label_column if labelled else None)
    for name in filter(None, wanted):
        if name not in row:
            near = difflib.get_close_matches(name, list(row), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise DataError(f"{where}: no column {name!r}, found {_listed(row)}{hint}")
    text = named if named is not None else _found_text(row, usual_text, (label_column, pair_column), where)
    if not labelled:
        return Columns(text, None, pair_column, unread=label_column)
    label = label_column if label_column is not None else find_name(row, LABEL_NAMES, excluded=(*text, pair_column or ""))
    if label is None:
        raise DataError(_none_found("label", LABEL_NAMES, row, where))
    return Columns(text, label, pair_column)


def known_label(name: str, known: LabelSet, where: str) -> str:
    """`name` itself if it is known, the name it is the id of if it is a number; else DataError."""
    return name if name in known else _name_of_id(name, known, where)


def find_name(names: Mapping[str, Any] | Sequence[str], wanted: Sequence[str], excluded: Sequence[str] = ()) -> str | None:
    """The name among `names` that comes first in `wanted`, whatever its case and blanks around it."""
    plain = {name.strip().lower(): name for name in reversed(list(names)) if name not in excluded}
    return next((plain[one] for one in wanted if one in plain), None)


def is_known_name(name: str) -> bool:
    """Whether data sets call a column of texts or labels so."""
    return name.strip().lower() in TEXT_NAMES + LABEL_NAMES


def named_texts(text_column: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that `text_column` names: `title,body` is two, unless the row has one that is called just that."""
    if text_column in row:
        return (text_column,)
    return tuple(name for part in text_column.split(",") if (name := part.strip())) or (text_column,)


def _name_of_id(name: str, known: LabelSet, where: str) -> str:
    """The name that `name` is the id of; DataError where it is none."""
    if name.removeprefix("-").isdecimal() and name.isascii() and len(name) < 10:
        label_id = int(name)
        if 0 <= label_id < len(known) and name == str(label_id):
            return known.name(label_id)
        found = f"label {name!r} is neither a class name nor an id from 0 to {len(known) - 1}"
        raise DataError(f"{where}: {found}; correct it, add the class, or remove the row")
    raise DataError(f"{where}: {known.unknown(name)}; correct it, or add the class")


def _found_text(row: Mapping[str, Any], usual: Sequence[str], others: Sequence[str | None], where: str) -> tuple[str, ...]:
    """The columns of the text, the `usual` ones if they are there; none of them one of `others`."""
    excluded = tuple(filter(None, others))
    if usual and all(name in row and name not in excluded for name in usual):
        return tuple(usual)
    found = find_name(row, TEXT_NAMES, excluded)
    if found is None:
        raise DataError(_none_found("text", TEXT_NAMES, row, where))
    instruction = find_name(row, ("instruction",), excluded)
    if found.strip().lower() == "input" and instruction is not None and _is_missing(row[found]):
        # Alpaca rows without `input` hold the text in `instruction`; with it, `instruction` is the same task on every row.
        return (instruction, found)
    return (found,)


def _none_found(role: str, names: Sequence[str], row: Mapping[str, Any], where: str) -> str:
    looked_for = ", ".join(repr(name) for name in names[:8])
    return f"{where}: no {role} column found: looked for {looked_for}, ..., found {_listed(row)}; name it with --{role}-column"


def _listed(row: Mapping[str, Any]) -> str:
    return f"columns {first_few(list(map(repr, row)), 12)}" if row else "no columns"


def _text_part(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if _is_missing(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    found = f"{shortened(value)} ({type(value).__name__})"
    raise DataError(f"{where}: expected a text in column {name!r}, found {found}; is it another column?")


def _label_text(value: Any, column: str, where: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas writes a column of ids as 3.0 where one of them was missing
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str) and value[0].strip():
        return value[0].strip()  # as doccano writes the one label of a row
    if isinstance(value, (list, tuple)):
        raise DataError(
            f"{where}: expected one label in column {column!r}, found a list, {shortened(value)}; "
            "keep one, as a text, or make every row's label a list, [] for none, and train with --multi-label"
        )
    found = f"{shortened(value)} ({type(value).__name__})"
    raise DataError(f"{where}: expected a label, a text or a whole number, in column {column!r}, found {found}; is it another column?")


def _is_missing(value: Any) -> bool:
    if isinstance(value, (str, list)):
        return not (value.strip() if isinstance(value, str) else value)  # an empty list: a row of doccano that nobody labelled
    return value is None or (isinstance(value, float) and math.isnan(value))

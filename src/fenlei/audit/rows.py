"""The rows of an audit: those of every part, as they stand in their files, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fenlei.audit.same_text import groups, plain
from fenlei.config import DataConfig
from fenlei.data.columns import known_label
from fenlei.data.encodings import refuse_read_once
from fenlei.data.examples import Example
from fenlei.data.label_file import read_class_file
from fenlei.data.labelling import ONE_LABEL, Labelling
from fenlei.data.readers import ColumnNames, check_labelled, file_layout, find_class_file, read_examples
from fenlei.data.several_labels import choose_labelling
from fenlei.data.sources import part_files, split_files
from fenlei.errors import ConfigError, DataError
from fenlei.labels import LabelSet

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class AuditedRows:
    """Rows in the order of the parts: first train, then dev, then test."""

    examples: tuple[Example, ...]
    """A row without a text has "", one without a label None."""
    part_of: tuple[int, ...]
    """For each row the place of its part in PARTS."""
    number_of: tuple[int, ...]
    """For each row its number in its file, from 1: not the line where a text or a header takes lines of its own."""
    notes: tuple[str, ...] = ()
    labelling: Labelling = ONE_LABEL

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def plain_texts(self) -> tuple[str, ...]:
        return tuple(plain(example.whole) for example in self.examples)

    @cached_property
    def same_text(self) -> dict[str, list[int]]:
        """The rows of each text."""
        return groups(self.plain_texts)

    def place(self, row: int) -> dict[str, Any]:
        """Where a row is to be found, for JSON."""
        example = self.examples[row]
        return {"file": example.source, "row": self.number_of[row], "line": example.line}


def gather(parts: Sequence[Sequence[Example]], notes: Sequence[str] = (), labelling: Labelling = ONE_LABEL) -> AuditedRows:
    """Rows that are read already, by part."""
    examples, part_of, number_of = [], [], []
    for part, rows in enumerate(parts):
        seen: dict[str, int] = {}
        for example in rows:
            seen[example.source] = seen.get(example.source, 0) + 1
            examples.append(example)
            part_of.append(part)
            number_of.append(seen[example.source])
    return AuditedRows(tuple(examples), tuple(part_of), tuple(number_of), tuple(notes), labelling)


def read_rows(
    data: str | Path,
    *,
    dev: str | Path | None = None,
    test: str | Path | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    class_file: str | Path | None = None,
    multi_label: bool | None = None,
    label_separator: str | None = None,
    level_separator: str | None = None,
    usual_text: Sequence[str] = (),
) -> AuditedRows:
    """Every row of a file, or of a folder's train, dev and test files; blank texts and labels pass, broken files are a DataError.

    `usual_text`: see `read_examples`.
    """
    for option, given in (("data", data), ("dev", dev), ("test", test)):
        if given is not None:
            refuse_read_once(option, given, "an audit")
    found = split_files(data)
    files = (found.train, part_files(dev, "dev") if dev else found.dev, part_files(test, "test") if test else found.test)
    notes: list[str] = []
    named = ColumnNames(text_column=text_column, pair_column=pair_column, label_column=label_column)
    columns = DataConfig(**named, multi_label=multi_label, label_separator=label_separator, level_separator=level_separator)
    if problems := columns.problems():
        raise ConfigError("\n".join(problems))
    labelling = choose_labelling(columns, files[0], notes)
    names = _class_names(files[0][0], class_file, labelling, notes)
    parts = []
    for part, of_part in zip(PARTS, files, strict=True):
        rows: list[Example] = []
        for file in of_part:
            labelled = part == "train" or _has_labels(file, named, usual_text, notes)
            notes.append(str(file_layout(file, **named, labelled=labelled, usual_text=usual_text)))
            rows += read_examples(file, **named, labelled=labelled, labelling=labelling, blanks=True, usual_text=usual_text)
            usual_text = usual_text or rows[0].text_columns  # as training reads every file by the first one
        parts.append([_with_name(row, names, labelling) for row in rows])
    return gather(parts, notes, labelling)


def _class_names(train: Path, class_file: str | Path | None, labelling: Labelling, notes: list[str]) -> LabelSet | None:
    path = Path(class_file) if class_file is not None else find_class_file(train)
    if path is None:
        return None
    try:
        names = LabelSet(labelling.offered(read_class_file(path), str(path)))
    except DataError:
        if class_file is not None:
            raise
        return None  # it only lies beside the data, and is something else
    notes.append(f"{path}: {len(names)} class names")
    return names


def _has_labels(file: Path, named: ColumnNames, usual_text: Sequence[str], notes: list[str]) -> bool:
    """Test files of competitions have none: their texts are compared all the same."""
    try:
        check_labelled(file, **named, usual_text=usual_text)
    except DataError:
        notes.append(f"{file}: no labels, so its texts alone are looked at")
        return False
    return True


def _with_name(row: Example, names: LabelSet | None, labelling: Labelling) -> Example:
    """The row with the name that its label is the id of; other labels stay, to be told of as classes."""
    if names is None or row.label is None or all(label in names for label in row.all_labels):
        return row
    try:
        known = [known_label(label, names, row.where) for label in row.all_labels]
    except DataError:
        return row
    return row.with_labels(labelling.completed(known))

"""Ids of labels in files that were not read when a run was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fenlei.config import DataConfig
from fenlei.data.columns import known_label
from fenlei.data.examples import Example
from fenlei.data.former_labels import unambiguous
from fenlei.data.label_file import read_class_file
from fenlei.data.labelling import ONE_LABEL, Labelling
from fenlei.data.readers import find_class_file
from fenlei.errors import DataError
from fenlei.labels import LabelSet


def may_hold_ids(source: str | Path, labels: LabelSet, trained: DataConfig, manifest: Mapping[str, Any]) -> bool:
    """Whether ids of a run's labels may stand in a file: the run was trained with a class file, or one of its names lies beside the rows.

    Beside those of an extended run it may lack the last names, and once it is completed for the next extension, have further ones; beside
    those of a relabelled one it may have the former names. Where labels were merged or dropped, what the run was trained with numbers
    others.
    """
    moved = manifest.get("relabelled_from", {}).get("ids_moved", False)
    told = any(manifest.get(key, {}).get("label_ids") for key in ("data", "extended_from"))  # the file may have been found beside the data
    if not moved and (trained.class_file is not None or told):
        return True
    beside, former = _class_file_beside(source), unambiguous(manifest, labels)
    return beside is not None and all(former.get(name, name) == own for name, own in zip(beside, labels, strict=False))


def with_names(
    rows: Sequence[Example], labels: LabelSet, holds_ids: Callable[[str], bool], labelling: Labelling = ONE_LABEL
) -> tuple[Example, ...]:
    """Rows with the names that ids of `labels` stand for, in files that may hold some; a label that is neither stays, for others to refuse
    with more to say.
    """
    return tuple(_named(row, labels, labelling) if holds_ids(row.source) else row for row in rows)


def is_number(name: str) -> bool:
    """Whether a label may be an id."""
    return name.isascii() and name.isdecimal()


def _named(row: Example, labels: LabelSet, labelling: Labelling) -> Example:
    return row.with_labels(labelling.completed([_name(label, labels, row.where) for label in row.all_labels]))


def _name(label: str, labels: LabelSet, where: str) -> str:
    try:
        return known_label(label, labels, where)
    except DataError:
        return label


def _class_file_beside(source: str | Path) -> tuple[str, ...] | None:
    path = find_class_file(source)
    try:
        return read_class_file(path) if path else None
    except DataError:
        return None  # nobody named this file: it may be about something else

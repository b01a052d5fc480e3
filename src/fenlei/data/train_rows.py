"""The rows to train on, and the class file that names the ids among their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fenlei.config import DataConfig
from fenlei.data.columns import known_label
from fenlei.data.examples import Example, Rows
from fenlei.data.label_file import named_as_in_rows
from fenlei.data.labelling import Labelling
from fenlei.data.readers import columns_named_by, file_layout, find_class_file, read_files
from fenlei.errors import DataError
from fenlei.labels import LabelNote, LabelSet


@dataclass(frozen=True)
class ClassFile:
    """Class names and where they stand; `found` beside the data, or named by the user."""

    path: Path
    notes: Mapping[str, LabelNote]
    found: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.notes)


def read_train(
    files: tuple[Path, ...], config: DataConfig, labelling: Labelling, notes: list[str], usual_text: Sequence[str] = ()
) -> tuple[Rows, ClassFile | None]:
    """The rows to train on, and the class file where there is one that fits. `usual_text`: as of `read_files`."""
    class_file = _class_file(config, files[0], labelling, notes)
    layout = file_layout(files[0], **columns_named_by(config), usual_text=usual_text)
    class_names = None if class_file is None or class_file.found else class_file.names
    rows = read_files(files, config, labelling, class_names, usual_text)
    notes.append(f"{layout}; {len(rows):,} rows" + (f" in {len(files)} files" if len(files) > 1 else ""))
    if class_file is None:
        return rows, None
    if class_file.found:
        return _with_found_names(rows, class_file, labelling, notes)
    notes.append(f"{class_file.path}: {len(class_file.names)} class names, in this order")
    return rows, class_file


def _class_file(config: DataConfig, train: Path, labelling: Labelling, notes: list[str]) -> ClassFile | None:
    """The class file that the user named, else one lying beside the data."""
    if config.class_file is not None:
        return ClassFile(Path(config.class_file), named_as_in_rows(Path(config.class_file), labelling), found=False)
    path = find_class_file(train)
    if path is None:
        return None
    try:
        return ClassFile(path, named_as_in_rows(path, labelling), found=True)
    except DataError as error:
        notes.append(f"{path}, found beside the data, is not used as class file: {error}")
        return None


def _with_found_names(rows: Rows, class_file: ClassFile, labelling: Labelling, notes: list[str]) -> tuple[Rows, ClassFile | None]:
    """Rows with names for their ids. A file that nobody named may be about something else: where it fits no row, it is left alone."""
    known = LabelSet(labelling.completed(class_file.names))
    named: list[Example] = []
    misfit: DataError | None = None
    for row in rows:
        try:
            named.append(_named(row, known, labelling))
        except DataError as error:
            misfit = misfit or error
    if misfit is None:
        notes.append(f"{class_file.path}, found beside the data: {len(known)} class names, in this order")
        return tuple(named), class_file
    if named:
        raise DataError(f"{misfit}. The class names are those of {class_file.path}, found beside the data: complete it, or move it away")
    notes.append(f"{class_file.path}, found beside the data, is not used as class file: it has none of the labels of the data")
    return rows, None


def _named(row: Example, known: LabelSet, labelling: Labelling) -> Example:
    """The row with the names that its labels are the ids of."""
    return row.with_labels(labelling.completed([known_label(label, known, row.where) for label in row.all_labels]))

"""The labelled rows to measure on: which files hold them, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fenlei.config import trained_on
from fenlei.data.columns import READ_FROM
from fenlei.data.encodings import source_name
from fenlei.data.examples import Example
from fenlei.data.label_ids import may_hold_ids, with_names
from fenlei.data.labelling import Labelling
from fenlei.data.readers import ColumnNames, read_examples, why_unlabelled
from fenlei.data.remote import is_remote
from fenlei.data.sources import measured_files
from fenlei.errors import DataError
from fenlei.inference.windows import refuse_clash
from fenlei.labels import LabelSet


def labelled_files(data: str | Path, columns: ColumnNames, usual_text: Sequence[str], notes: list[str]) -> tuple[str | Path, ...]:
    """`data` itself, the files that it matches, or those of the test (else dev) part of the folder or the data set on a hub that it is.

    A test part without labels, as in competitions, is left out where there is a dev part, as training leaves it out.
    """
    files, is_dev = measured_files(data)
    why_dev = "there is no test file beside it"
    if not is_dev and (is_remote(data) or Path(data).is_dir()) and (unlabelled := why_unlabelled(files, columns, usual_text)):
        try:
            tested, (files, is_dev) = files, measured_files(data, "dev")
        except DataError:
            raise unlabelled from None
        notes.append(f"{', '.join(map(str, tested))} is not used: {unlabelled}")
        why_dev = "the test file has no labels"
    if len(files) > 1:
        notes.append(f"{data}: {len(files)} files are measured as one: {', '.join(Path(file).name for file in files)}")
    if is_dev:
        notes.append(f"{files[0]}: dev rows, since {why_dev}; if they chose the checkpoint, the figures flatter it")
    return files


def read_labelled(
    files: Sequence[str | Path],
    run: Path,
    manifest: dict[str, Any],
    labels: LabelSet,
    labelling: Labelling,
    columns: ColumnNames,
    class_names: Sequence[str] | None,
) -> tuple[Example, ...]:
    """The rows, read as the run's own were where the caller does not say otherwise; all files from the columns of the first."""
    rows: list[Example] = []
    holds_ids = {source_name(file): class_names is None and may_hold_ids(file, labels, trained_on(run), manifest) for file in files}
    for file in files:
        text = manifest.get(READ_FROM) or (rows[0].text_columns if rows else ())
        rows += read_examples(file, **columns, class_names=class_names, labelling=labelling, usual_text=text)
    return with_names(rows, labels, lambda source: holds_ids.get(source, False), labelling)


def check_rows(examples: Sequence[Example], labels: LabelSet, added: Sequence[str], prefix: str) -> None:
    """DataError for labels that the run does not know, and for columns that the written rows would have twice."""
    strange = [(example, label) for example in examples for label in example.all_labels if label not in labels]
    if strange:
        first, label = strange[0]
        more = len({example.where for example, _ in strange}) - 1
        others = f", and {more:,} more rows have such labels" if more else ""
        raise DataError(f"{first.where}: {labels.unknown(label)}{others}; correct the file, or train on rows of that class")
    for example in examples:
        refuse_clash(example, added, prefix)

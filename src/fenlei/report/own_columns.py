"""The evaluated rows as another run reads them: each is asked about the texts of the columns that it has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fenlei.artifact import read_manifest
from fenlei.data.columns import LABEL_COLUMN, choose_columns, learned_from
from fenlei.data.examples import Example
from fenlei.data.readers import ColumnNames, columns_as_trained
from fenlei.errors import DataError
from fenlei.text.pairs import PAIR_COLUMN


def read_by_others(
    others: Mapping[str, str | Path], examples: Sequence[Example], named: ColumnNames, notes: list[str]
) -> dict[str, tuple[Example, ...]]:
    """The rows as each of the runs reads them, by its name; of a file of predictions there is nothing to read.

    `named`: the columns that the user named, which every run reads. DataError where rows lack those that a run has learned from.
    """
    runs = {name: Path(run) for name, run in others.items() if Path(run).is_dir()}
    for name, run in runs.items():
        learned, measured = read_manifest(run).get(LABEL_COLUMN), examples[0].label_column
        if learned != measured and learned in examples[0].columns:
            notes.append(f"{name} has learned its labels from column {learned!r}, and is measured on those of {measured!r}")
    return {name: _as_read_by(run, examples, named) for name, run in runs.items()}


def _as_read_by(run: Path, examples: Sequence[Example], named: ColumnNames) -> tuple[Example, ...]:
    """The rows with the texts, and candidates, that the run reads in them: what else they have is the evaluated run's."""
    manifest = read_manifest(run)
    reads_pairs = manifest.get(PAIR_COLUMN) is not None
    # A second text that was named is for the runs that read one.
    given = ColumnNames(text_column=named["text_column"], pair_column=named["pair_column"] if reads_pairs else None, label_column=None)
    own = columns_as_trained(run, manifest, given)
    learned = learned_from(manifest)
    try:
        columns = choose_columns(
            examples[0].columns, text_column=own["text_column"], pair_column=own["pair_column"], label_column=learned["label_column"],
            labelled=False, where=examples[0].where, usual_text=learned["usual_text"],
        )  # fmt: skip
        return tuple(
            replace(
                row,
                text=columns.text_of(row.columns, row.where),
                pair=columns.pair_of(row.columns, row.where),
                candidates=row.candidates if columns.candidates_of(row.columns) is not None else None,  # else it learned from that column
                text_columns=columns.text,
            )
            for row in examples
        )
    except DataError as error:
        cure = "give rows that have the columns of every run, or name with --text-column what all of them are to read"
        raise DataError(f"{run}: cannot be compared, since rows lack what it has learned from: {error}; {cure}") from error

"""The rows of a distillation: what a student learns from, in its teacher's labels, and dev rows that the teacher has not learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from fenlei.artifact import fingerprint
from fenlei.config import DataConfig, RunConfig
from fenlei.data.columns import learned_from
from fenlei.data.examples import Example, Rows
from fenlei.data.former_labels import under_new_names
from fenlei.data.label_ids import may_hold_ids, with_names
from fenlei.data.labelling import Labelling
from fenlei.data.readers import ColumnNames, read_examples
from fenlei.data.remote import is_remote
from fenlei.data.sources import split_files
from fenlei.data.splits import Dataset, load_dataset
from fenlei.errors import DataError
from fenlei.labels import LabelSet
from fenlei.training.held_out import DEV, TEST, rows_of, untold_test_rows

READ_BY = ("text_column", "pair_column", "label_column", "label_separator", "level_separator", "class_file")
"""Options of the teacher's run by which other rows are read too."""


def student_config(run: Path, manifest: Mapping[str, Any], options: Mapping[str, Any], data: str | Path | None) -> RunConfig:
    """What a student of `run` is trained with: `options`, and beside them data and seed of the run, or `data` read as the run's were."""
    taught = RunConfig.from_yaml(run / "config.yaml")
    own = {key: value for key, value in asdict(taught.data).items() if value is not None and key != "store_exemplars"}
    if data is None and "extended_from" in manifest:
        raise DataError(
            f"{run}: was extended, and the rows it learned from then are of its new classes and a replay; give labelled rows of all its "
            "classes after the run's folder"
        )
    if data is not None:  # other rows: files named for the old ones say nothing of them
        several = Labelling.from_json(manifest).multi_label
        own = {key: own[key] for key in READ_BY if key in own} | {"data": str(data), "multi_label": several}
    if "extended_from" in manifest or "relabelled_from" in manifest:  # its class file names other labels than it has now
        own.pop("class_file", None)
    source = own.get("data")
    if source is None or (data is None and not is_remote(source) and not Path(source).exists()):
        raise DataError(f"{run}: was trained on {source}, which is not there any more; give the labelled rows after the run's folder")
    given = {key: value for key, value in options.items() if value is not None}
    return RunConfig().replace(**own, seed=manifest["seed"]).overridden(given)  # of the run's own options none counts as given


def student_rows(run: Path, manifest: Mapping[str, Any], config: DataConfig, *, seed: int) -> Dataset:
    """The labelled rows, with the labels of `run` in its order; DataError where a row has another.

    Rows that are to test the run are left out. Dev rows that are set aside from rows which may have trained it would flatter it: where its
    own dev rows are among them, these are dev rows again, unless `config` asks for a share; else a note says so. Those that selected the
    run select again, so that the others have selected neither.
    """
    dataset = load_dataset(config, seed=seed, usual_text=learned_from(manifest)["usual_text"])
    dataset = _without_test_rows(_in_teachers_words(dataset, run, manifest), run, manifest)
    if config.test_ratio is None:  # else they are set aside again, as they were from the teacher
        dataset = replace(dataset, notes=(*dataset.notes, *untold_test_rows(run, manifest, dataset.train)))
    dev, halves = (*dataset.selecting, *dataset.calibrating), [rows_of(manifest, part) for part in DEV]
    selecting, calibrating = (tuple(filter(was_there, dev)) for was_there in halves)
    if selecting and calibrating and len(selecting) + len(calibrating) == len(dev):
        return replace(dataset, selecting=selecting, calibrating=calibrating)
    if not {row.source for row in dev} & {row.source for row in dataset.train}:
        return dataset
    rows = (*dataset.train, *dev)
    selecting, calibrating = (tuple(filter(was_there, rows)) for was_there in halves)
    if config.dev_ratio is not None or not (selecting and calibrating):
        note = "dev rows may have trained the teacher, whose figures are flattered by them then; --dev takes rows that did not"
        return replace(dataset, notes=(*dataset.notes, note))
    train = tuple(row for row in rows if not any(was_there(row) for was_there in halves))[: config.max_train_rows]
    note = f"{len(selecting) + len(calibrating):,} rows were dev rows of the teacher, and are dev rows again; train {len(train):,}"
    return replace(dataset, train=train, selecting=selecting, calibrating=calibrating, notes=(*dataset.notes, note))


def _without_test_rows(dataset: Dataset, run: Path, manifest: Mapping[str, Any]) -> Dataset:
    """The dataset without rows that are to test the teacher; a file of such rows that is given as dev or test is taken as it is."""
    was_test, sources = rows_of(manifest, TEST), {row.source for row in dataset.train}
    parts = (dataset.train, dataset.selecting, dataset.calibrating)
    train, selecting, calibrating = (tuple(row for row in part if row.source not in sources or not was_test(row)) for part in parts)
    left_out = sum(map(len, parts)) - len(train) - len(selecting) - len(calibrating)
    if not left_out:
        return dataset
    if not (train and selecting and calibrating):
        raise DataError(f"{run}: nearly all of the rows are its test rows, from which nothing is to be learned; give others")
    note = f"{left_out:,} rows are test rows of the teacher, and are left out; train {len(train):,}"
    return replace(dataset, train=train, selecting=selecting, calibrating=calibrating, notes=(*dataset.notes, note))


def unlabelled_rows(path: str | Path | None, manifest: Mapping[str, Any], config: DataConfig, dataset: Dataset) -> tuple[Rows, list[str]]:
    """The texts without labels, each once, none of them a row of train, dev or test, nor of the teacher's test; and a note of how many."""
    if path is None:
        return (), []
    seen = {row.input for part in (dataset.train, dataset.selecting, dataset.calibrating, dataset.test) for row in part}
    was_test = rows_of(manifest, TEST)
    pool: list[Example] = []
    rows = 0
    label_column = dataset.train[0].label_column  # here too: it may have the name of a text's column, or of one of candidates
    columns: ColumnNames = {"text_column": config.text_column, "pair_column": config.pair_column, "label_column": label_column}
    usual_text, files = dataset.train[0].text_columns, split_files(path).train
    for row in chain.from_iterable(read_examples(file, **columns, labelled=False, usual_text=usual_text) for file in files):
        rows += 1
        if row.input not in seen and not was_test(row):
            seen.add(row.input)
            pool.append(replace(row, columns={}, candidates=None))  # whatever it offers, the teacher answers with all labels
    if not rows:
        raise DataError(f"{path}: expected texts to learn from, found none")
    why = "they come twice, or are labelled rows, or test rows of the teacher"
    left_out = f"; {rows - len(pool):,} more are left out: {why}" if rows > len(pool) else ""
    return tuple(pool), [f"{path}: {len(pool):,} texts to learn from without labels{left_out}"]


def changed_since(manifest: Mapping[str, Any]) -> list[str]:
    """A note where the teacher's training files are others than then: its dev rows may be trained on."""
    changed = [name for name, then in manifest["data"]["files"].items() if Path(name).is_file() and fingerprint(Path(name)) != then]
    return [f"{', '.join(changed)} changed since the teacher was trained: rows it learned from may be among dev now"] if changed else []


def _in_teachers_words(dataset: Dataset, run: Path, manifest: Mapping[str, Any]) -> Dataset:
    """The dataset with the teacher's labels, in its order, in place of ids and of those that it had before they were changed."""
    known, trained = LabelSet(tuple(manifest["labels"])), RunConfig.from_yaml(run / "config.yaml").data
    notes = list(dataset.notes)

    @cache
    def holds_ids(source: str) -> bool:
        return may_hold_ids(source, known, trained, manifest)

    parts = [
        with_names(part, known, holds_ids, dataset.labelling)
        for part in (dataset.train, dataset.selecting, dataset.calibrating, dataset.test)
    ]
    train, selecting, calibrating, test = under_new_names(parts, manifest, known, notes)
    for row in (*train, *selecting, *calibrating, *test):
        strange = next((label for label in row.all_labels if label not in known), None)
        if strange is not None:
            raise DataError(f"{row.where}: {known.unknown(strange)}, the labels that {run} knows; correct the row, or give other rows")
    dataset = replace(dataset, labels=known, ids_named=any(map(holds_ids, {row.source for row in train})), notes=tuple(notes))
    return replace(dataset, train=train, selecting=selecting, calibrating=calibrating, test=test)

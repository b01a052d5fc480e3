"""The rows of a run: which train, which select the checkpoint, which calibrate and which test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fenlei.config import DataConfig
from fenlei.data.encodings import refuse_read_once, same_file
from fenlei.data.examples import Example, Rows
from fenlei.data.folders import SplitFiles, check_whole
from fenlei.data.labelling import ONE_LABEL, Labelling
from fenlei.data.readers import columns_named_by, read_files, why_unlabelled
from fenlei.data.several_labels import choose_labelling
from fenlei.data.sources import part_files, split_files
from fenlei.data.stratify import fewest_rows, halves, sample, set_aside
from fenlei.data.train_rows import read_train
from fenlei.errors import ConfigError, DataError, first_few
from fenlei.hierarchy import usual_separator
from fenlei.labels import LabelNote, LabelSet

DEV_RATIO = 0.15
"""The share of dev where neither a dev file nor a ratio is given: that of the first requirements (S1)."""


@dataclass(frozen=True)
class Dataset:
    """The rows of a run, each part in the order of its file."""

    train: Rows
    selecting: Rows
    """The dev rows that choose the checkpoint."""
    calibrating: Rows
    """The other dev rows, which fit the temperature."""
    test: Rows
    """Empty where there is none."""
    labels: LabelSet
    notes: tuple[str, ...]
    """Lines to print: what was read, what was split and how, what is unusual."""
    label_notes: Mapping[str, LabelNote] = field(default_factory=dict)
    """What the class file says of labels besides their names."""
    labelling: Labelling = ONE_LABEL
    """Whether a row has one label or any number."""
    thinned: frozenset[str] = frozenset()
    """Classes of which train has a part of the rows: how many it has says nothing of how often they come."""
    ids_named: bool = False
    """Whether a class file gave their names to ids: then later files may have such ids too."""

    @property
    def multi_label(self) -> bool:
        return self.labelling.multi_label

    def gold(self, rows: Sequence[Example]) -> np.ndarray:
        """The labels of rows: ids, int64 (rows,); multi-label: bool (rows, labels)."""
        return self.labelling.gold(rows, self.labels)


def load_dataset(config: DataConfig, *, seed: int, usual_text: Sequence[str] = ()) -> Dataset:
    """The rows that a configuration names, split; DataError for rows and ConfigError for options that do not fit.

    Every file is read from the columns that the first one of train is read from: those that are named, else `usual_text` where it has them,
    else those found by name.
    """
    notes: list[str] = []
    files = _choose_files(config, notes)
    labelling = choose_labelling(config, files.train, notes)
    rows, class_file = read_train(files.train, config, labelling, notes, usual_text)
    class_names = None if class_file is None else labelling.completed(class_file.names)
    labels = _label_set(rows, class_names, notes)
    separator = None if labelling.hierarchy else usual_separator(labels)
    if separator is not None:
        notes.append(f"labels look like paths: --level-separator '{separator}' would measure each of their levels")
    text = rows[0].text_columns
    dev_file_rows = _read_part("dev", files.dev, config, labelling, labels, class_names, text, notes)
    test_file_rows = _read_part("test", files.test, config, labelling, labels, class_names, text, notes)
    if config.test is not None:
        rows = _without_tested(rows, test_file_rows, labels, notes)
    ratios = {
        "dev": 0.0 if files.dev else (DEV_RATIO if config.dev_ratio is None else config.dev_ratio),
        "test": 0.0 if files.test else (config.test_ratio or 0.0),
    }
    train, dev, test = _set_aside(rows, labelling.strata(rows, labels), labels, ratios, seed, notes)
    dev, test = dev_file_rows or dev, test_file_rows or test
    selecting, calibrating = _split_dev(dev, labelling.strata(dev, labels), seed)
    train = _limited(train, labelling.strata(train, labels), config.max_train_rows, seed, notes)
    notes.append(
        f"train {len(train):,}, dev {len(dev):,} ({len(selecting):,} select, {len(calibrating):,} calibrate), test {len(test):,} rows"
    )
    label_notes = {} if class_file is None else class_file.notes
    return Dataset(train, selecting, calibrating, test, labels, tuple(notes), label_notes, labelling, ids_named=class_file is not None)


def _choose_files(config: DataConfig, notes: list[str]) -> SplitFiles:
    """The files to read; an option goes before what the folder holds."""
    if config.data is None:
        raise ConfigError("data: no labelled file or folder given to train on")
    for option, given in (("data", config.data), ("dev", config.dev), ("test", config.test)):
        if given is not None:
            refuse_read_once(option, given, "training")
    found = split_files(config.data)
    dev = _choose("dev", config.dev, config.dev_ratio, found.dev, notes)
    test = _choose("test", config.test, config.test_ratio, found.test, notes)
    if config.test is None:
        test = _with_labels(test, config, notes)
    for role, part, others in (("dev", dev, found.train), ("test", test, found.train + dev)):
        _refuse_seen(role, part, others)
    return SplitFiles(found.train, dev, test)


def _choose(
    role: Literal["dev", "test"], named: str | None, ratio: float | None, found: tuple[Path, ...], notes: list[str]
) -> tuple[Path, ...]:
    if found and ratio is not None:
        notes.append(f"{_listed(found)} is not used, since {role}_ratio is given")
    if named is not None:
        return part_files(named, role)
    return found if ratio is None else ()


def _with_labels(test: tuple[Path, ...], config: DataConfig, notes: list[str]) -> tuple[Path, ...]:
    """Test files that only lie in the folder are left out where they have no labels, as in competitions."""
    check_whole(test)
    unlabelled = why_unlabelled(test, columns_named_by(config))
    if unlabelled is None:
        return test
    notes.append(f"{', '.join(map(str, test))} is not used: {unlabelled}")
    return ()


def _refuse_seen(role: str, part: tuple[Path, ...], others: tuple[Path, ...]) -> None:
    for file in part:
        if any(same_file(file, other) for other in others):
            raise ConfigError(f"{role}: {file} is used for training or dev as well, so a result on it would say nothing; give another file")


def _label_set(rows: Rows, class_names: tuple[str, ...] | None, notes: list[str]) -> LabelSet:
    """The labels of a run; DataError where there is nothing to learn: one class, or a class with one row."""
    counts = Counter(label for row in rows for label in row.all_labels)
    if len(counts) < 2:
        found = "only " + "".join(f"{name!r} on all {rows_of:,} rows" for name, rows_of in counts.items()) if counts else "none"
        raise DataError(f"{rows[0].source}: expected at least two classes, found {found}; is it the right label column?")
    lonely = [f"{label!r} ({row.where})" for row in rows for label in row.all_labels if counts[label] == 1]
    if lonely:
        shown = first_few(lonely, 5)
        cure = "add rows, correct the label if it is misspelt, or remove the row"
        raise DataError(f"expected at least two rows of every class, found only one of {len(lonely)}: {shown}; {cure}")
    labels = LabelSet.in_order_of_appearance(counts) if class_names is None else LabelSet(class_names)
    unused = [name for name in labels if name not in counts]
    if unused:
        notes.append(f"no training row is of class {_quoted(unused)}, so it cannot be learned")
    return labels


def _read_part(
    role: str,
    files: tuple[Path, ...],
    config: DataConfig,
    labelling: Labelling,
    labels: LabelSet,
    class_names: tuple[str, ...] | None,
    usual_text: Sequence[str],
    notes: list[str],
) -> Rows:
    """The rows of a dev or test file; every label has to be one of train."""
    if not files:
        return ()
    rows = read_files(files, config, labelling, class_names, usual_text)
    strange = [(row, label) for row in rows for label in row.all_labels if label not in labels]
    if strange:
        row, label = strange[0]
        found = f"{labels.unknown(label)}, as {len({row.where for row, _ in strange}):,} of the {len(rows):,} {role} rows"
        raise DataError(f"{row.where}: {found}; correct or remove them, or add rows of that class to train")
    notes.append(f"{role}: {len(rows):,} rows of {_listed(files)}")
    present = {label for row in rows for label in row.all_labels}
    absent = [name for name in labels if name not in present]
    if absent:
        notes.append(f"{role} has no row of {len(absent)} of the {len(labels)} classes: {_quoted(absent)}")
    return rows


def _without_tested(rows: Rows, tested: Rows, labels: LabelSet, notes: list[str]) -> Rows:
    """The rows to train on but for those whose text stands in the test file that was named: where rows were put together anew, the test
    rows of the run before come with them. DataError where too few are left.
    """
    texts = {row.whole for row in tested}
    kept = tuple(row for row in rows if row.whole not in texts)
    if len(kept) == len(rows):
        return rows
    if not kept:
        raise DataError(f"{rows[0].source}: every row has a text of the test file, {tested[0].source}; give rows that are not in it")
    notes.append(f"{len(rows) - len(kept):,} rows do not train: their texts are those of test rows, {tested[0].where} the first of these")
    _label_set(kept, labels.names, notes)
    return kept


def _set_aside(
    rows: Rows, strata: Sequence[int], labels: LabelSet, ratios: Mapping[str, float], seed: int, notes: list[str]
) -> tuple[Rows, Rows, Rows]:
    """train, dev and test, the latter two empty where their ratio is 0. Multi-label rows are split by their rarest label."""
    parts = set_aside(strata, dev_ratio=ratios["dev"], test_ratio=ratios["test"], seed=seed)
    if parts.unsplit:
        fewest = fewest_rows(ratios["dev"], ratios["test"])
        multi_label = rows[0].labels is not None
        if not parts.dev + parts.test:
            none = "no label is the rarest one of" if multi_label else "no class has"
            raise DataError(f"{rows[0].source}: {none} the {fewest} rows it takes to set some aside; add rows, or give a file for dev")
        kept = _rows_of_strata(parts.unsplit, labels, multi_label)
        notes.append(f"{kept} stay in train: fewer than {fewest}, too few for every part")
    for role, places in (("dev", parts.dev), ("test", parts.test)):
        if ratios[role]:
            notes.append(f"{role}: {len(places):,} rows set aside ({len(places) / len(rows):.1%}), stratified, seed {seed}")
    train, dev, test = (tuple(rows[place] for place in places) for places in (parts.train, parts.dev, parts.test))
    return train, dev, test


def _rows_of_strata(strata: Sequence[int], labels: LabelSet, multi_label: bool) -> str:
    """What rows were split by, in words; a multi-label row has further labels, of which other rows are set aside."""
    names = _quoted([labels.name(stratum) for stratum in strata if stratum < len(labels)])
    if not multi_label:
        return f"all rows of {names}"
    kinds = [f"all rows whose rarest label is {names}"] if names else []
    return " and ".join([*kinds, "all rows without labels"] if len(labels) in strata else kinds)


def _split_dev(dev: Rows, strata: Sequence[int], seed: int) -> tuple[Rows, Rows]:
    """The selecting and the calibrating rows of dev."""
    if len(dev) < 2:
        raise DataError(f"{dev[0].source}: expected at least two dev rows, one to select and one to calibrate, found {len(dev)}")
    selecting, calibrating = halves(strata, seed=seed)
    return tuple(dev[place] for place in selecting), tuple(dev[place] for place in calibrating)


def _limited(train: Rows, strata: Sequence[int], most: int | None, seed: int, notes: list[str]) -> Rows:
    """As many of the training rows as are asked for. They are taken last, so that dev and test are the same with any number of them."""
    if most is None or most >= len(train):
        return train
    taken = sample(strata, most, seed=seed)
    notes.append(f"train: {len(taken):,} of {len(train):,} rows are taken (max_train_rows), stratified, seed {seed}")
    return tuple(train[place] for place in taken)


def _listed(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _quoted(names: Sequence[str]) -> str:
    return first_few([repr(name) for name in names])

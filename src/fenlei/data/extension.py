"""The rows that a run is extended with: those of its new classes, and replayed ones of the classes it knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from fenlei.config import DataConfig
from fenlei.data.columns import LABEL_COLUMN, READ_FROM
from fenlei.data.examples import Example, Rows
from fenlei.data.label_file import named_as_in_rows
from fenlei.data.label_ids import is_number, with_names
from fenlei.data.labelling import Labelling
from fenlei.data.readers import read_files
from fenlei.data.sources import part_files, split_files
from fenlei.data.splits import DEV_RATIO, Dataset
from fenlei.data.stratify import halves, set_aside
from fenlei.errors import ConfigError, DataError
from fenlei.hierarchy import Hierarchy
from fenlei.labels import LabelNote, LabelSet

LEAST_REPLAYED = 20
"""Rows of each known class that are replayed, where there are so many, however few the new rows are."""
UNREAD = ("test", "test_ratio", "max_train_rows", "multi_label", "label_separator")
"""Options of data that an extension does not look at."""
OF_A_SAMPLE = (
    "known and new classes give dev different shares of their rows, so they are not in it as often as they come: threshold and sets hold "
    "for such rows alone; --dev takes rows that come as they do"
)
MAY_HAVE_TRAINED = (
    "replayed rows may have trained the run: what it knew before is flattered by them, and so are the confidence, the threshold and the "
    "sets that are fitted on them; --dev takes rows that did not"
)


def load_extension(
    config: DataConfig,
    known: LabelSet,
    replay: Rows,
    was_dev: Sequence[Callable[[Example], bool]],
    *,
    seed: int,
    holds_ids: Callable[[str], bool] = lambda source: False,
    usual_text: Sequence[str] = (),
) -> Dataset:
    """The rows of `config.data`, all of new classes, and as many of `replay`, all of known ones; the known labels come first.

    was_dev: whether a row selected the run, and whether one calibrated it; where `replay` has such rows, they do so again. Without a dev
    file, dev is these rows, and what is set aside from the new ones and from known classes without such rows. holds_ids: whether a file may
    have ids in place of names. A class file of the configuration has the names of all ids, or those of new classes alone. DataError where a
    label stands on the wrong side, or a class has one row. usual_text: see `read_examples`.
    """
    names, label_notes = _names(config, known)
    new = _new_rows(config, known, names, usual_text)
    labels = LabelSet(tuple(dict.fromkeys((*names, *(str(row.label) for row in new)))))
    replay = with_names(replay, names, holds_ids)
    _check_known(replay, known, labels)
    notes = [
        f"{len(new):,} rows of {len(labels) - len(known)} new classes: {', '.join(labels.names[len(known) :][:8])}",
        *_alike(labels, known),
        *_unlearned(labels, known, new),
    ]
    dev_file = None if config.dev is None else _dev_file(config, names, labels, holds_ids, usual_text)
    taught, replayed, dev = _parts(new, replay, dev_file, was_dev, labels, config.dev_ratio or DEV_RATIO, seed, notes)
    unseen = [name for name in known if not any(row.label == name for row in replayed)]
    if unseen:
        notes.append(f"nothing of {len(unseen)} known classes is replayed, so they may be forgotten: {', '.join(unseen[:8])}")
    selecting, calibrating = _halves(dev, was_dev, labels, seed)
    notes.append(
        f"train {len(taught):,} new and {len(replayed):,} replayed rows, dev {len(dev):,} ({len(selecting):,} select, "
        f"{len(calibrating):,} calibrate)"
    )
    return Dataset((*taught, *replayed), selecting, calibrating, (), labels, tuple(notes), label_notes, thinned=frozenset(known))


def _parts(
    new: Rows,
    replay: Rows,
    dev_file: Rows | None,
    was_dev: Sequence[Callable[[Example], bool]],
    labels: LabelSet,
    ratio: float,
    seed: int,
    notes: list[str],
) -> tuple[Rows, Rows, Rows]:
    """What is taught of the new rows, what is replayed, and dev."""
    kept_out, pool = _kept_out(replay, was_dev)
    if dev_file is not None:
        return new, _thinned(pool, labels, len(new), seed), dev_file
    taught, dev_new = _set_aside(new, labels, ratio, seed)
    replayed = _thinned(pool, labels, len(taught) + (0 if kept_out else len(dev_new)), seed)
    if kept_out:
        notes.append(f"{len(kept_out):,} dev rows of the run are dev rows again")
    # Exemplars of a class that an earlier extension added are rows that it learned from: none of them was dev.
    covered = {row.label for row in kept_out}
    bare, dev_old = _set_aside(tuple(row for row in replayed if row.label not in covered), labels, ratio, seed)
    if dev_old:
        notes.append(MAY_HAVE_TRAINED)
    return taught, (*(row for row in replayed if row.label in covered), *bare), (*kept_out, *dev_old, *dev_new)


def read_rows(data: str | Path, config: DataConfig, class_names: Sequence[str] | None = None, usual_text: Sequence[str] = ()) -> Rows:
    """The labelled rows of a file, or of the train files of a folder or a data set on a hub; DataError where there are none."""
    return read_files(split_files(data).train, config, _labelling(config), class_names, usual_text)


def class_file_names(config: DataConfig) -> Mapping[str, LabelNote]:
    """What the class file for an extension says of each class, old and new or new alone; nothing where there is none."""
    return {} if config.class_file is None else named_as_in_rows(config.class_file, _labelling(config), least=1)


def columns_of_old(manifest: Mapping[str, Any], config: DataConfig) -> dict[str, Any]:
    """What the manifest of the older run says of its columns, where none are named now: files to predict have those, not the new rows'."""
    named = {READ_FROM: config.text_column, LABEL_COLUMN: config.label_column}
    return {key: manifest[key] for key, name in named.items() if name is None and manifest.get(key)}


def refuse_unread(options: Mapping[str, Any]) -> None:
    """ConfigError for options that would do nothing."""
    unread = next((name for name in UNREAD if options.get(name)), None)
    if unread is not None:
        raise ConfigError(f"{unread}: an extension makes train and dev out of new rows and a replay, one label each; leave it out")


def _labelling(config: DataConfig) -> Labelling:
    return Labelling(hierarchy=None if config.level_separator is None else Hierarchy(config.level_separator))


def _names(config: DataConfig, known: LabelSet) -> tuple[LabelSet, Mapping[str, LabelNote]]:
    """The known names, and behind them those that a class file adds; what it says of the latter."""
    told = class_file_names(config)
    if not told:
        return known, {}
    new = {name: note for name, note in told.items() if name not in known}
    if tuple(told) not in ((*known, *new), tuple(new)):
        raise DataError(
            f"{config.class_file}: expected the {len(known)} names of the run in its order, so that ids stay what they are, and new ones "
            f"below, or new ones alone; the run's begin with {', '.join(map(repr, known.names[:8]))}"
        )
    return LabelSet((*known, *new)), new


def _new_rows(config: DataConfig, known: LabelSet, all_names: LabelSet, usual_text: Sequence[str]) -> Rows:
    assert config.data is not None
    rows = read_rows(config.data, config, None if config.class_file is None else all_names.names, usual_text)
    if config.class_file is None:
        _refuse_nameless(rows, known)
    old = [row for row in rows if row.label in known]
    if len(old) == len(rows):
        names = ", ".join(repr(name) for name in list(dict.fromkeys(str(row.label) for row in rows))[:8])
        raise DataError(
            f"{config.data}: expected rows of a new class, found only classes that the run knows ({names}); train on them instead"
        )
    if old:
        raise DataError(
            f"{old[0].where}: {old[0].label!r} is a class of the run already, as {len(old):,} of the {len(rows):,} rows are; "
            "give rows of known classes with --replay, and only those of new classes here"
        )
    counts = Counter(row.label for row in rows)
    lonely = next((row for row in rows if counts[row.label] == 1), None)
    if lonely is not None:
        raise DataError(f"{lonely.where}: {lonely.label!r} has this row alone; add rows, or correct the label if it is misspelt")
    return rows


def _refuse_nameless(rows: Rows, known: LabelSet) -> None:
    """Numbers beside names are ids, for which no name is known here."""
    nameless = next((row for row in rows if is_number(str(row.label))), None)
    if nameless is not None and not any(map(is_number, known)):
        raise DataError(
            f"{nameless.where}: label {nameless.label!r} is a number, and the classes of the run have names; give --class-file with the "
            f"{len(known)} names of the run in its order (ids 0 to {len(known) - 1}) and the new ones below"
        )


def _check_known(replay: Sequence[Example], known: LabelSet, labels: LabelSet) -> None:
    strange = next((row for row in replay if row.label not in known), None)
    if strange is None:
        return
    if strange.label in labels:
        raise DataError(f"{strange.where}: {strange.label!r} is a new class; its rows belong with the new ones, not with those replayed")
    raise DataError(f"{strange.where}: {known.unknown(str(strange.label))}; correct the row, or leave it out")


def _alike(labels: LabelSet, known: LabelSet) -> list[str]:
    """A note for every new name that may be an old one, misspelt."""
    near = {name: get_close_matches(name, known.names, n=1, cutoff=0.8) for name in labels if name not in known}
    return [f"the new class {name!r} is spelt much like {found[0]!r}, which the run knows" for name, found in near.items() if found]


def _unlearned(labels: LabelSet, known: LabelSet, new: Rows) -> list[str]:
    """A note where a class file has new classes without rows."""
    there = {row.label for row in new}
    absent = [name for name in labels if name not in known and name not in there]
    return [f"no new row is of class {', '.join(map(repr, absent[:8]))}, so it cannot be learned"] if absent else []


def _dev_file(
    config: DataConfig, with_ids: LabelSet, labels: LabelSet, holds_ids: Callable[[str], bool], usual_text: Sequence[str]
) -> Rows:
    assert config.dev is not None
    rows = read_files(part_files(config.dev, "dev"), config, _labelling(config), usual_text=usual_text)
    rows = with_names(rows, with_ids, holds_ids)
    strange = next((row for row in rows if row.label not in labels), None)
    if strange is not None:
        raise DataError(f"{strange.where}: {labels.unknown(str(strange.label))}; correct or remove the row")
    return rows


def _set_aside(rows: Rows, labels: LabelSet, ratio: float, seed: int) -> tuple[Rows, Rows]:
    """Train and dev."""
    parts = set_aside(labels.ids([str(row.label) for row in rows]), dev_ratio=ratio, test_ratio=0.0, seed=seed)
    return tuple(rows[at] for at in parts.train), tuple(rows[at] for at in parts.dev)


def _kept_out(rows: Rows, was_dev: Sequence[Callable[[Example], bool]]) -> tuple[Rows, Rows]:
    """The rows that were dev of the run, and the others."""
    held_out = [any(was_there(row) for was_there in was_dev) for row in rows]
    kept_out, others = (tuple(row for row, held in zip(rows, held_out, strict=True) if held is wanted) for wanted in (True, False))
    return kept_out, others


def _halves(dev: Rows, was_dev: Sequence[Callable[[Example], bool]], labels: LabelSet, seed: int) -> tuple[Rows, Rows]:
    """The rows that select and those that calibrate: what chose the weights that are gone on with is no row to calibrate them on."""
    _, fresh = _kept_out(dev, was_dev)
    dealt = halves(labels.ids([str(row.label) for row in fresh]), seed=seed)
    selecting, calibrating = (
        (*filter(was_there, dev), *(fresh[at] for at in places)) for was_there, places in zip(was_dev, dealt, strict=True)
    )
    if not (selecting and calibrating):
        found = f"found {len(selecting)} and {len(calibrating)}"
        raise DataError(f"expected at least two dev rows, one to select and one to calibrate, {found}; add rows, or give --dev")
    return selecting, calibrating


def _thinned(pool: Rows, labels: LabelSet, most: int, seed: int) -> Rows:
    """At most `most` rows (but LEAST_REPLAYED of each class), drawn at random, the classes as evenly as they come; in the order given."""
    places: dict[int, list[int]] = {}
    for at in np.random.RandomState(seed).permutation(len(pool)).tolist():
        places.setdefault(labels.id(str(pool[at].label)), []).append(at)
    share = 0
    while share < max(map(len, places.values()), default=0) and sum(min(len(one), share + 1) for one in places.values()) <= most:
        share += 1
    share = max(share, LEAST_REPLAYED)
    return tuple(pool[at] for at in sorted(at for one in places.values() for at in one[:share]))

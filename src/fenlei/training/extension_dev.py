"""The dev rows of an extension: those that the run brings along, and what they tell of how often classes come, and may have trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fenlei.config import DataConfig
from fenlei.data.examples import Rows
from fenlei.data.label_ids import with_names
from fenlei.labels import LabelSet
from fenlei.training.held_out import DEV, dev_rows_beside, rows_of, rows_read
from fenlei.training.imbalance import class_counts
from fenlei.training.setup import Setup

ALIKE = 1.3
"""How many times the one share may be the other: rows that the run set aside for test, and rounding, bring them that far apart."""


def with_own_dev(replay: Rows, manifest: Mapping[str, Any], trained: DataConfig, known: LabelSet, holds_ids: Callable[[str], bool]) -> Rows:
    """The replay, and behind it the run's own dev rows of other files, read as the run was `trained`.

    A file that the run has not read may be a copy with rows added, or several put together, whose lines tell no dev row: of such a file
    rows with these texts are left out.
    """
    beside = with_names(dev_rows_beside(replay, manifest, trained), known, holds_ids)
    beside = tuple(row for row in beside if row.label in known)  # an id may have lost the file that named it
    texts, was_read = {row.input for row in beside}, rows_read(manifest)
    return (*(row for row in replay if row.input not in texts or was_read(row)), *beside)


def dev_is_natural(setup: Setup, manifest: Mapping[str, Any], of_all: np.ndarray) -> bool:
    """Whether known and new classes are in dev as often as they come: it is a file, or both gave it about the same share of their rows, in
    the extension before too.

    `of_all`: training rows of each label if all were trained on, int64 (labels,), the known ones first.
    """
    if setup.config.data.dev is not None:
        return True
    of_dev = class_counts(setup.dataset.gold((*setup.dataset.selecting, *setup.dataset.calibrating)), len(of_all))
    both_sides = zip(*(np.split(counts, [len(manifest["labels"])]) for counts in (of_dev, of_all)), strict=True)
    shares = [dev.sum() / max(1, dev.sum() + train.sum()) for dev, train in both_sides]
    before = manifest.get("extended_from", {}).get("dev_is_natural", True)
    return bool(before and max(shares) <= ALIKE * min(shares))


def dev_may_have_trained(setup: Setup, manifest: Mapping[str, Any]) -> bool:
    """Whether the run may have learned from rows of dev: those of known classes were set aside from a replay, in the extension before, or
    now.
    """
    if setup.config.data.dev is not None:
        return False
    held_out, known = rows_of(manifest, *DEV), set(manifest["labels"])
    now = any(row.label in known and not held_out(row) for row in (*setup.dataset.selecting, *setup.dataset.calibrating))
    return now or bool(manifest.get("extended_from", {}).get("dev_may_have_trained"))

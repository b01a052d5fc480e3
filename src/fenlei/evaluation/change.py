"""What becomes of known classes when a classifier goes on learning: the same rows before and after, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fenlei.evaluation.bootstrap import Interval, of_means
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class RecallChange:
    """Of the rows of a class (of all known classes: name None), the share that is answered right."""

    name: str | None
    rows: int
    before: float
    after: float
    interval: Interval
    """Bootstrap 95 % interval of after - before, over the same rows drawn for both."""

    @property
    def change(self) -> float:
        return self.after - self.before


def recall_changes(label_ids: np.ndarray, before: np.ndarray, after: np.ndarray, known: LabelSet) -> tuple[RecallChange, ...]:
    """Of all known classes together, then of each that has rows: predicted ids `before` and `after` (rows,) against label_ids (rows,).

    Rows of other classes are left out: the classifier before could not get them right. Empty where no row is of a known class.
    """
    gold, first, second = (np.asarray(one, dtype=np.int64) for one in (label_ids, before, after))
    groups = [(None, gold < len(known)), *((name, gold == at) for at, name in enumerate(known))]
    return tuple(_change(name, (first == gold)[rows], (second == gold)[rows]) for name, rows in groups if rows.any())


def _change(name: str | None, before: np.ndarray, after: np.ndarray) -> RecallChange:
    moved = after.astype(np.float64) - before
    return RecallChange(name, len(before), float(before.mean()), float(after.mean()), of_means({"change": moved})["change"])

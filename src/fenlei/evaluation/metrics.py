"""How good a classifier is on labelled rows, as one value. scikit-learn does the arithmetic."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from fenlei.errors import DataError
from fenlei.evaluation.calibration import expected_calibration_error
from fenlei.labels import LabelSet

Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class ClassMetrics:
    """One class against all others, each between 0 and 1."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Rows that carry this label."""


@dataclass(frozen=True)
class Metrics:
    """Figures of one classifier on one set of rows. Macro figures are plain means over every class of the label set."""

    rows: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """Wilson 95 % interval."""
    macro_precision: float
    macro_recall: float
    macro_f1: float
    log_loss: float
    expected_calibration_error: float
    classes: tuple[ClassMetrics, ...]
    """In label order."""
    confusion: np.ndarray = field(compare=False, repr=False)
    """int64 (gold rows, predicted columns); left out of ==, which arrays do not give."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes)

    def to_json(self) -> dict[str, Any]:
        """The same as plain lists, numbers and strings."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["accuracy_interval"] = list(self.accuracy_interval)
        plain["classes"] = [dataclasses.asdict(one) for one in self.classes]
        plain["confusion"] = self.confusion.tolist()
        return plain


def compute_metrics(label_ids: np.ndarray, probabilities: np.ndarray, labels: LabelSet) -> Metrics:
    """Metrics of probabilities (rows, labels) against label_ids (rows,). The prediction of a row is its most probable label.

    A class without rows, or never predicted, counts 0 where its figure is not defined, and counts in every macro mean.
    DataError where there are no rows or the shapes do not fit each other.
    """
    gold, scores = _checked(label_ids, probabilities, labels)
    predicted = scores.argmax(axis=1)
    every = np.arange(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, labels=every, average=None, zero_division=0)
    confusion = np.asarray(confusion_matrix(gold, predicted, labels=every), dtype=np.int64)
    right = int(confusion.trace())
    return Metrics(
        rows=len(gold),
        accuracy=right / len(gold),
        accuracy_interval=wilson_interval(right, len(gold)),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        log_loss=float(log_loss(gold, scores / scores.sum(axis=1, keepdims=True), labels=every)),
        expected_calibration_error=expected_calibration_error(scores, gold),
        classes=tuple(
            ClassMetrics(name, float(precision[at]), float(recall[at]), float(f1[at]), int(support[at])) for at, name in enumerate(labels)
        ),
        confusion=confusion,
    )


def wilson_interval(successes: int, rows: int) -> tuple[float, float]:
    """Bounds of the 95 % interval of a share: sound for few rows and for shares near 0 or 1, unlike the normal one."""
    share = successes / rows
    spread = Z_95**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def _checked(label_ids: np.ndarray, probabilities: np.ndarray, labels: LabelSet) -> tuple[np.ndarray, np.ndarray]:
    """label_ids as int64 (rows,), probabilities as float64 (rows, labels): float64, so that log-loss clips at 2e-16, not at 1e-7."""
    gold = np.asarray(label_ids, dtype=np.int64)
    scores = np.asarray(probabilities, dtype=np.float64)
    if len(gold) == 0:
        raise DataError("expected at least one labelled row to measure on, found none")
    if scores.shape != (len(gold), len(labels)):
        raise DataError(f"expected probabilities for {len(gold)} rows and {len(labels)} labels, found an array of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise DataError(f"row {int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])}: a probability is not a number")
    return gold, scores

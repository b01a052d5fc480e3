"""How good a classifier is on labelled rows, as one value. scikit-learn does the arithmetic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support

from fenlei.errors import DataError
from fenlei.evaluation import bootstrap
from fenlei.evaluation.bootstrap import Z_95, Interval
from fenlei.evaluation.reliability import expected_calibration_error, noise_floor
from fenlei.evaluation.scored_rows import checked
from fenlei.labels import LabelSet

TOP_K = (2, 3, 5)
"""How far down the order of labels the right one is looked for, where there are more labels than that."""


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
    """Figures of one classifier on one set of rows.

    Macro figures are plain means over every class of the label set, weighted ones count a class by its rows, micro ones pool all rows (with
    one label a row they all equal the accuracy).
    """

    rows: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """Wilson 95 % interval."""
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    top_k: Mapping[int, float]
    """Share of the rows whose label is among the k most probable, by k."""
    matthews: float
    """Matthews correlation of labels given and predicted: 0 is chance, 1 is perfect."""
    log_loss: float
    brier: float
    """Mean squared distance of the probabilities from the truth, summed over labels: 0 is perfect, 2 the worst."""
    expected_calibration_error: float
    classes: tuple[ClassMetrics, ...]
    """In label order."""
    confusion: np.ndarray = field(compare=False, repr=False)
    """int64 (gold rows, predicted columns); left out of ==, which arrays do not give."""
    calibration_noise_floor: float | None = None
    """The calibration error that a perfectly calibrated model would show on these rows; None where it was not asked for."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Bootstrap 95 % intervals by figure; empty where they were not asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes)

    def to_json(self) -> dict[str, Any]:
        """The same as plain lists, numbers and strings."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["accuracy_interval"] = list(self.accuracy_interval)
        plain["top_k"] = {str(k): share for k, share in self.top_k.items()}
        plain["intervals"] = {name: list(bounds) for name, bounds in self.intervals.items()}
        plain["classes"] = [dataclasses.asdict(one) for one in self.classes]
        plain["confusion"] = self.confusion.tolist()
        return plain


def compute_metrics(label_ids: np.ndarray, probabilities: np.ndarray, labels: LabelSet, *, uncertainty: bool = False) -> Metrics:
    """Metrics of probabilities (rows, labels) against label_ids (rows,). The prediction of a row is its most probable label.

    A class without rows, or never predicted, counts 0 where its figure is not defined, and counts in every macro mean. `uncertainty` adds
    bootstrap intervals and the noise floor of the calibration error. DataError where there are no rows, the shapes do not fit each other,
    or a probability is not a number.
    """
    gold, scores = checked(label_ids, probabilities)
    if scores.shape[1] != len(labels):
        raise DataError(f"expected probabilities for {len(gold)} rows and {len(labels)} labels, found an array of shape {scores.shape}")
    predicted = scores.argmax(axis=1)
    every = np.arange(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, labels=every, average=None, zero_division=0)
    weighted = [float(np.average(figure, weights=support)) for figure in (precision, recall, f1)]
    # Not scikit-learn's, as the log-loss below: of a single label, which a level of a hierarchy may have, it warns or raises.
    confusion = np.bincount(gold * len(labels) + predicted, minlength=len(labels) ** 2).reshape(len(labels), len(labels))
    right = int(confusion.trace())
    by_row = _by_row(gold, scores)
    metrics = Metrics(
        rows=len(gold),
        accuracy=right / len(gold),
        accuracy_interval=wilson_interval(right, len(gold)),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        weighted_precision=weighted[0],
        weighted_recall=weighted[1],
        weighted_f1=weighted[2],
        micro_precision=right / len(gold),
        micro_recall=right / len(gold),
        micro_f1=right / len(gold),
        top_k={k: float(by_row[f"top_{k}"].mean()) for k in TOP_K if k < len(labels)},
        matthews=float(matthews_corrcoef(gold, predicted)) if np.count_nonzero(confusion) > 1 else 0.0,  # one answer is no correlation
        log_loss=float(by_row["log_loss"].mean()),
        brier=float(by_row["brier"].mean()),
        expected_calibration_error=expected_calibration_error(scores, gold),
        classes=tuple(
            ClassMetrics(name, float(precision[at]), float(recall[at]), float(f1[at]), int(support[at])) for at, name in enumerate(labels)
        ),
        confusion=confusion,
    )
    if not uncertainty:
        return metrics
    intervals = {**bootstrap.of_confusion(confusion), **bootstrap.of_means(by_row)}
    return dataclasses.replace(metrics, calibration_noise_floor=noise_floor(scores), intervals=intervals)


def wilson_interval(successes: int, rows: int) -> tuple[float, float]:
    """Bounds of the 95 % interval of a share: sound for few rows and for shares near 0 or 1, unlike the normal one."""
    share = successes / rows
    spread = Z_95**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def _by_row(gold: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """What a row adds to each figure that is a mean over rows: arrays (rows,) by its name."""
    own = scores[np.arange(len(gold)), gold]
    # Equal probabilities count against the row's own label where theirs comes first, as argmax has it.
    order = np.arange(scores.shape[1])
    ahead = (scores > own[:, None]).sum(axis=1) + ((scores == own[:, None]) & (order < gold[:, None])).sum(axis=1)
    return {
        "log_loss": -np.log(np.clip(own / scores.sum(axis=1), np.finfo(np.float64).eps, 1.0)),
        "brier": (scores**2).sum(axis=1) - 2 * own + 1,
        **{f"top_{k}": (ahead < k).astype(np.float64) for k in TOP_K if k < scores.shape[1]},
    }

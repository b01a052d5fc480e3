"""How good a classifier is where rows have any number of labels, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from fenlei.errors import DataError
from fenlei.evaluation import bootstrap
from fenlei.evaluation.answers import MultiLabelAnswers
from fenlei.evaluation.bootstrap import Interval, ratio
from fenlei.evaluation.metrics import ClassMetrics, wilson_interval
from fenlei.evaluation.reliability import expected_calibration_error, noise_floor
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class MultiLabelMetrics:
    """Figures of one classifier on one set of rows, each of which has any number of labels.

    Micro figures pool the labels of all rows, macro ones are plain means over classes, weighted ones count a class by its rows, samples
    ones are means over rows, where a row without labels that is given none counts 1.
    """

    rows: int
    accuracy: float
    """Share of the rows whose labels are all right and no others given (exact match)."""
    accuracy_interval: tuple[float, float]
    """Wilson 95 % interval."""
    micro_precision: float
    micro_recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    samples_precision: float
    samples_recall: float
    samples_f1: float
    hamming_loss: float
    """Share of wrong answers among all, one a row and label: 0 is perfect."""
    mean_average_precision: float
    """Mean over classes of the area under precision and recall (mAP), whatever the thresholds; classes without rows do not count."""
    log_loss: float
    """Summed over labels, mean over rows."""
    labels_a_row: float
    """As labelled."""
    predicted_a_row: float
    expected_calibration_error: float
    """Of the confidence that all labels of a row are right."""
    classes: tuple[ClassMetrics, ...]
    """In label order."""
    average_precision: tuple[float | None, ...]
    """Of each class; None where no row carries it."""
    calibration_noise_floor: float | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Bootstrap 95 % intervals by figure; empty where they were not asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes)

    def to_json(self) -> dict[str, Any]:
        """The same as plain lists, numbers and strings."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["accuracy_interval"] = list(self.accuracy_interval)
        plain["intervals"] = {name: list(bounds) for name, bounds in self.intervals.items()}
        plain["classes"] = [dataclasses.asdict(one) for one in self.classes]
        plain["average_precision"] = list(self.average_precision)
        return {"problem_type": "multi_label_classification", **plain}


def compute_multi_label_metrics(
    gold: np.ndarray, answers: MultiLabelAnswers, labels: LabelSet, *, uncertainty: bool = False
) -> MultiLabelMetrics:
    """Metrics of answers against gold, bool (rows, labels). A figure of a class that is not defined counts 0.

    `uncertainty` adds bootstrap intervals and the noise floor of the calibration error. DataError where there are no rows, the shapes do
    not fit each other, or a probability is not a number.
    """
    truth, chosen = np.asarray(gold, dtype=bool), np.asarray(answers.chosen, dtype=bool)
    scores = np.asarray(answers.probabilities, dtype=np.float64)
    _check(truth, scores, chosen, labels)
    both = truth & chosen
    by_class = tuple(table.sum(axis=0) for table in (both, chosen, truth))
    precision, recall, f1 = _figures(*by_class)
    micro = [float(figure) for figure in _figures(*(np.array(counts.sum()) for counts in by_class))]
    weights = truth.sum(axis=0) / max(1, truth.sum())
    by_row = _by_row(truth, chosen, scores)
    right = int(by_row["accuracy"].sum())
    precisions = tuple(
        float(average_precision_score(truth[:, at], scores[:, at])) if truth[:, at].any() else None for at in range(len(labels))
    )
    known = [one for one in precisions if one is not None]
    metrics = MultiLabelMetrics(
        rows=len(truth),
        accuracy=right / len(truth),
        accuracy_interval=wilson_interval(right, len(truth)),
        micro_precision=micro[0],
        micro_recall=micro[1],
        micro_f1=micro[2],
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        weighted_precision=float(precision @ weights),
        weighted_recall=float(recall @ weights),
        weighted_f1=float(f1 @ weights),
        samples_precision=float(by_row["samples_precision"].mean()),
        samples_recall=float(by_row["samples_recall"].mean()),
        samples_f1=float(by_row["samples_f1"].mean()),
        hamming_loss=float(by_row["hamming_loss"].mean()),
        log_loss=float(by_row["log_loss"].mean()),
        mean_average_precision=float(np.mean(known)) if known else 0.0,
        labels_a_row=float(truth.sum(axis=1).mean()),
        predicted_a_row=float(chosen.sum(axis=1).mean()),
        expected_calibration_error=expected_calibration_error(answers.confidence, by_row["accuracy"]),
        classes=tuple(
            ClassMetrics(name, float(precision[at]), float(recall[at]), float(f1[at]), int(by_class[2][at]))
            for at, name in enumerate(labels)
        ),
        average_precision=precisions,
    )
    if not uncertainty:
        return metrics
    intervals = {**bootstrap.of_means(by_row), **bootstrap.of_label_counts(both, chosen, truth)}
    return dataclasses.replace(metrics, calibration_noise_floor=noise_floor(answers.confidence), intervals=intervals)


def _check(truth: np.ndarray, scores: np.ndarray, chosen: np.ndarray, labels: LabelSet) -> None:
    if len(truth) == 0:
        raise DataError("expected at least one labelled row to measure on, found none")
    if not truth.shape == scores.shape == chosen.shape == (len(truth), len(labels)):
        raise DataError(
            f"expected gold labels, probabilities and answers for {len(truth)} rows and {len(labels)} labels, found arrays of shapes "
            f"{truth.shape}, {scores.shape} and {chosen.shape}"
        )
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise DataError(f"row {broken[0]}: a probability is not a number ({len(broken)} such rows); check the scores for NaN")


def _figures(both: np.ndarray, chosen: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of counts, 0 where one is not defined."""
    return ratio(both, chosen), ratio(both, truth), ratio(2 * both, chosen + truth)


def _by_row(truth: np.ndarray, chosen: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """What a row adds to each figure that is a mean over rows: arrays (rows,) by its name."""
    both, given, own = (truth & chosen).sum(axis=1), chosen.sum(axis=1), truth.sum(axis=1)
    nothing = (given == 0) & (own == 0)
    precision, recall, f1 = (np.where(nothing, 1.0, figure) for figure in _figures(both, given, own))
    told = np.clip(np.where(truth, scores, 1.0 - scores), np.finfo(np.float64).eps, 1.0)
    return {
        "accuracy": (truth == chosen).all(axis=1).astype(np.float64),
        "samples_precision": precision,
        "samples_recall": recall,
        "samples_f1": f1,
        "hamming_loss": (truth != chosen).mean(axis=1),
        "log_loss": -np.log(told).sum(axis=1),
    }

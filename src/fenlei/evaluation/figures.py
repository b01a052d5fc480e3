"""The figures of a classifier, whether rows have one label or any number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fenlei.evaluation.answers import Answers, MultiLabelAnswers
from fenlei.evaluation.metrics import Metrics, compute_metrics
from fenlei.evaluation.multi_label import MultiLabelMetrics, compute_multi_label_metrics
from fenlei.labels import LabelSet

AnyMetrics: TypeAlias = Metrics | MultiLabelMetrics


@dataclass(frozen=True)
class MainFigure:
    """The one figure that a classifier is judged by."""

    name: str
    value: float
    interval: tuple[float, float] | None
    """95 %; None where it was not computed."""


def figures_of(gold: np.ndarray, answers: Answers, labels: LabelSet, *, uncertainty: bool = False) -> AnyMetrics:
    """Of answers against gold: label ids (rows,), or bool (rows, labels). See compute_metrics and compute_multi_label_metrics."""
    if isinstance(answers, MultiLabelAnswers):
        return compute_multi_label_metrics(gold, answers, labels, uncertainty=uncertainty)
    return compute_metrics(gold, answers, labels, uncertainty=uncertainty)


def main_figure(metrics: AnyMetrics) -> MainFigure:
    """The accuracy; multi-label the micro F1."""
    if isinstance(metrics, MultiLabelMetrics):
        return MainFigure("micro F1", metrics.micro_f1, metrics.intervals.get("micro_f1"))
    return MainFigure("accuracy", metrics.accuracy, metrics.accuracy_interval)

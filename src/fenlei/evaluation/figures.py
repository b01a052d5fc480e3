"""The figures of a classifier, whether rows have one label or any number."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from fenlei.evaluation.answers import Answers, MultiLabelAnswers
from fenlei.evaluation.metrics import Metrics, compute_metrics
from fenlei.evaluation.multi_label import MultiLabelMetrics, compute_multi_label_metrics
from fenlei.labels import LabelSet

AnyMetrics: TypeAlias = Metrics | MultiLabelMetrics


def figures_of(gold: np.ndarray, answers: Answers, labels: LabelSet, *, uncertainty: bool = False) -> AnyMetrics:
    """Of answers against gold: label ids (rows,), or bool (rows, labels). See compute_metrics and compute_multi_label_metrics."""
    if isinstance(answers, MultiLabelAnswers):
        return compute_multi_label_metrics(gold, answers, labels, uncertainty=uncertainty)
    return compute_metrics(gold, answers, labels, uncertainty=uncertainty)

"""A run asked about labelled rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fenlei.data.examples import Example
from fenlei.evaluation.answers import Answers, MultiLabelAnswers, right_rows
from fenlei.inference.bulk import WINDOW_ROWS
from fenlei.inference.windows import offered_labels
from fenlei.labels import LabelSet
from fenlei.report.confidence import Confidence, measure_confidence

if TYPE_CHECKING:
    from fenlei.inference.classifier import Classifier
    from fenlei.inference.prediction import Prediction


@dataclass(frozen=True)
class AnsweredRows:
    """What the run says of the rows."""

    predictions: list[Prediction]
    answers: Answers
    """Calibrated."""
    right: np.ndarray
    """bool (rows,)"""
    confidence: Confidence


def answer_rows(
    classifier: Classifier,
    examples: Sequence[Example],
    labels: LabelSet,
    gold: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> AnsweredRows:
    """In the windows of bulk prediction, so that `evaluate` and `predict` give a row the same answer to the bit.

    `labels` are the run's and those that rows offer, columns of every array; `gold` the rows' own: ids, or bool (rows, labels).
    """
    predictions: list[Prediction] = []
    raw = np.full((len(examples), len(labels)), -np.inf, dtype=np.float32)
    for start in range(0, len(examples), WINDOW_ROWS):
        window = examples[start : start + WINDOW_ROWS]
        among = offered_labels(classifier, window)
        scores = classifier.logits([example.input for example in window], labels=among)
        raw[start : start + len(window), labels.ids(classifier.columns(among, len(window)))] = scores.logits
        predictions += classifier.answer(scores, labels=among)
        if progress:
            progress(len(predictions))
    answers = said_in_columns(predictions, labels)
    confidence = measure_confidence(raw, answers, gold, predictions, classifier.trust_over(labels.names), labels.names)
    return AnsweredRows(predictions, answers, right_rows(gold, answers), confidence)


def said_in_columns(predictions: Sequence[Prediction], labels: LabelSet) -> Answers:
    """What predictions say, a column a label; 0 where a label was no candidate."""
    shares = np.array([[one.probabilities.get(name, 0.0) for name in labels] for one in predictions], dtype=np.float32)
    if predictions[0].labels is None:
        return shares
    chosen = np.array([[name in (one.labels or ()) for name in labels] for one in predictions], dtype=bool)
    return MultiLabelAnswers(shares, chosen, np.array([one.confidence for one in predictions]))

"""The rows a classifier got wrong, the surest first, and the pairs of classes it takes for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fenlei.data.examples import Example
from fenlei.evaluation.metrics import Metrics
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class Mistake:
    """A row whose most probable label is not its own."""

    row: int
    """Its place among the rows evaluated, from 0."""
    example: Example
    gold: str
    predicted: str
    confidence: float
    """Probability of the wrong label."""
    gold_probability: float


@dataclass(frozen=True)
class ConfusedPair:
    """Rows of one class that were taken for another."""

    gold: str
    predicted: str
    rows: int
    share: float
    """Of the rows of `gold`."""


def find_mistakes(examples: Sequence[Example], label_ids: np.ndarray, probabilities: np.ndarray, labels: LabelSet) -> tuple[Mistake, ...]:
    """Every wrong row, the most confident first, equals in the order of the file. label_ids (rows,), probabilities (rows, labels)."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != label_ids)
    confidence = probabilities[wrong, predicted[wrong]]
    ranked = wrong[np.argsort(-confidence, kind="stable")]
    return tuple(
        Mistake(
            row=int(row),
            example=examples[row],
            gold=labels.name(int(label_ids[row])),
            predicted=labels.name(int(predicted[row])),
            confidence=float(probabilities[row, predicted[row]]),
            gold_probability=float(probabilities[row, label_ids[row]]),
        )
        for row in ranked
    )


def most_confused(metrics: Metrics, most: int = 10) -> tuple[ConfusedPair, ...]:
    """The commonest confusions, at most `most`."""
    counts = metrics.confusion - np.diag(np.diag(metrics.confusion))
    ranked = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = []
    for gold, predicted in zip(*np.unravel_index(ranked, counts.shape), strict=True):
        rows = int(counts[gold, predicted])
        if rows:
            pairs.append(ConfusedPair(metrics.names[gold], metrics.names[predicted], rows, rows / metrics.classes[gold].support))
    return tuple(pairs)

"""The rows a classifier got wrong, the surest first, and the pairs of classes it takes for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fenlei.data.examples import Example
from fenlei.evaluation.metrics import Metrics
from fenlei.labels import LabelSet

SHOWN_EXAMPLES = 3
"""Texts told of a confused pair."""


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
    label_suspected: bool = False
    """Whether the label, not the model, is probably wrong."""
    passage: str | None = None
    """The words that counted most, where the text was read in windows."""


@dataclass(frozen=True)
class ConfusedPair:
    """Rows of one class that were taken for another."""

    gold: str
    predicted: str
    rows: int
    share: float
    """Of the rows of `gold`."""
    examples: tuple[Example, ...] = ()
    """A few of them, the most confident first."""


def find_mistakes(examples: Sequence[Example], label_ids: np.ndarray, probabilities: np.ndarray, labels: LabelSet) -> tuple[Mistake, ...]:
    """Every wrong row, the most confident first, equals in the order of the file. label_ids (rows,), probabilities (rows, labels)."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != label_ids)
    confidence = probabilities[wrong, predicted[wrong]]
    suspected = _suspected(label_ids, probabilities)
    ranked = wrong[np.argsort(-confidence, kind="stable")]
    return tuple(
        Mistake(
            row=int(row),
            example=examples[row],
            gold=labels.name(int(label_ids[row])),
            predicted=labels.name(int(predicted[row])),
            confidence=float(probabilities[row, predicted[row]]),
            gold_probability=float(probabilities[row, label_ids[row]]),
            label_suspected=bool(suspected[row]),
        )
        for row in ranked
    )


def most_confused(metrics: Metrics, mistakes: Sequence[Mistake] = (), *, most: int = 10) -> tuple[ConfusedPair, ...]:
    """The commonest confusions, at most `most`, with examples from `mistakes`, which come the most confident first."""
    examples: dict[tuple[str, str], list[Example]] = {}
    for mistake in mistakes:
        shown = examples.setdefault((mistake.gold, mistake.predicted), [])
        if len(shown) < SHOWN_EXAMPLES:
            shown.append(mistake.example)
    counts = metrics.confusion - np.diag(np.diag(metrics.confusion))
    ranked = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = []
    for gold, predicted in zip(*np.unravel_index(ranked, counts.shape), strict=True):
        rows = int(counts[gold, predicted])
        if rows:
            pair = (metrics.names[gold], metrics.names[predicted])
            pairs.append(ConfusedPair(*pair, rows, rows / metrics.classes[gold].support, tuple(examples.get(pair, ()))))
    return tuple(pairs)


def _suspected(label_ids: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Which labels are probably wrong, bool (rows,): confident learning (Northcutt et al. 2021).

    A row counts as of another class where it is at least as sure of that as the rows that carry its label are on average.
    """
    rows, labels = probabilities.shape
    own = probabilities[np.arange(rows), label_ids]
    counts = np.bincount(label_ids, minlength=labels)
    usual = np.full(labels, np.inf)  # a class without rows has no usual confidence, and no row is suspected of it
    usual[counts > 0] = (np.bincount(label_ids, weights=own, minlength=labels)[counts > 0]) / counts[counts > 0]
    predicted = probabilities.argmax(axis=1)
    return np.asarray((predicted != label_ids) & (probabilities.max(axis=1) >= usual[predicted]) & (own < usual[label_ids]))

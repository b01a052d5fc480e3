"""The rows a classifier got wrong, the surest first, and the pairs of classes it takes for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fenlei.data.examples import Example, joined
from fenlei.evaluation.answers import MultiLabelAnswers, right_rows
from fenlei.evaluation.metrics import Metrics
from fenlei.evaluation.multi_label import MultiLabelMetrics
from fenlei.labels import LabelSet

SHOWN_EXAMPLES = 3
"""Texts told of a confused pair."""
SHOWN_PAIRS = 10


@dataclass(frozen=True)
class Mistake:
    """A row whose answer is not its label; multi-label: not to the last of its labels, which are joined in one string."""

    row: int
    """Its place among the rows evaluated, from 0."""
    example: Example
    gold: str
    predicted: str
    confidence: float
    """Probability of the wrong answer."""
    gold_probability: float
    """Of the right one; multi-label: of the least probable label that the row has, 1 where it has none."""
    label_suspected: bool = False
    """Whether the label, not the model, is probably wrong."""
    missed: tuple[str, ...] = ()
    """Multi-label: labels of the row that were not given."""
    invented: tuple[str, ...] = ()
    """Multi-label: labels given that the row has not."""
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


def find_wrong_sets(examples: Sequence[Example], gold: np.ndarray, answers: MultiLabelAnswers, labels: LabelSet) -> tuple[Mistake, ...]:
    """Multi-label: every row with a label missed or invented, the most confident first. gold: bool (rows, labels)."""
    wrong = np.flatnonzero(~right_rows(gold, answers))
    suspected = _suspected_sets(gold, answers)
    ranked = wrong[np.argsort(-answers.confidence[wrong], kind="stable")]

    def named(chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(labels.name(at) for at in np.flatnonzero(chosen).tolist())

    return tuple(
        Mistake(
            row=int(row),
            example=examples[row],
            gold=joined(named(gold[row])),
            predicted=joined(named(answers.chosen[row])),
            confidence=float(answers.confidence[row]),
            gold_probability=float(answers.probabilities[row][gold[row]].min(initial=1.0)),
            label_suspected=bool(suspected[row]),
            missed=named(gold[row] & ~answers.chosen[row]),
            invented=named(answers.chosen[row] & ~gold[row]),
        )
        for row in ranked
    )


def taken_for(metrics: MultiLabelMetrics, mistakes: Sequence[Mistake]) -> tuple[ConfusedPair, ...]:
    """Multi-label: the commonest pairs of a label missed and a label invented in one row, at most SHOWN_PAIRS."""
    rows_of: dict[tuple[str, str], list[Example]] = {}
    for mistake in mistakes:
        for pair in ((missed, invented) for missed in mistake.missed for invented in mistake.invented):
            rows_of.setdefault(pair, []).append(mistake.example)
    support = {one.name: one.support for one in metrics.classes}
    ranked = sorted(rows_of.items(), key=lambda item: -len(item[1]))[:SHOWN_PAIRS]
    return tuple(ConfusedPair(*pair, len(rows), len(rows) / support[pair[0]], tuple(rows[:SHOWN_EXAMPLES])) for pair, rows in ranked)


def most_confused(metrics: Metrics, mistakes: Sequence[Mistake] = ()) -> tuple[ConfusedPair, ...]:
    """The commonest confusions, at most SHOWN_PAIRS, with examples from `mistakes`, which come the most confident first."""
    examples: dict[tuple[str, str], list[Example]] = {}
    for mistake in mistakes:
        shown = examples.setdefault((mistake.gold, mistake.predicted), [])
        if len(shown) < SHOWN_EXAMPLES:
            shown.append(mistake.example)
    counts = metrics.confusion - np.diag(np.diag(metrics.confusion))
    ranked = np.argsort(-counts, axis=None, kind="stable")[:SHOWN_PAIRS]
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


def _suspected_sets(gold: np.ndarray, answers: MultiLabelAnswers) -> np.ndarray:
    """Multi-label: the same for each label by itself, bool (rows,): one missed is at least as likely here as it is where it is carried on
    average, or one carried at most as likely as where it is not.
    """
    shares, rows = answers.probabilities.astype(np.float64), len(gold)
    carried = gold.sum(axis=0)
    usual = np.divide((shares * gold).sum(axis=0), carried, out=np.full(len(carried), np.inf), where=carried > 0)
    unusual = np.divide((shares * ~gold).sum(axis=0), rows - carried, out=np.full(len(carried), -np.inf), where=carried < rows)
    lacking = ~gold & answers.chosen & (shares >= usual)
    surplus = gold & ~answers.chosen & (shares <= unusual)
    return np.asarray((lacking | surplus).any(axis=1))

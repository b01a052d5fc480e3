"""Multi-label: which labels a text is given. Each has a threshold, and a label brings those that it lies below.

Lipton, Elkan, Naryanaswamy: Optimal thresholding of classifiers to maximize F1 measure (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

OWN_ROWS = 20
"""Rows that carry a label before it may have a threshold of its own: one chosen on fewer is chosen by their luck."""
PLAIN = 0.5
"""The threshold where none was fitted."""


Ancestors = tuple[tuple[int, ...], ...]
"""For each label, in label order, the ids of those that it lies below."""


@dataclass(frozen=True)
class Decision:
    """A threshold for each label, in label order."""

    thresholds: tuple[float, ...]
    ancestors: Ancestors | None = None
    """None where labels lie side by side."""

    def coherent(self, probabilities: np.ndarray) -> np.ndarray:
        """Of (rows, labels): no label less probable than one below it (Giunchiglia and Lukasiewicz 2020)."""
        if self.ancestors is None:
            return probabilities
        raised: np.ndarray = probabilities.copy()
        for label, above in enumerate(self.ancestors):
            for one in above:
                raised[:, one] = np.maximum(raised[:, one], probabilities[:, label])
        return raised

    def chosen(self, probabilities: np.ndarray) -> np.ndarray:
        """The labels given for probabilities (rows, labels): bool, with what they lie below. A row may have none."""
        given: np.ndarray = np.asarray(probabilities, dtype=np.float64) >= np.array(self.thresholds)
        return np.asarray(given if self.ancestors is None else given | (given.astype(np.int64) @ self._is_below > 0))

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability that exactly the labels given are right, float64 (rows,), taking labels as independent of each other.

        Of those below one another, the lowest that are given and the highest that are not decide.
        """
        scores, given = np.asarray(probabilities, dtype=np.float64), self.chosen(probabilities)
        right = np.where(given, scores, 1.0 - scores)
        if self.ancestors is not None:
            below_given = given.astype(np.int64) @ self._is_below > 0
            above_missing = (~given).astype(np.int64) @ self._is_below.T > 0
            right = np.where(np.where(given, below_given, above_missing), 1.0, right)
        return np.asarray(right.prod(axis=1))

    @cached_property
    def _is_below(self) -> np.ndarray:
        """int64 (labels, labels): 1 where the row's label lies below the column's."""
        table = np.zeros((len(self.thresholds), len(self.thresholds)), dtype=np.int64)
        for label, above in enumerate(self.ancestors or ()):
            table[label, list(above)] = 1
        return table

    def to_json(self) -> dict[str, Any]:
        return {"thresholds": list(self.thresholds), "ancestors": None if self.ancestors is None else [list(one) for one in self.ancestors]}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Decision:
        above = stored["ancestors"]
        return cls(tuple(stored["thresholds"]), None if above is None else tuple(tuple(one) for one in above))


def plain_decision(labels: int, ancestors: Ancestors | None = None) -> Decision:
    """Every label from one half on."""
    return Decision((PLAIN,) * labels, ancestors)


def fit_decision(probabilities: np.ndarray, gold: np.ndarray, ancestors: Ancestors | None = None) -> Decision:
    """The thresholds with the highest F1 on these rows: probabilities (rows, labels), gold bool (rows, labels).

    A label on OWN_ROWS rows or more has its own; the others share the one with the highest micro F1 over them all.
    """
    scores, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(gold, dtype=bool)
    own = truth.sum(axis=0) >= OWN_ROWS
    pool = ~own if truth[:, ~own].sum() >= OWN_ROWS else np.ones(len(own), dtype=bool)
    shared = best_threshold(scores[:, pool].ravel(), truth[:, pool].ravel())
    return Decision(tuple(best_threshold(scores[:, at], truth[:, at]) if own[at] else shared for at in range(len(own))), ancestors)


def best_threshold(scores: np.ndarray, gold: np.ndarray) -> float:
    """The threshold on scores (n,) with the highest F1 against gold, bool (n,), half-way between two scores; PLAIN where none is right."""
    if not gold.any():
        return PLAIN
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], np.cumsum(gold[order])
    f1 = 2 * right / (np.arange(1, len(ranked) + 1) + right[-1])
    next_score = np.append(ranked[1:], 0.0)
    f1[ranked == next_score] = -1.0  # no threshold lies between equal scores
    best = int(f1.argmax())
    return float((ranked[best] + next_score[best]) / 2)

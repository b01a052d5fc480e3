"""What a run says on scores: the answer of each row, by what was fitted to the run or by the network alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fenlei.inference.scoring import Scores
from fenlei.inference.trust import Trust


@dataclass(frozen=True, eq=False)
class Said:
    """Answers, a row each; None where there is nothing of the kind to say."""

    probabilities: np.ndarray
    """float32 (rows, labels), 0 where a label is no candidate."""
    confidence: np.ndarray
    """(rows,)"""
    given: np.ndarray | None
    """Multi-label: the labels given, bool (rows, labels)."""
    sets: np.ndarray | None
    """bool (rows, labels)"""
    abstained: np.ndarray | None
    """bool (rows,)"""
    novelty: np.ndarray | None
    """float64 (rows,)"""

    def where(self, rows: np.ndarray, other: Said) -> Said:
        """These answers on the rows marked, bool (rows,), and `other` on the rest, of which sets, silence and novelty say nothing."""
        given = self.given
        if given is not None and other.given is not None:
            given = np.where(rows[:, None], given, other.given)
        shares = np.where(rows[:, None], self.probabilities, other.probabilities)
        return replace(self, probabilities=shares, confidence=np.where(rows, self.confidence, other.confidence), given=given)


def said(trust: Trust, scores: Scores) -> Said:
    """Of scores over the columns that `trust` is for, -inf where a label is no candidate of a row. No row depends on those beside it."""
    possible = ~np.isneginf(scores.logits)
    # What lies above a candidate may be none itself, but has been raised to it.
    shares = np.where(possible, trust.probabilities(scores.logits), np.float32(0))
    decision = trust.decision
    confidence = shares.max(axis=1) if decision is None else decision.confidence(shares)
    return Said(
        shares,
        confidence,
        None if decision is None else decision.chosen(shares) & possible,
        None if trust.sets is None else trust.sets.sets(shares) & possible,
        None if trust.abstention is None else trust.abstention.abstains(confidence),
        None if trust.novelty is None else trust.novelty.ranks(scores),
    )

"""Whether a confidence of 0.9 is right nine times in ten: bins of confidence, their gap to accuracy, and how much of it is chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fenlei.evaluation.scored_rows import checked

BINS = 15
"""Equal-width bins of confidence, as in Guo et al., On Calibration of Modern Neural Networks (2017)."""
DRAWS = 200
"""Simulated perfect models behind a noise floor: its own error is then below a tenth of it."""
SEED = 0


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose confidence lies in (low, high]."""

    low: float
    high: float
    rows: int
    confidence: float
    """Their mean confidence; the middle of the bin where it is empty."""
    accuracy: float
    """The share of them that is right; 0 where the bin is empty."""


def reliability(probabilities: np.ndarray, label_ids: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """The BINS bins from 0 to 1, of probabilities (rows, labels) against label_ids (rows,). DataError where there are no rows."""
    confidence, correct = answers(probabilities, label_ids)
    bin_of_row = _bin_of(confidence)
    rows = np.bincount(bin_of_row, minlength=BINS)
    sure = np.bincount(bin_of_row, weights=confidence, minlength=BINS)
    right = np.bincount(bin_of_row, weights=correct, minlength=BINS)
    return tuple(
        ReliabilityBin(
            low=at / BINS,
            high=(at + 1) / BINS,
            rows=int(rows[at]),
            confidence=float(sure[at] / rows[at]) if rows[at] else (at + 0.5) / BINS,
            accuracy=float(right[at] / rows[at]) if rows[at] else 0.0,
        )
        for at in range(BINS)
    )


def expected_calibration_error(probabilities: np.ndarray, label_ids: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their rows: 0 is perfect, and see `noise_floor`.

    probabilities (rows, labels), label_ids (rows,). DataError where there are no rows.
    """
    confidence, correct = answers(probabilities, label_ids)
    return _error(confidence, correct)


def noise_floor(probabilities: np.ndarray) -> float:
    """The calibration error that a perfectly calibrated model would show on these rows by chance: the mean of DRAWS simulated ones.

    Each draws whether a row is right with the row's own confidence; probabilities (rows, labels), or the confidence (rows,). An error near
    the floor is no evidence of bad calibration, and none below it is one of good.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    confidence = scores if scores.ndim == 1 else scores.max(axis=1)
    generator = np.random.default_rng(SEED)
    return float(np.mean([_error(confidence, generator.random(len(confidence)) < confidence) for _ in range(DRAWS)]))


def answers(probabilities: np.ndarray, label_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the confidence, float64 (rows,), and whether its most probable label is its own, bool (rows,).

    Every function on confidence begins with this one. Where the answer is not the most probable label (multi-label), they are given both
    as they are: the confidence (rows,) in the place of probabilities, and in that of label_ids whether the answer is right, bool (rows,).
    """
    if np.ndim(probabilities) == 1:
        return np.asarray(probabilities, dtype=np.float64), np.asarray(label_ids, dtype=bool)
    gold, scores = checked(label_ids, probabilities)
    return scores.max(axis=1), scores.argmax(axis=1) == gold


def _bin_of(confidence: np.ndarray) -> np.ndarray:
    return np.asarray(
        np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    )  # a bin holds its upper edge: 1.0 is in the last


def _error(confidence: np.ndarray, correct: np.ndarray) -> float:
    gaps = np.bincount(_bin_of(confidence), weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))

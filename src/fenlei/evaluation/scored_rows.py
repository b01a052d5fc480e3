"""What every figure is computed from: probabilities of labelled rows, checked once."""

from __future__ import annotations

import numpy as np

from fenlei.errors import DataError


def checked(label_ids: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """label_ids as int64 (rows,), probabilities as float64 (rows, labels).

    float64, so that logarithms clip at 2e-16, not at 1e-7. DataError where there are no rows, the shapes do not fit each other, a label id
    has no column, or a probability is NaN or infinite.
    """
    gold = np.asarray(label_ids, dtype=np.int64)
    scores = np.asarray(probabilities, dtype=np.float64)
    if len(gold) == 0:
        raise DataError("expected at least one labelled row to measure on, found none")
    if scores.ndim != 2 or len(scores) != len(gold):
        raise DataError(f"expected probabilities (rows, labels) for {len(gold)} rows, found an array of shape {scores.shape}")
    strange = np.flatnonzero((gold < 0) | (gold >= scores.shape[1]))
    if len(strange):
        raise DataError(f"row {strange[0]}: label id {gold[strange[0]]} has no column among the {scores.shape[1]} of the probabilities")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise DataError(f"row {broken[0]}: a probability is not a number ({len(broken)} such rows); check the scores for NaN")
    return gold, scores

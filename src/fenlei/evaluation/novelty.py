"""How unlike anything known a text is: energy of its logits, or Mahalanobis distance of its state to the nearest class.

Both are higher for stranger texts. What a user sees is their rank among known rows: 0.99 is stranger than 99 % of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fenlei.errors import DataError, ModelError

NoveltyScore = Literal["energy", "joint energy", "mahalanobis"]
ROUNDING = 1e-5
"""Of a score that was computed in float32."""


def energy(logits: np.ndarray) -> np.ndarray:
    """Minus the log-sum-exp of logits (rows, labels): float64 (rows,). Liu et al., Energy-based Out-of-distribution Detection (2020)."""
    scores = np.asarray(logits, dtype=np.float64)
    best = scores.max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        row = int(np.flatnonzero(~np.isfinite(best[:, 0]))[0])
        raise ModelError(f"row {row}: expected finite scores, found {scores[row].tolist()}; load the model in float32, or train it again")
    return np.asarray(-(best[:, 0] + np.log(np.exp(scores - best).sum(axis=1))))


def joint_energy(logits: np.ndarray) -> np.ndarray:
    """Multi-label: minus the sum over labels of log(1 + exp(logit)), of logits (rows, labels): float64 (rows,).

    Wang et al., Can multi-label classification networks know what they don't know? (2021)
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores.max(axis=1)).all():
        raise ModelError("expected finite scores, found NaN or infinite ones; load the model in float32, or train it again")
    return np.asarray(-np.logaddexp(0.0, scores).sum(axis=1))


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """A Gaussian for each class over the pooled state, one covariance for all. Lee et al., A Simple Unified Framework (2018)."""

    centre: np.ndarray
    """float32 (hidden,): the mean of all states."""
    whitening: np.ndarray
    """float32 (hidden, hidden): (state - centre) @ whitening has unit covariance within a class."""
    means: np.ndarray
    """float32 (classes, hidden): whitened means of the classes that had rows."""

    @classmethod
    def fit(cls, pooled: np.ndarray, label_ids: np.ndarray) -> ClassGaussians:
        """Of pooled states (rows, hidden) and label_ids (rows,), the covariance shrunk by Ledoit and Wolf: hidden may exceed the rows.

        DataError where no class has two rows, for then nothing tells how far rows of a class lie apart.
        """
        from scipy.linalg import solve_triangular  # here: prediction needs this file, but not half a second of scipy
        from sklearn.covariance import ledoit_wolf

        states = np.asarray(pooled, dtype=np.float64)
        present, place = np.unique(np.asarray(label_ids), return_inverse=True)
        if len(states) == 0 or len(present) == len(states):
            raise DataError(f"expected at least two rows of some class to measure distances by, found {len(states)} rows")
        centre = states.mean(axis=0)
        means = np.stack([states[place == at].mean(axis=0) for at in range(len(present))])
        covariance, _ = ledoit_wolf(states - means[place], assume_centered=True)
        # A state that never varies has no inverse variance; a millionth of the mean one stands for it.
        covariance[np.diag_indices_from(covariance)] += max(1e-6 * float(np.trace(covariance)) / len(covariance), 1e-12)
        whitening = solve_triangular(np.linalg.cholesky(covariance), np.eye(len(covariance)), lower=True).T
        return cls(centre.astype(np.float32), whitening.astype(np.float32), ((means - centre) @ whitening).astype(np.float32))

    def distances(self, pooled: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of pooled states (rows, hidden) to the nearest class mean: float64 (rows,)."""
        states = ((np.asarray(pooled, dtype=np.float32) - self.centre) @ self.whitening).astype(np.float64)
        means = self.means.astype(np.float64)
        squared = (states**2).sum(axis=1)[:, None] - 2 * states @ means.T + (means**2).sum(axis=1)
        return np.asarray(np.maximum(squared.min(axis=1), 0.0))


def rank_among(known: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The share of known rows that are less strange, float64 (rows,): known is sorted, scores (rows,) are of the same kind.

    A known row asked again is not stranger than itself because its float32 scores were rounded otherwise in another batch.
    """
    rounding = ROUNDING * np.maximum(1.0, np.abs(scores))
    return np.asarray(np.searchsorted(known, scores - rounding, side="left") / max(1, len(known)))


def auroc(known: np.ndarray, novel: np.ndarray) -> float:
    """The probability that a novel row scores above a known one: 0.5 is chance, 1 is perfect. DataError where either has no rows."""
    from sklearn.metrics import roc_auc_score

    if len(known) == 0 or len(novel) == 0:
        raise DataError(f"expected known and novel rows to tell apart, found {len(known)} and {len(novel)}")
    is_novel = np.concatenate([np.zeros(len(known), dtype=bool), np.ones(len(novel), dtype=bool)])
    return float(roc_auc_score(is_novel, np.concatenate([known, novel])))

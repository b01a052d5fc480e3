"""Prediction sets by split conformal prediction: every label that cannot be excluded, so that the right one is in as often as asked.

LAC (Sadinle et al. 2019, the smallest sets): a label is in where its own probability is high enough. A set may be empty: then no label
is likely enough to be believed at this coverage, and the row is best treated as not answered.
APS (Romano et al. 2020), RAPS (Angelopoulos et al. 2021): labels are taken in order of probability until enough of it is gathered; RAPS
makes labels far down the order dearer. Without the papers' random tie-break, so that a text always gets the same set: the first label
is always in, no set is empty, and coverage is at least what was asked, above it where the model alone is right more often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from fenlei.config import SetScore
from fenlei.errors import ConfigError, DataError
from fenlei.evaluation.scored_rows import checked

FREE_RANK, DEARER = 5, 0.01
"""RAPS: each rank after the fifth costs 0.01, the setting of Angelopoulos & Bates, A Gentle Introduction to Conformal Prediction (2021)."""
ROUNDING = 1e-9
"""Probabilities are summed in float64 from float32: a label's score is the same to this, however it was computed."""


@dataclass(frozen=True, eq=False)
class ConformalRule:
    """A label is in a row's set where its score is at most the label's threshold."""

    score: SetScore
    coverage: float
    """The share of rows whose right label is to be in the set."""
    thresholds: np.ndarray
    """float64 (labels,): all equal unless class-conditional; inf for a class that can never be excluded."""
    class_conditional: bool
    rows: int
    """Calibrating rows."""

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Which labels are in the set of each row of probabilities (rows, labels): bool (rows, labels)."""
        return np.asarray(nonconformity(probabilities, self.score) <= self.thresholds + ROUNDING)

    @property
    def unpromised(self) -> np.ndarray:
        """Ids of the classes with too few calibrating rows to promise anything of their own; they are in every set."""
        return np.flatnonzero(np.isinf(self.thresholds))


def fit_conformal(
    coverage: float,
    probabilities: np.ndarray,
    label_ids: np.ndarray,
    *,
    score: SetScore = "lac",
    class_conditional: bool = False,
) -> ConformalRule:
    """The rule under which a new row's set holds its label with a probability of at least `coverage`.

    That is over all rows alike, or with `class_conditional` over the rows of each class; a class with too few rows for it is then in
    every set. probabilities (rows, labels) and label_ids (rows,) of rows that the model has not seen and that are like the new ones.
    ConfigError for an impossible coverage or score, DataError where there are too few rows for it.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage must lie between 0 and 1, was {coverage}")
    if score not in get_args(SetScore):
        raise ConfigError(f"the score of prediction sets must be one of {', '.join(get_args(SetScore))}, was {score!r}")
    gold, checked_probabilities = checked(label_ids, probabilities)
    own = nonconformity(checked_probabilities, score)[np.arange(len(gold)), gold]
    labels = checked_probabilities.shape[1]
    if class_conditional:
        thresholds = np.array([_threshold(own[gold == label], coverage) for label in range(labels)])
        if np.isinf(thresholds).all():
            raise DataError(f"{_too_few(coverage)} in a class, and no class has so many; lower the coverage, or give more dev rows")
    else:
        thresholds = np.full(labels, _threshold(own, coverage))
        if np.isinf(thresholds).all():
            raise DataError(f"{_too_few(coverage)}, there are {len(gold):,}; lower the coverage, or give more dev rows")
    return ConformalRule(score, coverage, thresholds, class_conditional, len(gold))


def nonconformity(probabilities: np.ndarray, score: SetScore) -> np.ndarray:
    """How ill each label suits each row, float64 (rows, labels): lac 1 - p; aps the probability of all labels above it; raps dearer."""
    given = np.asarray(probabilities, dtype=np.float64)
    if score == "lac":
        return np.asarray(1.0 - given)
    order = np.argsort(-given, axis=1, kind="stable")
    ranked = np.take_along_axis(given, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    if score == "raps":
        before += DEARER * np.maximum(np.arange(1, given.shape[1] + 1) - FREE_RANK, 0)
    scores = np.empty_like(given)
    np.put_along_axis(scores, order, before, axis=1)
    return scores


def least_rows(coverage: float) -> int:
    """Calibrating rows below which no threshold keeps `coverage` but the one that excludes nothing."""
    return math.ceil(coverage / (1 - coverage) - ROUNDING)


def _threshold(own: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) * coverage)-th smallest of the rows' own scores; inf where there are not so many."""
    rank = math.ceil((len(own) + 1) * coverage - ROUNDING)
    return float(np.partition(own, rank - 1)[rank - 1]) if rank <= len(own) else math.inf


def _too_few(coverage: float) -> str:
    return f"sets with a coverage of {coverage} take at least {least_rows(coverage):,} calibrating rows"

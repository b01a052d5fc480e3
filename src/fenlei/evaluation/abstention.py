"""When to keep silent: the confidence from which answers are right as often as was asked, and what share of the rows that leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fenlei.errors import DataError
from fenlei.evaluation.reliability import answers

ASSURANCE = 0.95
"""The probability with which a promised accuracy holds."""
STARTS = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the rows, the most confident first, at which a search begins: one alone would end at an early unlucky row."""
STEP = 0.01
"""Share of the rows by which a search goes on."""
POINTS = 200
"""Of a curve of accuracy by coverage."""


@dataclass(frozen=True)
class AbstentionRule:
    """Rows below `min_confidence` are not answered."""

    min_confidence: float
    target_accuracy: float | None = None
    """The accuracy of answered rows that was asked for; None where the threshold itself was."""
    coverage: float | None = None
    """Share of the calibrating rows that is answered; None where there are none."""
    accuracy: float | None = None
    """Of these rows; None where none is answered."""
    rows: int = 0
    """Calibrating rows."""

    def abstains(self, probabilities: np.ndarray) -> np.ndarray:
        """True where the best of probabilities (rows, labels), or the confidence (rows,), is below the threshold: bool (rows,)."""
        scores = np.asarray(probabilities, dtype=np.float64)
        return np.asarray((scores if scores.ndim == 1 else scores.max(axis=1)) < self.min_confidence)


def fixed_threshold(min_confidence: float, probabilities: np.ndarray, label_ids: np.ndarray) -> AbstentionRule:
    """The rule that answers from `min_confidence` on, and what it does to labelled rows.

    probabilities (rows, labels), label_ids (rows,).
    """
    if len(label_ids) == 0:
        return AbstentionRule(min_confidence)
    confidence, correct = answers(probabilities, label_ids)
    answered = confidence >= min_confidence
    accuracy = float(correct[answered].mean()) if answered.any() else None
    return AbstentionRule(min_confidence, None, float(answered.mean()), accuracy, len(confidence))


def accuracy_threshold(target: float, probabilities: np.ndarray, label_ids: np.ndarray) -> AbstentionRule:
    """The lowest threshold above which at least `target` of all future answers is right, with a probability of ASSURANCE.

    Fixed-sequence testing (Angelopoulos et al., Learn then Test, 2021): from few, confident rows to many, each step tests by the exact
    binomial tail whether the accuracy may be below the target, and a search ends at the first step that cannot exclude it; so no number
    of steps costs assurance. The few searches share the risk equally. The steps lie at fixed ranks of confidence: the rows above one are
    a sample of all that is above its threshold, whatever their labels.

    probabilities (rows, labels) and label_ids (rows,) of rows that neither trained nor selected the model. DataError where they cannot
    promise the target, with the most that they can.
    """
    confidence, correct = answers(probabilities, label_ids)
    ranked = np.sort(confidence)[::-1]
    wrong = np.concatenate([[0], np.cumsum(~correct[np.argsort(-confidence, kind="stable")])])
    starts = _starts(target, len(ranked))
    risk = (1 - ASSURANCE) / len(starts)
    places = np.unique([*starts, *np.arange(starts[0], len(ranked), max(1, round(STEP * len(ranked)))), len(ranked)])
    # Rows strictly above the next one in rank: with equal confidences that is fewer than the place says.
    thresholds = np.append(ranked, -np.inf)[places]
    above = np.searchsorted(-ranked, -thresholds, side="left")
    from scipy.stats import binom  # here: prediction needs this file, but not half a second of scipy

    passed = binom.cdf(wrong[above], above, 1 - target) <= risk
    best = max((_end_of_search(passed, int(np.searchsorted(places, start))) for start in starts), default=-1)
    if best < 0:
        possible = max(_promised(int(above[places == start][0]), wrong, (1 - ASSURANCE) / len(STARTS)) for start in starts)
        raise DataError(
            f"an accuracy of {target} cannot be promised from these {len(ranked):,} calibrating rows, whatever is left unanswered: the "
            f"most they support is about {math.floor(1000 * possible) / 1000}; lower the target, or give more dev rows or a better model"
        )
    answered = int(above[best])
    threshold = float(np.nextafter(thresholds[best], 1.0)) if math.isfinite(thresholds[best]) else 0.0
    return AbstentionRule(threshold, target, answered / len(ranked), 1 - int(wrong[answered]) / answered, len(ranked))


def least_rows(target: float) -> int:
    """Calibrating rows below which no accuracy of `target` can be promised, even if every one is right."""
    return math.ceil(math.log((1 - ASSURANCE) / len(STARTS)) / math.log(target))


def accuracy_by_coverage(probabilities: np.ndarray, label_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the rows, the most confident first, and the accuracy of each: two float64 arrays of at most POINTS, by coverage."""
    confidence, correct = answers(probabilities, label_ids)
    order = np.argsort(-confidence, kind="stable")
    rows = np.unique(np.linspace(1, len(order), min(POINTS, len(order))).round().astype(np.int64))
    return rows / len(order), np.cumsum(correct[order])[rows - 1] / rows


def _starts(target: float, rows: int) -> list[int]:
    """Places in the ranking at which the searches begin, chosen without a look at the labels."""
    least = least_rows(target)
    if rows < least:
        raise DataError(
            f"an accuracy of {target} takes at least {least:,} calibrating rows to promise, there are {rows:,}; "
            "lower the target, or give more dev rows"
        )
    return sorted({max(least, round(share * rows)) for share in STARTS})


def _end_of_search(passed: np.ndarray, start: int) -> int:
    """The last place before the first failure, from `start` on; -1 where the first fails."""
    failures = np.flatnonzero(~passed[start:])
    length = int(failures[0]) if len(failures) else len(passed) - start
    return start + length - 1 if length else -1


def _promised(above: int, wrong: np.ndarray, risk: float) -> float:
    """The highest target that the `above` most confident rows would pass: the Clopper-Pearson lower bound of their accuracy."""
    right = above - int(wrong[above])
    from scipy.stats import beta

    return float(beta.ppf(risk, right, above - right + 1)) if right else 0.0

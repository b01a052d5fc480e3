"""Labels that are probably wrong: confident learning on probabilities of a model that did not see the row.

Northcutt, Jiang, Chuang: "Confident learning: estimating uncertainty in dataset labels", Journal of Artificial Intelligence Research 70
(2021). A row counts as belonging to the class whose probability there is at least what that class's own rows have on average; where
this is another class than its label, one of the estimated errors is there. Suspects are ranked by the probability of their own
label, the least first: of 2 % of labels flipped at random that finds more than the estimate's own rows do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fenlei.evaluation.calibration import fit_temperature, probabilities
from fenlei.evaluation.platt import fit_label_calibration
from fenlei.models.baseline import cross_validated_logits

FOLDS, FOLDS_OF_MANY, MANY_ROWS = 5, 3, 50_000
"""Where rows are many, two thirds of them teach as much as four fifths, in half the time."""
FEWEST_TEXTS = 20
"""With fewer different texts there is nothing to cross-validate."""
SEED = 0


@dataclass(frozen=True)
class Suspect:
    """A row for which another label is likelier than its own."""

    row: int
    label: str
    suggested: str
    own_probability: float
    probability: float
    """Of `suggested`."""


@dataclass(frozen=True)
class LabelErrors:
    """Suspects, the most suspicious first."""

    rows: tuple[Suspect, ...]
    estimated: int
    """How many labels are wrong, by confident learning: about so many of the first suspects are worth a look."""
    judge: str
    """Whose probabilities these are; empty where there was nothing to judge with, which `note` then explains."""
    note: str = ""


def cross_validated_probabilities(
    texts: Sequence[str], text_ids: np.ndarray, label_ids: np.ndarray, n_labels: int, strata: np.ndarray | None = None
) -> np.ndarray:
    """Calibrated probabilities of the TF-IDF baseline for rows that it was not fitted to: float32 (rows, labels).

    label_ids: int (rows,), or multi-label bool (rows, labels); then each label has a probability of its own.
    text_ids: int (rows,), equal where the text is: copies share a fold, or one would give the other's label away.
    strata: int (rows,): folds are even within each; None: within each label.
    """
    fold_of = _folds(text_ids, label_ids if strata is None else strata, FOLDS_OF_MANY if len(texts) > MANY_ROWS else FOLDS)
    logits = cross_validated_logits(texts, label_ids, n_labels, fold_of=fold_of, seed=SEED)
    if label_ids.ndim == 2:
        return fit_label_calibration(logits, label_ids).probabilities(logits)
    return probabilities(logits, fit_temperature(logits, label_ids))


def find_label_errors(
    rows: Sequence[int], label_ids: np.ndarray, probabilities: np.ndarray, names: Sequence[str], judge: str, note: str = ""
) -> LabelErrors:
    """Suspects among `rows`, which are places for the caller; label_ids (rows,) and probabilities (rows, labels) are of these rows."""
    every = np.arange(len(rows))
    own = probabilities[every, label_ids]
    likeliest = probabilities.argmax(axis=1)
    suspicious = np.flatnonzero(likeliest != label_ids)
    ranked = suspicious[np.argsort(own[suspicious], kind="stable")]
    suspects = tuple(
        Suspect(rows[at], names[label_ids[at]], names[likeliest[at]], float(own[at]), float(probabilities[at, likeliest[at]]))
        for at in ranked.tolist()
    )
    return LabelErrors(suspects, estimated_errors(label_ids, probabilities), judge, note)


def estimated_errors(label_ids: np.ndarray, probabilities: np.ndarray) -> int:
    """Rows off the diagonal of the confident joint: counted for the likeliest class among those whose threshold they reach."""
    present = np.unique(label_ids)
    thresholds = np.full(probabilities.shape[1], np.inf)
    thresholds[present] = [float(probabilities[label_ids == label, label].mean()) for label in present]
    reached = probabilities >= thresholds
    counted = np.where(reached, probabilities, -1.0).argmax(axis=1)
    return int((reached.any(axis=1) & (counted != label_ids)).sum())


def _folds(text_ids: np.ndarray, label_ids: np.ndarray, folds: int) -> np.ndarray:
    """A fold for each row: seeded, even within each class, the same for all rows of a text."""
    _, first_row, text = np.unique(text_ids, return_index=True, return_inverse=True)
    shuffled = np.random.RandomState(SEED).permutation(len(first_row))
    by_class = shuffled[np.argsort(label_ids[first_row[shuffled]], kind="stable")]
    fold_of_text = np.empty(len(first_row), dtype=np.int64)
    fold_of_text[by_class] = np.arange(len(first_row)) % folds
    return fold_of_text[text]

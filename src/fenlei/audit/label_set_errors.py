"""Multi-label rows that probably lack a label, or have one too many: confident learning, each label by itself.

A label that a row lacks is suspected where it is likelier than not, one that it carries where it is unlikelier than not. One of the
estimated errors is there where it is also as likely, or unlikely, as usual for rows that carry it, or do not. See label_errors.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fenlei.audit.label_errors import LabelErrors, Suspect
from fenlei.data.examples import joined
from fenlei.evaluation.decision import Ancestors

LIKELY = 0.5


def find_set_errors(
    rows: Sequence[int],
    gold: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    judge: str,
    note: str = "",
    ancestors: Ancestors | None = None,
) -> LabelErrors:
    """Suspects among `rows`, which are places for the caller; gold bool (rows, labels) and probabilities (rows, labels) are of these rows.

    A row is suspected once, for its least likely answer, and what is suggested are its labels with that one changed: what a label lies
    below (`ancestors`) comes with it, and what lies below it goes with it.
    """
    own = np.where(gold, probabilities, 1.0 - probabilities)
    worst = own.argmin(axis=1)
    likelihood = own[np.arange(len(gold)), worst]
    suspicious = np.flatnonzero(likelihood < 1 - LIKELY)
    ranked = suspicious[np.argsort(likelihood[suspicious], kind="stable")]
    suspects = []
    for at in ranked.tolist():
        changed = _changed(gold[at], int(worst[at]), ancestors)
        least = float(likelihood[at])
        suspects.append(Suspect(rows[at], _named(gold[at], names), _named(changed, names), least, 1.0 - least))
    return LabelErrors(tuple(suspects), int(_is_error(gold, own).any(axis=1).sum()), judge, note)


def _changed(gold: np.ndarray, label: int, ancestors: Ancestors | None) -> np.ndarray:
    """The labels of a row, bool (labels,), with one more or less."""
    changed: np.ndarray = gold.copy()
    changed[label] ^= True
    for below, above in enumerate(ancestors or ()):
        if changed[label] and below == label:
            changed[list(above)] = True
        elif not changed[label] and label in above:
            changed[below] = False
    return changed


def _is_error(gold: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Bool (rows, labels): whether the opposite answer is as sure there as it usually is where it is the label's."""
    against = 1.0 - own
    found = np.zeros(gold.shape, dtype=bool)
    for answer in (True, False):
        is_own = gold == answer
        counts = is_own.sum(axis=0)
        usual = np.divide((own * is_own).sum(axis=0), counts, out=np.full(len(counts), np.inf), where=counts > 0)
        found |= ~is_own & (against >= usual) & (against > LIKELY)
    return found


def _named(chosen: np.ndarray, names: Sequence[str]) -> str:
    return joined([names[at] for at in np.flatnonzero(chosen).tolist()])

"""Whether long texts fare worse than short ones, and those that were cut worse than whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fenlei.evaluation.metrics import wilson_interval

GROUPS = 8
"""Groups of about as many rows each: enough to see a slope, few enough that each is sure."""
LEAST_ROWS = 20
"""Rows a group has at least, where there are as many."""


@dataclass(frozen=True)
class LengthGroup:
    """The rows whose texts have from `shortest` to `longest` characters."""

    shortest: int
    longest: int
    rows: int
    accuracy: float
    interval: tuple[float, float]
    """Wilson 95 % interval."""
    cut: int
    """Rows of it that the model did not read to the end."""


@dataclass(frozen=True)
class Cut:
    """Rows that were cut beside those that were not."""

    rows: int
    tokens: int
    """Not read, of all these rows together."""
    accuracy: float
    whole_accuracy: float | None
    """Of the rows that were read to the end; None where there are none."""


def by_length(characters: Sequence[int], right: np.ndarray, tokens_cut: Sequence[int]) -> tuple[LengthGroup, ...]:
    """Groups in order of length; rows of one length are never parted. `right` is bool (rows,)."""
    lengths, cut = np.asarray(characters), np.asarray(tokens_cut) > 0
    groups = max(1, min(GROUPS, len(lengths) // LEAST_ROWS))
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, groups + 1)[1:], method="higher"))
    group_of = np.searchsorted(edges, lengths, side="left")
    found = []
    for at in range(len(edges)):
        inside = group_of == at
        rows, correct = int(inside.sum()), int(right[inside].sum())
        if rows:
            own = lengths[inside]
            interval = wilson_interval(correct, rows)
            found.append(LengthGroup(int(own.min()), int(own.max()), rows, correct / rows, interval, int(cut[inside].sum())))
    return tuple(found)


def what_was_cut(right: np.ndarray, tokens_cut: Sequence[int]) -> Cut | None:
    """None where every text was read to its end. `right` is bool (rows,)."""
    tokens = np.asarray(tokens_cut)
    cut = tokens > 0
    if not cut.any():
        return None
    whole = float(right[~cut].mean()) if (~cut).any() else None
    return Cut(int(cut.sum()), int(tokens.sum()), float(right[cut].mean()), whole)

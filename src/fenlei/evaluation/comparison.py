"""Whether one classifier is better than another on the same rows: McNemar's paired test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from fenlei.errors import DataError


@dataclass(frozen=True)
class PairedTest:
    """Two classifiers, row by row."""

    only_first: int
    """Rows that the first alone has right."""
    only_second: int
    both: int
    neither: int
    p_value: float
    """Of McNemar's exact test: how probable so uneven a count of the disputed rows is, were the two equally good."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """The exact two-sided test on bool (rows,) arrays that say where each of two classifiers is right. DataError for other lengths."""
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape or one.ndim != 1 or len(one) == 0:
        raise DataError(f"expected two answers to each of the same rows, found {one.shape} and {two.shape}")
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    disputed = only_first + only_second
    p_value = float(binomtest(only_first, disputed, 0.5).pvalue) if disputed else 1.0
    return PairedTest(only_first, only_second, int((one & two).sum()), int((~one & ~two).sum()), p_value)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values of several tests, raised so that together they err no more often than one alone (Holm 1979), in the same order."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[at]))
        adjusted[at] = largest
    return tuple(adjusted)

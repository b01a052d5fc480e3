"""How far a figure may be off by the luck of the rows: percentile bootstrap intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESAMPLES = 1000
RESAMPLED_AT_ONCE = 50
MANY_ROWS = 20_000
"""From here on a resampled mean is normal to every digit that is printed, and a thousand resamples would take seconds."""
SHARE = (2.5, 97.5)
"""Percentiles of a 95 % interval."""
Z_95 = 1.959963984540054
"""Standard normal quantile of the same."""

Interval = tuple[float, float]


def of_confusion(confusion: np.ndarray, *, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of accuracy, macro_f1, weighted_f1 and matthews, of a confusion matrix (gold rows, predicted columns).

    Resampling rows is drawing the cells of the matrix: these figures know nothing else of a row.
    """
    gold, predicted = np.nonzero(confusion)
    counts = confusion[gold, predicted]
    rows = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(rows, counts / rows, size=RESAMPLES).astype(np.float64)
    every = np.arange(len(confusion))
    labelled = drawn @ (gold[:, None] == every)
    answered = drawn @ (predicted[:, None] == every)
    right = drawn @ ((gold == predicted)[:, None] & (gold[:, None] == every))
    f1 = _ratio(2 * right, labelled + answered)
    correlated = right.sum(axis=1) * rows - (labelled * answered).sum(axis=1)
    spread = np.sqrt((rows**2 - (answered**2).sum(axis=1)) * (rows**2 - (labelled**2).sum(axis=1)))
    return {
        "accuracy": _interval(right.sum(axis=1) / rows),
        "macro_f1": _interval(f1.mean(axis=1)),
        "weighted_f1": _interval((f1 * labelled).sum(axis=1) / rows),
        "matthews": _interval(_ratio(correlated, spread)),
    }


def of_means(values: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of means over rows: the value of each row (rows,) by the figure's name."""
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
    rows = len(table)
    if rows > MANY_ROWS:
        mean, half = table.mean(axis=0), Z_95 * table.std(axis=0, ddof=1) / np.sqrt(rows)
        return {name: (float(mean[at] - half[at]), float(mean[at] + half[at])) for at, name in enumerate(values)}
    generator = np.random.default_rng(seed)
    means = np.stack([table[generator.integers(0, rows, rows)].mean(axis=0) for _ in range(RESAMPLES)])
    return {name: _interval(means[:, at]) for at, name in enumerate(values)}


def of_label_counts(both: np.ndarray, chosen: np.ndarray, gold: np.ndarray, *, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of micro_f1 and macro_f1 over resampled rows, of what was right, given and labelled: bool (rows, labels) each.

    Above MANY_ROWS that many rows, spread over all, stand for them, and the interval is narrowed by the root of what was left out.
    """
    step = max(1, len(gold) // MANY_ROWS)
    tables = [np.asarray(table[::step], dtype=np.float32) for table in (both, chosen, gold)]
    generator = np.random.default_rng(seed)
    rows = len(tables[0])
    found = []
    for _ in range(RESAMPLES // RESAMPLED_AT_ONCE):
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLED_AT_ONCE).astype(np.float32)
        right, given, own = (weights @ table for table in tables)
        micro = _ratio(2 * right.sum(axis=1), given.sum(axis=1) + own.sum(axis=1))
        found.append(np.stack([micro, _ratio(2 * right, given + own).mean(axis=1)]))
    micro, macro = np.concatenate(found, axis=1)
    return {name: _narrowed(figures, step) for name, figures in (("micro_f1", micro), ("macro_f1", macro))}


def _narrowed(figures: np.ndarray, step: int) -> Interval:
    centre = float(np.median(figures))
    low, high = _interval(centre + (figures - centre) / np.sqrt(step))
    return low, high


def _interval(figures: np.ndarray) -> Interval:
    low, high = np.percentile(figures, SHARE)
    return float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where below is 0: a class without rows or answers counts 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0))

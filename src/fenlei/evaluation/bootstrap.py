"""How far a figure may be off by the luck of the rows: percentile bootstrap intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESAMPLES = 1000
RESAMPLED_AT_ONCE = 50
SEED = 0
MANY_ROWS = 20_000
"""From here on a resampled mean is normal to every digit that is printed, and a thousand resamples would take seconds."""
SHARE = (2.5, 97.5)
"""Percentiles of a 95 % interval."""
Z_95 = 1.959963984540054
"""Standard normal quantile of the same."""

Interval = tuple[float, float]


def of_confusion(confusion: np.ndarray) -> dict[str, Interval]:
    """95 % intervals of accuracy, macro_f1, weighted_f1 and matthews, of a confusion matrix (gold rows, predicted columns).

    Resampling rows is drawing the cells of the matrix: these figures know nothing else of a row.
    """
    gold, predicted = np.nonzero(confusion)
    counts = confusion[gold, predicted]
    rows = int(counts.sum())
    drawn = np.random.default_rng(SEED).multinomial(rows, counts / rows, size=RESAMPLES).astype(np.float64)
    every = np.arange(len(confusion))
    labelled = drawn @ (gold[:, None] == every)
    answered = drawn @ (predicted[:, None] == every)
    right = drawn @ ((gold == predicted)[:, None] & (gold[:, None] == every))
    counted = labelled + answered
    f1 = ratio(2 * right, counted)
    own = confusion.sum(axis=1)
    whole = own + confusion.sum(axis=0)
    point = ratio(2 * np.diag(confusion), whole)
    correlated = right.sum(axis=1) * rows - (labelled * answered).sum(axis=1)
    spread = np.sqrt((rows**2 - (answered**2).sum(axis=1)) * (rows**2 - (labelled**2).sum(axis=1)))
    return {
        "accuracy": _interval(right.sum(axis=1) / rows),
        "macro_f1": _interval(_around(point.mean(), _macro(f1, counted, whole))),
        "weighted_f1": _interval(_around(point @ own / rows, (f1 * labelled).sum(axis=1) / rows)),
        "matthews": _interval(ratio(correlated, spread)),
    }


def of_means(values: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """95 % intervals of means over rows: the value of each row (rows,) by the figure's name."""
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
    rows = len(table)
    if rows > MANY_ROWS:
        mean, half = table.mean(axis=0), Z_95 * table.std(axis=0, ddof=1) / np.sqrt(rows)
        low, high = np.clip([mean - half, mean + half], table.min(axis=0), table.max(axis=0))
        return {name: (float(low[at]), float(high[at])) for at, name in enumerate(values)}
    generator = np.random.default_rng(SEED)
    means = np.stack([table[generator.integers(0, rows, rows)].mean(axis=0) for _ in range(RESAMPLES)])
    return {name: _interval(means[:, at]) for at, name in enumerate(values)}


def of_label_counts(both: np.ndarray, chosen: np.ndarray, gold: np.ndarray) -> dict[str, Interval]:
    """95 % intervals of micro_f1 and macro_f1 over resampled rows, of what was right, given and labelled: bool (rows, labels) each.

    Of twice MANY_ROWS or more, a sample of at least MANY_ROWS says how far the figures vary: the intervals lie around those of all rows,
    narrowed by the root of what was left out.
    """
    step = max(1, len(gold) // MANY_ROWS)
    # Drawn, for every n-th row may be of one kind: files are often sorted, or have their classes in turn.
    sample = np.sort(np.random.default_rng(SEED).permutation(len(gold))[: len(gold) // step])
    right, counted = both[sample].astype(np.float32), np.add(chosen[sample], gold[sample], dtype=np.float32)
    whole = chosen.sum(axis=0) + gold.sum(axis=0)
    generator = np.random.default_rng(SEED)
    rows = len(sample)
    found = []
    for _ in range(RESAMPLES // RESAMPLED_AT_ONCE):
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLED_AT_ONCE).astype(np.float32)
        found.append(_micro_and_macro(weights @ right, weights @ counted, whole))
    centre = _micro_and_macro(both.sum(axis=0, keepdims=True), whole[None], whole)
    micro, macro = _around(centre, np.concatenate(found, axis=1), 1 / float(np.sqrt(step)))
    return {"micro_f1": _interval(micro), "macro_f1": _interval(macro)}


def _around(centre: np.ndarray | float, figures: np.ndarray, share: float = 1.0) -> np.ndarray:
    """Resampled figures (..., resamples), moved onto that of all rows: F1 is a ratio, and of few rows comes out below itself."""
    return np.asarray(np.clip(centre + share * (figures - np.median(figures, axis=-1, keepdims=True)), 0.0, 1.0))


def _micro_and_macro(right: np.ndarray, counted: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """F1 of each resample, float64 (2, resamples), of what was right and what was given or labelled: (resamples, labels) each."""
    return np.stack([ratio(2 * right.sum(axis=1), counted.sum(axis=1)), _macro(ratio(2 * right, counted), counted, whole)])


def _macro(f1: np.ndarray, counted: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The mean over classes in each resample, float64 (resamples,), of f1 and the rows and answers it is of: (resamples, classes) each.

    A class that a resample happens not to draw does not count in it: as a 0 it would be a mistake that nobody made. Only one without rows
    or answers among all, `whole` (classes,), counts 0, as it does in the figure.
    """
    counts = (counted > 0) | (whole == 0)
    return ratio(f1.sum(axis=1), counts.sum(axis=1))


def _interval(figures: np.ndarray) -> Interval:
    low, high = np.percentile(figures, SHARE)
    return float(low), float(high)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where below is 0: a class without rows or answers counts 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0))

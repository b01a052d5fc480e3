"""Rows set aside, stratified and seeded: each class gives its share, and every part keeps the order of the file.

scikit-learn's stratified split refuses a part with fewer rows than classes and may leave a small class out of it; here every class
that is split at all is in every part. The shuffling is NumPy's RandomState, whose stream is frozen: a seed gives the same split on
every machine and with every version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEV_ROWS = 2
"""Rows that dev needs of a class: one selects, one calibrates."""
TEST_ROWS = 1


@dataclass(frozen=True)
class Parts:
    """Places of rows, ascending, and the ids of the classes that were too small to be split: all their rows are in train."""

    train: tuple[int, ...]
    dev: tuple[int, ...]
    test: tuple[int, ...]
    unsplit: tuple[int, ...]


def fewest_rows(dev_ratio: float, test_ratio: float) -> int:
    """Rows a class needs to be split: train keeps at least as many as the other parts need."""
    return 2 * ((DEV_ROWS if dev_ratio else 0) + (TEST_ROWS if test_ratio else 0))


def set_aside(label_ids: Sequence[int], *, dev_ratio: float, test_ratio: float, seed: int) -> Parts:
    """Places of the rows of each part; a ratio of 0 means no such part."""
    by_class = _shuffled(label_ids, seed)
    fewest = fewest_rows(dev_ratio, test_ratio)
    split = {label: places for label, places in by_class.items() if len(places) >= fewest}
    sizes = [len(places) for places in split.values()]
    test_total, dev_total = round(sum(sizes) * test_ratio), round(sum(sizes) * dev_ratio)
    test_sizes = _shares(sizes, test_ratio, test_total, at_least=TEST_ROWS, most=[n - 1 - (DEV_ROWS if dev_ratio else 0) for n in sizes])
    dev_sizes = _shares(
        sizes, dev_ratio, dev_total, at_least=DEV_ROWS, most=[n - 1 - gone for n, gone in zip(sizes, test_sizes, strict=True)]
    )
    dev: set[int] = set()
    test: set[int] = set()
    for places, n_test, n_dev in zip(split.values(), test_sizes, dev_sizes, strict=True):
        test.update(places[:n_test])
        dev.update(places[n_test : n_test + n_dev])
    train = (place for place in range(len(label_ids)) if place not in dev and place not in test)
    unsplit = tuple(sorted(label for label in by_class if label not in split))
    return Parts(tuple(train), tuple(sorted(dev)), tuple(sorted(test)), unsplit)


def halves(label_ids: Sequence[int], *, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places of two halves with each class in both, where it has two rows; the first half is the larger one if one is."""
    by_class = _shuffled(label_ids, seed)
    sizes = [len(places) for places in by_class.values()]
    second_sizes = _shares(sizes, 0.5, len(label_ids) // 2, at_least=0, most=sizes)
    second = {place for places, n in zip(by_class.values(), second_sizes, strict=True) for place in places[:n]}
    return tuple(place for place in range(len(label_ids)) if place not in second), tuple(sorted(second))


def sample(label_ids: Sequence[int], rows: int, *, seed: int) -> tuple[int, ...]:
    """Places of `rows` rows, ascending; each class gives its share, and one at least."""
    by_class = _shuffled(label_ids, seed)
    sizes = [len(places) for places in by_class.values()]
    shares = _shares(sizes, rows / len(label_ids), rows, at_least=1, most=sizes)
    return tuple(sorted(place for places, n in zip(by_class.values(), shares, strict=True) for place in places[:n]))


def _shuffled(label_ids: Sequence[int], seed: int) -> dict[int, list[int]]:
    """For each class, ascending, the places of its rows, shuffled."""
    by_class: dict[int, list[int]] = {label: [] for label in sorted(set(label_ids))}
    for place, label in enumerate(label_ids):
        by_class[label].append(place)
    random = np.random.RandomState(seed)
    return {label: [places[i] for i in random.permutation(len(places))] for label, places in by_class.items()}


def _shares(sizes: Sequence[int], ratio: float, total: int, *, at_least: int, most: Sequence[int]) -> list[int]:
    """How many rows each class gives: `ratio` of its own, `total` in sum by largest remainder, each within its bounds."""
    if not ratio:
        return [0] * len(sizes)
    shares = [min(max(int(size * ratio), at_least), bound) for size, bound in zip(sizes, most, strict=True)]
    missing = total - sum(shares)
    for place in sorted(range(len(sizes)), key=lambda place: int(sizes[place] * ratio) - sizes[place] * ratio):
        if missing > 0 and shares[place] < most[place]:
            shares[place] += 1
            missing -= 1
    return shares

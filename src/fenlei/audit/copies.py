"""Texts that come more than once: within a part, across parts, and under two labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, product

from fenlei.audit.near_duplicates import edits_between, find_near_pairs, numbers_differ
from fenlei.audit.rows import AuditedRows
from fenlei.audit.same_text import bare, groups, plain
from fenlei.data.examples import Example


@dataclass(frozen=True)
class Copy:
    """A row whose text stands in an earlier row, or nearly so; a later part's rows count as later."""

    row: int
    of: int
    edits: int = 0
    """Characters to put in, take out or change, marks and blanks not counted."""
    exact: bool = True
    """Whether the texts are the same but for case, blanks and the width of characters."""
    other_number: bool = False
    """Whether the texts differ in a numeral: two days' reports, as likely as not."""


@dataclass(frozen=True)
class Conflict:
    """Rows of one text under more than one label."""

    rows: tuple[int, ...]
    labels: dict[str, int]
    """Rows of each label, the commonest first."""

    @property
    def majority(self) -> str | None:
        """The label of more rows than any other; None where there is none such."""
        (first, most), (_, next_most) = list(self.labels.items())[:2]
        return first if most > next_most else None


def find_duplicates(rows: AuditedRows) -> tuple[Copy, ...]:
    """Rows whose text an earlier row of the same part has; the first of them stays unnamed."""
    found = []
    for places in rows.same_text.values():
        first_of: dict[int, int] = {}
        for row in places:
            first = first_of.setdefault(rows.part_of[row], row)
            if first != row:
                found.append(Copy(row, first))
    return _in_order(found)


def find_exact_leaks(rows: AuditedRows) -> tuple[Copy, ...]:
    """Rows of dev and test whose text an earlier part has."""
    across = (places for places in rows.same_text.values() if rows.part_of[places[0]] != rows.part_of[places[-1]])
    return _in_order([Copy(row, places[0]) for places in across for row in places if rows.part_of[row] > rows.part_of[places[0]]])


def find_conflicts(rows: AuditedRows) -> tuple[Conflict, ...]:
    """Texts under more than one label, in whatever parts."""
    found = []
    for places in rows.same_text.values():
        if len(places) > 1:
            labels = Counter(label for row in places if (label := rows.examples[row].label) is not None)
            if len(labels) > 1:
                found.append(Conflict(tuple(places), dict(labels.most_common())))
    return tuple(found)


def find_near_copies(rows: AuditedRows) -> tuple[Copy, ...]:
    """Every pair of rows with nearly the same text: of each text the first row in each part stands for its copies there."""
    return tuple(
        Copy(max(one, other), min(one, other), edits, exact=False, other_number=other_number)
        for one, other, edits, other_number in _near_heads(rows)
    )


def nearest_copies(rows: AuditedRows, copies: Iterable[Copy], *, across: bool) -> tuple[Copy, ...]:
    """Of copies across parts, or within one, the nearest of each row, so that each row is named once."""
    nearest: dict[int, Copy] = {}
    for copy in copies:
        if (rows.part_of[copy.row] != rows.part_of[copy.of]) == across:
            best = nearest.setdefault(copy.row, copy)
            if (not copy.exact, copy.edits, copy.of) < (not best.exact, best.edits, best.of):
                nearest[copy.row] = copy
    return _in_order(list(nearest.values()))


def _near_heads(rows: AuditedRows) -> Iterator[tuple[int, int, int, bool]]:
    """Each pair as (row, row, edits, whether a numeral differs)."""
    texts = list(rows.same_text)
    heads = [_first_in_parts(rows, places) for places in rows.same_text.values()]
    same_bare = groups(bare(texts))
    distinct = list(same_bare)

    def between(first: int, second: int, edits: int) -> Iterator[tuple[int, int, int, bool]]:
        other_number = numbers_differ(texts[first], texts[second])
        for one, other in product(heads[first], heads[second]):
            if _near_in_each(rows.examples[one], rows.examples[other]):
                yield one, other, edits, other_number

    for kinds in same_bare.values():
        for first, second in combinations(kinds, 2):
            yield from between(first, second, 0)
    for pair in find_near_pairs(distinct):
        for first, second in product(same_bare[distinct[pair.first]], same_bare[distinct[pair.second]]):
            yield from between(first, second, pair.edits)


def _near_in_each(one: Example, other: Example) -> bool:
    """Whether of pairs both texts are near: beside a long passage another question is but a few edits of the whole."""
    if one.pair is None or other.pair is None:
        return True
    texts = ((one.text, other.text), (one.pair, other.pair))
    return all(edits_between(*bare([plain(ours), plain(theirs)])) is not None for ours, theirs in texts)


def _first_in_parts(rows: AuditedRows, places: list[int]) -> list[int]:
    first_of: dict[int, int] = {}
    for row in places:
        first_of.setdefault(rows.part_of[row], row)
    return list(first_of.values())


def _in_order(copies: list[Copy]) -> tuple[Copy, ...]:
    return tuple(sorted(copies, key=lambda copy: copy.row))

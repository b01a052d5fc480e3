"""Every pair of texts that a few edits turn into each other, without comparing each with each.

The filter is that of Ed-Join (Xiao, Wang, Lin: "Ed-Join: an efficient algorithm for similarity joins with edit distance constraints",
VLDB 2008). One edit destroys at most q of a text's q-grams. Put the rarest q-grams first: two texts within `k` edits then share one of
their first `q * k + 1`. q-grams that only one text has are among those destroyed, so each shortens what is left to compare; most
texts that are like no other are done with there. What shares a q-gram is compared by its true edit distance.

Up to 200 characters (fewer where there are more than 50,000 texts) nothing is missed and nothing is estimated, unlike with MinHash,
whose estimate is poor for titles: one of 12 characters with two of them changed has a Jaccard similarity near 0.3. A longer text is
sought by its beginning, with as many edits as a text of that length is allowed: a pair that has more of its edits there may be missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

Q_CHARACTERS, Q_LETTERS, MANY_CHARACTERS = 3, 5, 500
"""q where the texts have many different characters, as in Chinese, and where they are spelt in letters, which say less each."""
LONGEST, ALL_TEXTS = 2_000, 10_000_000
"""Characters of one text, and of all together, whose q-grams are counted: bounds the memory. Distances are those of the whole texts."""
MOST_GRAMS = 100
"""q-grams looked at of one text; only texts of 200 characters and more need more."""
NEIGHBOURS = 1_000
"""Where more texts share a q-gram, each is compared with so many of those that follow it in the alphabet."""
BLOCK = 1 << 20
"""Pairs that are Python's own numbers at a time, which take twenty times the room."""
HASH_BASE = np.uint64(0x9E3779B97F4A7C15)
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""What groups digits: 10,000 is 10000."""
SHORT, TITLE, SHARE = 4, 8, 10


@dataclass(frozen=True)
class NearPair:
    """Two texts by their places, the earlier one first, and the edits between them."""

    first: int
    second: int
    edits: int


def allowed_edits(length: int) -> int:
    """Edits that leave a text of so many characters what it was: none below 4, 1 below 8, then 2, from 30 characters on a tenth."""
    if length < TITLE:
        return 0 if length < SHORT else 1
    return max(2, length // SHARE)


def edits_between(one: str, other: str) -> int | None:
    """The edits that turn one text into the other; None where they are more than are allowed to the shorter."""
    most = allowed_edits(min(len(one), len(other)))
    edits = Levenshtein.distance(one, other, score_cutoff=most)
    return edits if edits <= most else None


def find_near_pairs(texts: Sequence[str]) -> list[NearPair]:
    """Every pair of the texts, which are to be distinct, that lies within the edits allowed to the shorter one; ordered by place."""
    if len(texts) < 2:
        return []
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[place] for place in order]
    pairs = []
    for first, second in _decoded(_candidates(ordered), len(ordered)):
        edits = edits_between(ordered[first], ordered[second])
        if edits is not None:
            pairs.append(NearPair(min(order[first], order[second]), max(order[first], order[second]), edits))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def numbers_differ(one: str, other: str) -> bool:
    """Whether one numeral stands in the place of another: two dates, issues or scores, then, rather than one text twice.

    A numeral that one of the texts has beside all those of the other takes nobody's place.
    """
    fewer, more = sorted((_numerals(one), _numerals(other)), key=len)
    left = iter(more)
    return not all(numeral in left for numeral in fewer)


def _numerals(text: str) -> list[str]:
    """The numerals of a text in order, each with the points inside it; commas between thousands are none of it."""
    words = "".join(one if one.isnumeric() or one == "." else " " for one in THOUSANDS.sub("", text)).split()
    return [numeral for word in words if (numeral := word.strip("."))]


def _candidates(texts: Sequence[str]) -> np.ndarray:
    """Pairs that share one of their rarest q-grams and are of like length, each as first * len(texts) + second."""
    lengths = np.array([len(text) for text in texts])
    allowed = np.array([allowed_edits(length) for length in lengths.tolist()])
    q = Q_CHARACTERS if len(set().union(*texts)) > MANY_CHARACTERS else Q_LETTERS
    most = max(50, min(LONGEST, ALL_TEXTS // len(texts)))
    grams, rows = _postings(*_grams(texts, q, most), q * np.minimum(allowed, allowed_edits(most)) + 1)
    found = [np.empty(0, dtype=np.int64)]
    left = np.arange(len(rows))
    for step in range(1, NEIGHBOURS + 1):
        left = left[left + step < len(rows)]
        left = left[grams[left] == grams[left + step]]
        if not len(left):
            break
        first, second = rows[left], rows[left + step]
        alike = np.abs(lengths[first] - lengths[second]) <= np.minimum(allowed[first], allowed[second])
        found.append(first[alike] * len(texts) + second[alike])
    return np.unique(np.concatenate(found))


def _decoded(codes: np.ndarray, texts: int) -> Iterator[tuple[int, int]]:
    for start in range(0, len(codes), BLOCK):
        first, second = np.divmod(codes[start : start + BLOCK], texts)
        yield from zip(first.tolist(), second.tolist(), strict=True)


def _grams(texts: Sequence[str], q: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Every q-gram of the first `most` characters of every text as a number, and the text that it stands in; in the order of the texts.

    Each text gets q - 1 blanks at both ends: its first and last characters are then in as many q-grams as the others, without which
    short texts could lose all of theirs to one edit. Where a text is cut off, its own characters stand in their place: blanks would
    differ wherever the two texts of a pair have not the same character at the cut.
    """
    edge = "\0" * (q - 1)
    padded = [f"{edge}{text}{edge}"[: most + 2 * len(edge)] for text in texts]
    characters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    rows = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    starts = len(characters) - q + 1
    grams = np.zeros(starts, dtype=np.uint64)
    for place in range(q):
        grams = grams * HASH_BASE + characters[place : place + starts]  # modulo 2**64; two q-grams taken for one cost time alone
    whole = rows[:starts] == rows[q - 1 :]
    return grams[whole], rows[:starts][whole]


def _postings(grams: np.ndarray, rows: np.ndarray, needed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the rarest q-grams that another text has too, up to the `needed` first: (q-gram, text), sorted by both."""
    _, kind, count = np.unique(grams, return_inverse=True, return_counts=True)
    rarity = np.empty(len(count), dtype=np.int64)
    rarity[np.argsort(count, kind="stable")] = np.arange(len(count))
    shared = count[kind] > 1
    lone = np.bincount(rows[~shared], minlength=len(needed))
    wanted = np.minimum(needed - lone, MOST_GRAMS)
    rows, ranks = rows[shared], rarity[kind[shared]]
    order = np.lexsort((ranks, rows))
    rows, ranks = rows[order], ranks[order]
    place_in_text = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place_in_text < wanted[rows]
    codes = np.unique(ranks[kept] * len(needed) + rows[kept])
    return codes // len(needed), codes % len(needed)

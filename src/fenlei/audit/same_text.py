"""When two texts count as the same: groups of rows with one text, and what is left of a text without its marks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

MARKS = "PZC"
"""Unicode categories (first letter) of punctuation, blanks and control characters. Symbols stay: an emoji may turn the meaning."""


def plain(text: str) -> str:
    """`text` without what nobody sees: width of characters (NFKC), case, and runs of blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def bare(plain_texts: Sequence[str]) -> list[str]:
    """Texts as `plain` leaves them, without punctuation and blanks; one that is nothing else stays as it is."""
    marks = {ord(one): None for one in set().union(*plain_texts) if unicodedata.category(one)[0] in MARKS}
    return [text.translate(marks) or text for text in plain_texts]


def groups(keys: Iterable[str]) -> dict[str, list[int]]:
    """For each key the places that have it, both in the order of the first; empty keys, which say nothing, are left out."""
    found: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        if key:
            found.setdefault(key, []).append(place)
    return found

"""Which waiting texts share a forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fenlei.text.pairs import Text

BYTES_A_TOKEN = 3
"""Of UTF-8: one Chinese character, or most of an English word's four letters. Rough, and enough to tell short from long."""
SHORT = 32
"""Tokens; texts up to this length go together whatever their lengths."""


class Waiting(Protocol):
    """A text in the queue."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What it is asked among; None: the run's own."""

    @property
    def tokens(self) -> int:
        """About how many the model reads."""


def about_tokens(text: Text, longest: int | None = None) -> int:
    """An estimate that costs no tokenizer, `longest` at most; a lone surrogate counts like any character, a pair as both its texts."""
    parts = (text,) if isinstance(text, str) else text
    tokens = max(1, sum(len(part.encode("utf-8", "surrogatepass")) for part in parts) // BYTES_A_TOKEN)
    return tokens if longest is None else min(tokens, longest)


def together(waiting: Iterable[Waiting], budget: int) -> list[int]:
    """Places of the texts for the next pass: the one that waits longest, and in their order those that fit it.

    To fit is to be asked the same labels, at half to double its length, and to stay within `budget` tokens when all are padded to the
    longest: a title never pays for an article beside it, and no text is overtaken for ever.
    """
    chosen: list[int] = []
    longest, shortest_fitting, longest_fitting = 0, 0, 0
    labels: tuple[str, ...] | None = None
    for place, one in enumerate(waiting):
        if not chosen:
            labels, longest = one.labels, one.tokens
            shortest_fitting = 0 if one.tokens <= SHORT else one.tokens // 2
            longest_fitting = max(SHORT, 2 * one.tokens)
        elif one.labels != labels or not shortest_fitting <= one.tokens <= longest_fitting:
            continue
        elif (len(chosen) + 1) * max(longest, one.tokens) > budget:
            if (len(chosen) + 1) * longest > budget:
                break
            continue
        longest = max(longest, one.tokens)
        chosen.append(place)
    return chosen

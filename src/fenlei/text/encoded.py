"""Texts as token ids: what every method reads, and what batches are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fenlei.text.answers import AnswerTree


@dataclass(frozen=True)
class Windows:
    """Where the windows of encoded texts lie."""

    starts: np.ndarray
    """int64 (windows + 1,): window j is ids[starts[j]:starts[j + 1]]."""
    first: np.ndarray
    """int64 (rows + 1,): row i has the windows first[i] to first[i + 1]."""
    spans: np.ndarray
    """int64 (windows, 2): the characters of the text that each was made of, from and to."""

    @property
    def counts(self) -> np.ndarray:
        """Windows of each row, int64 (rows,)."""
        return np.diff(self.first)


@dataclass(frozen=True)
class Question:
    """What the generate method asks of a text: what stands before it, and the labels that it may be answered with."""

    before: tuple[int, ...]
    """Token ids of the prompt up to the text: the prefix that rows share."""
    tree: AnswerTree
    columns: tuple[int, ...]
    """(answers,): the column of each answer in the logits."""
    width: int
    """Columns of the logits; those of no candidate are -inf."""
    after: tuple[int, ...]
    """Token ids of the prompt after the text."""
    room: int
    """Tokens that the text, or both texts of a pair, may have."""
    asks_each: bool = False
    """Multi-label: the first half of the columns are a yes to each label, the second half a no; their difference is the label's logit."""
    between: tuple[int, ...] = ()
    """Pairs: token ids of the prompt between the first text and the second."""
    stand_in: tuple[int, ...] = ()
    """Token ids that are read of an empty text where the prompt has none behind it: an answer follows a token of its row."""


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of many texts, end to end in one array (a Python list of a million short texts takes gigabytes)."""

    ids: np.ndarray
    """int32 (tokens,)"""
    starts: np.ndarray
    """int64 (rows + 1,): row i is ids[starts[i]:starts[i + 1]]."""
    tokens_cut: np.ndarray
    """int32 (rows,): tokens of the text that did not fit."""
    questions: tuple[Question, ...] = ()
    """For the generate method, the different ones; a row then is the text, what follows it, and the nodes of the tree of answers."""
    asked: np.ndarray | None = None
    """int32 (rows,): the question of each row."""
    windows: Windows | None = None
    """Where a row is not one input but several, end to end: which."""
    token_types: np.ndarray | None = None
    """int8 (tokens,): for pairs, which text each token is of, as the tokenizer says it; None where it says nothing."""

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], cut: Sequence[int], **told: Any) -> EncodedTexts:
        """Texts of these token ids, int32 (tokens,) each, and how many tokens of each did not fit; `told` are the other fields."""
        ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
        return cls(ids, starts, np.array(cut, dtype=np.int32), **told)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def prompt(self, row: int) -> np.ndarray:
        """All that the model reads of a row (of its first window) before it answers."""
        if self.windows is not None:
            return as_windows(self, [row]).prompt(0)
        if self.asked is None:
            return self[row]
        question = self.questions[self.asked[row]]
        return np.array([*question.before, *self[row][: len(self[row]) - len(question.tree.tokens)]], dtype=np.int32)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that a row adds to a batch, int64 (rows,): its own, and the prompt's before it where rows do not share one."""
        own = np.diff(self.starts)
        if self.asked is None or len({question.before for question in self.questions}) < 2:
            return own
        before = np.array([len(question.before) for question in self.questions], dtype=np.int64)
        total: np.ndarray = own + before[self.asked]
        return total

    @property
    def longest_input(self) -> int:
        """Tokens of the longest row, or of the longest window where rows are read in windows."""
        return int((self.lengths if self.windows is None else np.diff(self.windows.starts)).max())


def as_windows(encoded: EncodedTexts, rows: Sequence[int]) -> EncodedTexts:
    """These rows with every window a row of its own, one row's after the other's."""
    assert encoded.windows is not None, "the texts were not cut into windows"
    windows, starts = windows_of(encoded, rows), encoded.windows.starts
    return replace(
        encoded,
        ids=np.concatenate([encoded[row] for row in rows]),
        starts=np.concatenate([[0], np.cumsum(starts[windows + 1] - starts[windows])]).astype(np.int64),
        tokens_cut=np.zeros(len(windows), dtype=np.int32),
        asked=None if encoded.asked is None else np.repeat(encoded.asked[list(rows)], encoded.windows.counts[list(rows)]),
        windows=None,
    )


def windows_of(encoded: EncodedTexts, rows: Sequence[int]) -> np.ndarray:
    """The numbers of these rows' windows, one row's after the other's, int64 (windows,)."""
    assert encoded.windows is not None, "the texts were not cut into windows"
    first = encoded.windows.first
    return np.concatenate([np.arange(first[row], first[row + 1]) for row in rows])


def in_groups(encoded: EncodedTexts, most: int) -> Iterator[range]:
    """The rows in turn, as many together as have at most `most` windows (a row that has more goes alone)."""
    windows = np.ones(len(encoded), dtype=np.int64) if encoded.windows is None else encoded.windows.counts
    ends = np.cumsum(windows)
    first = 0
    while first < len(encoded):
        last = int(np.searchsorted(ends, ends[first] - windows[first] + most, side="right"))
        yield range(first, max(last, first + 1))
        first = max(last, first + 1)

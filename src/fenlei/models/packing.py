"""Rows one behind the other in a single long row, so that nothing is computed of padding.

Embeddings, projections and MLPs look at one token at a time and cannot tell. Positions are counted anew in each row; attention, which looks
at several, unpacks the rows, attends in each, and packs them again (models/attention.py). So the rows of a step may be of any lengths at no
cost, and need not be sorted into steps of like length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packing:
    """Where the tokens of packed rows stand when they are padded on the right."""

    rows: int
    longest: int
    lengths: torch.Tensor
    """int64 (rows,)"""
    places: torch.Tensor
    """int64 (tokens,): for each token its place among the rows * longest padded ones."""

    @classmethod
    def of(cls, mask: torch.Tensor) -> Packing:
        """Of a mask (rows, longest) that is 1 for a row's tokens and 0 behind them."""
        rows, longest = mask.shape
        return cls(rows, longest, mask.sum(dim=1), mask.flatten().nonzero().squeeze(1))

    @property
    def positions(self) -> torch.Tensor:
        """int64 (tokens,): of each token in its row."""
        return self.places % self.longest

    @property
    def last(self) -> torch.Tensor:
        """int64 (rows,): the place of each row's last token among all tokens."""
        return self.lengths.cumsum(0) - 1

    def packed(self, padded: torch.Tensor) -> torch.Tensor:
        """(rows, longest, ...) -> (tokens, ...)."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def padded(self, packed: torch.Tensor) -> torch.Tensor:
        """(tokens, ...) -> (rows, longest, ...), 0 behind each row."""
        whole = packed.new_zeros(self.rows * self.longest, *packed.shape[1:])
        return whole.index_copy(0, self.places, packed).view(self.rows, self.longest, *packed.shape[1:])


_packing: ContextVar[Packing | None] = ContextVar("packing", default=None)


@contextmanager
def rows_packed(packing: Packing) -> Iterator[None]:
    """Within it attention takes its one long row for these."""
    token = _packing.set(packing)
    try:
        yield
    finally:
        _packing.reset(token)


@contextmanager
def padded_again() -> Iterator[None]:
    """Within it rows are what they seem."""
    token = _packing.set(None)
    try:
        yield
    finally:
        _packing.reset(token)


def packing_now() -> Packing | None:
    """What the rows at hand are packed by; None where they are padded."""
    return _packing.get()

"""What a step is taught on, formed on the device from the token stream: a function of the step's number alone, so that runs can be resumed.

The permutations of an epoch are drawn on the CPU and moved once; a step only gathers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

BATCHES_SORTED_TOGETHER = 32
"""Batches within which rows are brought into the order of their lengths: little padding, and still another batch each epoch."""
WIDTH_STEP = 8
"""Rows are padded to a multiple: few shapes, which spares a GPU's memory from being cut up."""
HALVES = 0.3
"""Share of the pieces with neighbours that are paired as halves of themselves all the same."""


@dataclass(frozen=True)
class Rows:
    """Texts side by side, padded on the right, none read before its own beginning."""

    tokens: torch.Tensor
    """(rows, width)"""
    lengths: torch.Tensor
    """(rows,)"""

    def last(self, states: torch.Tensor) -> torch.Tensor:
        """The state of each text's last token, (rows, hidden) of (rows, width, hidden): what a classifier's head reads."""
        return states[torch.arange(len(self.lengths), device=states.device), self.lengths - 1]

    def real(self) -> torch.Tensor:
        """Bool (rows, width): the tokens that are no padding."""
        return torch.arange(self.tokens.shape[1], device=self.lengths.device) < self.lengths.unsqueeze(1)


@dataclass(frozen=True)
class Batch:
    """A step's texts."""

    windows: torch.Tensor
    """(rows, sequence) of the stream as it runs on, over the ends of lines."""
    lines: Rows
    """Pieces of the stream."""
    line_numbers: torch.Tensor
    """(rows,): which pieces."""
    pairs: Rows
    """Twice as many rows as pairs: the second half of the rows are the partners of the first."""
    documents: torch.Tensor
    """(pairs,): the document that each pair comes from."""


class Windows:
    """The stream cut into windows; an epoch is a seeded permutation, shifted anew so that the same text meets other neighbours."""

    def __init__(self, stream: torch.Tensor, sequence: int, rows: int) -> None:
        self._stream, self._offsets = stream, torch.arange(sequence, device=stream.device)
        self._windows = len(stream) // sequence - 1
        self._rows = min(rows, self._windows)
        self._epoch, self._starts = -1, torch.empty(0)

    def at(self, step: int) -> torch.Tensor:
        """(rows, sequence) tokens."""
        epoch, at = divmod(step, self._windows // self._rows)
        if epoch != self._epoch:
            generator, sequence = np.random.default_rng(epoch), len(self._offsets)
            starts = generator.permutation(self._windows) * sequence + generator.integers(sequence)
            self._epoch, self._starts = epoch, torch.from_numpy(starts).to(self._stream.device)
        starts = self._starts[at * self._rows : (at + 1) * self._rows]
        return self._stream[starts.unsqueeze(1) + self._offsets].long()


class Pieces:
    """The stream's pieces in batches of like length."""

    def __init__(self, lengths: np.ndarray, rows: int, seed: int, device: torch.device) -> None:
        self._lengths, self._rows, self._seed, self._device = lengths, min(rows, len(lengths)), seed, device
        self._epoch, self._order, self._widths = -1, torch.empty(0), np.empty(0)

    def at(self, step: int) -> tuple[torch.Tensor, int]:
        """The numbers of a batch's pieces, (rows,), and the width that takes the longest."""
        epoch, at = divmod(step, len(self._lengths) // self._rows)
        if epoch != self._epoch:
            generator = np.random.default_rng((self._seed, epoch))
            order = generator.permutation(len(self._lengths))[: len(self._lengths) // self._rows * self._rows]
            block = BATCHES_SORTED_TOGETHER * self._rows
            parts = [order[first : first + block] for first in range(0, len(order), block)]
            order = np.concatenate([part[np.argsort(self._lengths[part], kind="stable")] for part in parts]).reshape(-1, self._rows)
            order = order[generator.permutation(len(order))]
            self._epoch, self._widths = epoch, self._lengths[order].max(axis=1)
            self._order = torch.from_numpy(order).to(self._device)
        return self._order[at], -(-int(self._widths[at]) // WIDTH_STEP) * WIDTH_STEP


class Batches:
    """The batch of any step. `taught`: the numbers of the pieces that the lines are drawn from, all where it is None."""

    def __init__(
        self,
        stream: np.ndarray,
        pieces: np.ndarray,
        taught: np.ndarray | None,
        rows: tuple[int, int, int],
        sequence: int,
        device: torch.device,
    ) -> None:
        windows, lines, pairs = rows
        self._stream = torch.from_numpy(stream.astype(np.int32)).to(device)
        self._windows = Windows(self._stream, sequence, windows)
        begins, lengths, documents = (torch.from_numpy(column.astype(np.int64)).to(device) for column in pieces.T)
        self._begins, self._lengths, self._documents = begins, lengths, documents
        self._taught = None if taught is None else torch.from_numpy(taught).to(device)
        self._lines = Pieces(pieces[:, 1] if taught is None else pieces[taught, 1], lines, 0, device)
        self._pairs = Pieces(pieces[:, 1], pairs, 1, device)

    def at(self, step: int) -> Batch:
        lines, line_width = self._lines.at(step)
        pieces = lines if self._taught is None else self._taught[lines]
        pairs, pair_width = self._pairs.at(step)
        return Batch(
            windows=self._windows.at(step),
            lines=self._rows(self._begins[pieces], self._lengths[pieces], line_width),
            line_numbers=lines,
            pairs=self._rows(*self._partners(pairs, step), pair_width),
            documents=self._documents[pairs],
        )

    def after(self, step: int) -> Iterator[Batch]:
        """The batches of this step and all that follow it."""
        while True:
            yield self.at(step)
            step += 1

    def _rows(self, begins: torch.Tensor, lengths: torch.Tensor, width: int) -> Rows:
        offsets, lengths = torch.arange(width, device=begins.device), lengths.clamp_max(width)
        places = (begins.unsqueeze(1) + offsets).clamp_max(len(self._stream) - 1)
        return Rows(torch.where(offsets < lengths.unsqueeze(1), self._stream[places].long(), 0), lengths)

    def _partners(self, pieces: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Beginnings and lengths of both members of each pair: a piece and the one before or after it, or the halves of a piece."""
        generator = torch.Generator(device=pieces.device)
        generator.manual_seed(step)
        draws = torch.rand(3, len(pieces), generator=generator, device=pieces.device)
        count, document = len(self._documents), self._documents[pieces]
        after, before = (pieces + 1).clamp_max(count - 1), (pieces - 1).clamp_min(0)
        has_after = (after != pieces) & (self._documents[after] == document)
        has_before = (before != pieces) & (self._documents[before] == document)
        other = torch.where(has_after & ((draws[0] < 0.5) | ~has_before), after, before)
        halved = ~(has_after | has_before) | (draws[1] < HALVES)
        begins, lengths = self._begins[pieces], self._lengths[pieces]
        cut = (lengths * (1 + draws[2]) / 3).long().clamp_min(1)
        first = torch.where(halved, cut, lengths)
        second_begins = torch.where(halved, begins + cut, self._begins[other])
        second = torch.where(halved, lengths - cut, self._lengths[other])
        return torch.cat([begins, second_begins]), torch.cat([first, second])

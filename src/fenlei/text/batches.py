"""Which rows go through the network together: sorted by length, bounded by a token budget, in a seeded order for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fenlei.text.encoded import EncodedTexts, Question, as_windows

WINDOW_BATCHES = 50
"""Batches that are sorted by length together where rows of a batch are to be alike: wide enough to pad little."""

ENOUGH_TOKENS, LEAST_REAL = 1024, 0.97
"""Tokens from which a matrix product runs at full speed, and the share of real tokens that a larger group keeps."""


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to the longest of them."""

    input_ids: torch.Tensor
    """int64 (rows, length)"""
    attention_mask: torch.Tensor
    """int64 (rows, length): 1 for a real token."""
    questions: tuple[Question, ...] = ()
    """For the generate method: what each row is asked."""
    token_types: torch.Tensor | None = None
    """int64 (rows, length): for pairs, which text a token is of, 0 for padding; None where the tokenizer does not say."""

    def to(self, device: torch.device) -> Batch:
        types = None if self.token_types is None else sent(self.token_types, device)
        return replace(self, input_ids=sent(self.input_ids, device), attention_mask=sent(self.attention_mask, device), token_types=types)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`. A GPU is not waited for: what it computes may be several batches behind."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def collate(encoded: EncodedTexts, rows: Sequence[int], pad_id: int) -> Batch:
    """The rows, padded with `pad_id` to the longest of them."""
    pieces = [encoded[row] for row in rows]
    longest = max(len(piece) for piece in pieces)
    ids = np.full((len(pieces), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(pieces), longest), dtype=np.int64)
    for at, piece in enumerate(pieces):
        ids[at, : len(piece)] = piece
        mask[at, : len(piece)] = 1
    asked = () if encoded.asked is None else tuple(encoded.questions[encoded.asked[row]] for row in rows)
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask), asked, _token_types(encoded, rows, longest))


def _token_types(encoded: EncodedTexts, rows: Sequence[int], longest: int) -> torch.Tensor | None:
    """Those of the rows, padded with 0 to `longest`; None where there are none."""
    if encoded.token_types is None:
        return None
    types = np.zeros((len(rows), longest), dtype=np.int64)
    for at, row in enumerate(rows):
        own = encoded.token_types[encoded.starts[row] : encoded.starts[row + 1]]
        types[at, : len(own)] = own
    return torch.from_numpy(types)


@dataclass(frozen=True)
class DocumentBatch:
    """Documents that are read in windows, their windows in batches of like length."""

    parts: tuple[Batch, ...]
    order: torch.Tensor
    """int64 (windows,): for each window, one document's after the other's, its place among those of all parts."""
    counts: torch.Tensor
    """int64 (documents,): windows of each."""
    recompute: bool
    """Whether all parts together are more than what may go through the network at once."""


def batch_of(encoded: EncodedTexts, rows: Sequence[int], pad_id: int, budget: int) -> Batch | DocumentBatch:
    """The rows as the network reads them: one batch, or the windows of documents in batches of at most `budget` tokens."""
    if encoded.windows is None:
        return collate(encoded, rows, pad_id)
    windows = as_windows(encoded, rows)
    lengths = windows.lengths
    groups = list(by_token_budget(lengths, range(len(windows)), budget))
    order = np.empty(len(windows), dtype=np.int64)
    order[np.concatenate(groups)] = np.arange(len(windows))
    parts = tuple(collate(windows, group, pad_id) for group in groups)
    padded = sum(len(group) * int(lengths[group].max()) for group in groups)
    return DocumentBatch(parts, torch.from_numpy(order), torch.from_numpy(encoded.windows.counts[list(rows)]), padded > budget)


def by_token_budget(lengths: Sequence[int] | np.ndarray, rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """The rows in groups, longest first, each at most `budget` tokens with padding (a longer row goes alone).

    A group of ENOUGH_TOKENS is closed before more than a share of it is padding: larger products would not win back what that costs.
    Longest first: running out of memory shows at the start, and memory freed by a large group serves the smaller ones.
    """
    group: list[int] = []
    longest = real = 0
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        longest = longest or lengths[row]
        padded = (len(group) + 1) * longest
        wasteful = len(group) * longest >= ENOUGH_TOKENS and real + lengths[row] < LEAST_REAL * padded
        if group and (padded > budget or wasteful):
            yield group
            group, longest, real = [], lengths[row], 0
        group.append(row)
        real += lengths[row]
    if group:
        yield group


class TrainingBatches:
    """Batches of `batch_size` rows drawn at random, in an order that depends on seed and epoch alone.

    `alike`: rows of a batch are of like length, where padding would cost too much: a window of WINDOW_BATCHES batches is drawn, sorted by
    length and cut; the cut batches are then shuffled. The epoch is 0 until `set_epoch` says which. `shares`, float64 (rows,), says how
    often each row is drawn, 1 together, of as many draws as there are rows; without it each is drawn once.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, shares: np.ndarray | None = None, *, alike: bool = False) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._shares = shares
        self._alike = alike
        self._epoch = 0

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self._seed, self._epoch))
        rows = len(self._lengths)
        order = generator.permutation(rows) if self._shares is None else generator.choice(rows, rows, p=self._shares)
        window = self._batch_size * (WINDOW_BATCHES if self._alike else 1)
        batches = []
        for first in range(0, len(order), window):
            part = order[first : first + window]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[at : at + self._batch_size].tolist() for at in range(0, len(part), self._batch_size)]
        generator.shuffle(batches)
        yield from batches

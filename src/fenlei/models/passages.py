"""A document read in windows: what the windows say, joined to one state or one row of scores.

The joining knows windows and nothing of the loss. Several windows go through the network at once, under the token budget; where those of
one document are too many for it, their activations are computed again in the backward pass, a group of windows at a time (Gao et al. 2021,
"Scaling deep contrastive learning batch size under memory limited setup"): the gradient is exact, and memory that of one group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fenlei.config import Long
from fenlei.models.devices import same_dice
from fenlei.text.batches import Batch, DocumentBatch, sent
from fenlei.text.encoded import EncodedTexts, windows_of

ATTENTION_WIDTH = 128


@dataclass(frozen=True)
class WindowStates:
    """What a backbone says of the windows of some documents, one document's after the other's."""

    states: torch.Tensor
    """float32 (windows, hidden)"""
    counts: torch.Tensor
    """int64 (documents,): windows of each."""


class Pooling(nn.Module):
    """Joins window values. `forward(states, values, counts)`: float32 (windows, hidden), (windows, width), int64 (documents,) to float32
    (documents, width) and the weight of each window in its document, float32 (windows,), 1 together; None where all weigh the same.
    """

    def forward(self, states: torch.Tensor, values: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        raise NotImplementedError


class MeanPooling(Pooling):
    """Every window alike."""

    def forward(self, states: torch.Tensor, values: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, None]:
        return average(values, counts), None


class MaxPooling(Pooling):
    """The largest of each dimension; a window's weight is the share of dimensions that it gives."""

    def forward(self, states: torch.Tensor, values: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        documents = _document_of(counts, len(values))
        index = documents[:, None].expand_as(values)
        largest = values.new_full((len(counts), values.shape[1]), -torch.inf).scatter_reduce(0, index, values, "amax")
        gives = (values == largest[documents]).to(values)
        shared = gives / _sum(gives, counts)[documents]
        return largest, shared.mean(dim=1).detach()


class AttentionPooling(Pooling):
    """Learned attention: softmax over a document's windows of w . tanh(V state + P place), as in Ilse et al. 2018, "Attention-based deep
    multiple instance learning", with the window's place beside its state. At first every window weighs the same.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden, ATTENTION_WIDTH)
        self.place = nn.Linear(PLACE_FEATURES, ATTENTION_WIDTH, bias=False)
        self.score = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, states: torch.Tensor, values: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        even = torch.nn.functional.layer_norm(states, states.shape[-1:])
        scores = self.score(torch.tanh(self.state(even) + self.place(_places(counts, len(states)).to(states))))[:, 0]
        weights = _softmax(scores, counts)
        return _sum(values * weights[:, None], counts), weights


PLACE_FEATURES = 4


def choose_pooling(long: Long, hidden: int) -> Pooling | None:
    """What joins windows, with new weights where it learns; None where texts are not read in windows."""
    if long == "windows":
        return AttentionPooling(hidden)
    return {"mean": MeanPooling, "max": MaxPooling}[long]() if long in ("mean", "max") else None


def read_windows(batch: DocumentBatch, read: Callable[[Batch], torch.Tensor], device: torch.device) -> torch.Tensor:
    """What `read` says of every window on `device`, (windows, width), one document's after the other's."""
    again = batch.recompute and torch.is_grad_enabled()
    said = [_computed_again(read, part, device) if again else read(part) for part in batch.parts]
    return torch.cat(said)[sent(batch.order, said[0].device)]


def frozen_states(vectors: np.ndarray, encoded: EncodedTexts, rows: Sequence[int]) -> torch.Tensor | WindowStates:
    """What a frozen backbone has said of these rows, from its vectors of all rows, or of all windows where rows are read in such."""
    if encoded.windows is None:
        return torch.from_numpy(np.array(vectors[rows]))
    counts = torch.from_numpy(encoded.windows.counts[rows])
    return WindowStates(torch.from_numpy(vectors[windows_of(encoded, rows)]), counts)


def average(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The mean over each document's windows, (windows, width) -> (documents, width); -inf stays where it is in all of them."""
    return _sum(values, counts) / counts.to(values)[:, None]


def _computed_again(read: Callable[[Batch], torch.Tensor], part: Batch, device: torch.device) -> torch.Tensor:
    """What `read` says of `part`, whose activations are not kept for the backward pass."""
    at = torch.empty(0, device=device)  # torch sets back the random numbers of its tensors' devices, and looks into no batch
    same = partial(same_dice, device)
    return cast(torch.Tensor, checkpoint(lambda part, _: read(part), part, at, use_reentrant=False, context_fn=same))


def _document_of(counts: torch.Tensor, windows: int) -> torch.Tensor:
    """The document of each of the `windows`, int64 (windows,); how many there are need not be asked of a GPU."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=windows)


def _sum(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Over each document's windows, (windows, width) -> (documents, width)."""
    return values.new_zeros(len(counts), values.shape[1]).index_add(0, _document_of(counts, len(values)), values)


def _softmax(scores: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Over each document's windows, (windows,)."""
    documents = _document_of(counts, len(scores))
    largest = scores.new_full((len(counts),), -torch.inf).scatter_reduce(0, documents, scores.detach(), "amax")
    shares = torch.exp(scores - largest[documents])
    return shares / _sum(shares[:, None], counts)[documents, 0]


def _places(counts: torch.Tensor, windows: int) -> torch.Tensor:
    """Where each of the `windows` lies, float32 (windows, PLACE_FEATURES): share of the way, windows before and after it, whether it is
    the first.
    """
    begins = (counts.cumsum(0) - counts).repeat_interleave(counts, output_size=windows)
    before = (torch.arange(windows, device=counts.device) - begins).float()
    after = counts.repeat_interleave(counts, output_size=windows).float() - 1 - before
    return torch.stack([before / (before + after).clamp(min=1), before.log1p(), after.log1p(), (before == 0).float()], dim=1)

"""What every method of classification gives: encoded rows in, float32 logits over the label set out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from fenlei.text.batches import Batch, DocumentBatch


@dataclass(frozen=True)
class Output:
    """What the network says of a batch."""

    logits: torch.Tensor
    """float32 (rows, labels)"""
    pooled: torch.Tensor | None
    """float32 (rows, hidden): the state the head reads; None where the method has none."""
    weights: torch.Tensor | None = None
    """float32 (windows,): what each window counts in its document; None where none counts more than another."""


class Method(Protocol):
    """A network that scores the label set. Its device is that of its weights."""

    pad_id: int

    @property
    def device(self) -> torch.device: ...

    def __call__(self, batch: Batch | DocumentBatch, /) -> Output: ...

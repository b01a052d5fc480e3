"""The last block's MLP at the places that are read, and nowhere else.

A head reads one state a row. What the last block's MLP makes of the other places reaches nothing, and that MLP is most of a block: over 24
blocks it is some 3.6 % of the work, forward and back. The rest of the block stays whole: queries, keys and values are one call each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.models.backbone import recomputes_activations

Places = tuple[torch.Tensor, torch.Tensor]
"""Rows and their columns, each int64 (read,)."""

_read: ContextVar[tuple[Places, torch.Size] | None] = ContextVar("read", default=None)
"""The places that will be read of states of that shape; None: all may be."""


@contextmanager
def only_read_at(places: Places, shape: torch.Size) -> Iterator[None]:
    """Within it, states other than those at `places` of `shape`, (rows, length), need not be right after the last block."""
    token = _read.set((places, shape))
    try:
        yield
    finally:
        _read.reset(token)


def spare_last_block(network: PreTrainedModel) -> None:
    """Lets the MLP of the last block heed `only_read_at`, where the architecture has one of that name.

    Not under gradient checkpointing: the second forward pass runs in the backward pass, where nothing says what is read.
    """
    mlp = _last_mlp(network.base_model)
    if mlp is None or hasattr(mlp, "_whole"):
        return
    mlp._whole = mlp.forward

    def forward(states: torch.Tensor, *others: Any, **more: Any) -> Any:
        read = _read.get()
        again = mlp.training and recomputes_activations(network)  # asked here, for it may be switched on at any time
        if read is None or again or states.shape[:-1] != read[1] or others or more:
            return mlp._whole(states, *others, **more)
        places = read[0]
        found = mlp._whole(states[places].unsqueeze(1))
        if not isinstance(found, torch.Tensor):
            return mlp._whole(states)
        return found.new_zeros(states.shape).index_put(places, found.squeeze(1))

    mlp.forward = forward


def _last_mlp(backbone: nn.Module) -> Any:
    """The part `mlp` of the last module in the backbone's longest list of blocks; None where there is none."""
    lists = [child for child in backbone.children() if isinstance(child, nn.ModuleList) and len(child)]
    blocks = max(lists, key=len, default=None)
    return cast(Any, getattr(blocks[-1], "mlp", None)) if blocks else None

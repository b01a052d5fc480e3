"""What a decoder must compute for a token: the matrix products of its blocks, and their FLOP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

PASSES = {"predict": 1, "lora": 2, "full": 3}
"""Forward; and the gradients of activations; and those of weights. An adapter's own products are left out: two per cent at rank 16."""


@dataclass(frozen=True)
class Shapes:
    """The linears of all blocks, and the attention between them."""

    linears: tuple[tuple[int, int], ...]
    """(in, out) of every linear, in the order of the network."""
    attention_width: int
    """Heads times head size, over all layers."""

    def flop(self, tokens: float, squares: float, kind: str) -> float:
        """Of `tokens` real tokens in rows whose squared lengths sum to `squares`; causal attention reads half of each square."""
        linear = 2 * sum(a * b for a, b in self.linears) * tokens
        return PASSES[kind] * linear + (1 if kind == "predict" else 3) * 2 * self.attention_width * squares


def shapes_of(folder: str) -> Shapes:
    """Of the model in `folder`; nothing is loaded."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        network = AutoModel.from_config(config)
    linears = tuple((one.in_features, one.out_features) for one in network.modules() if isinstance(one, nn.Linear))
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shapes(linears, config.num_hidden_layers * config.num_attention_heads * head)

"""Attention over short rows on a CPU, as plain matrix products.

torch's fused kernel walks (row, head) pairs in blocks made for long texts: over 32 rows of 14 tokens its backward pass takes ten times as
long as the few small products it stands for, 15 % of a LoRA step on news titles. Query heads that share a key head are multiplied
together, so keys and values are never repeated. Long rows, other devices and whatever else keep transformers' own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fenlei.models.packing import packing_now, padded_again

NAME, CAUSAL = "fenlei_short_rows", "fenlei_causal"
"""The names transformers knows it by. For the second it makes no masks, and asks nothing of a GPU to find that none is needed."""
LONGEST_ROW = 128
"""Tokens. From about 256 on the fused kernel is faster, and the scores kept for the backward pass begin to weigh."""
OWN_MASKS = ("doge",)
"""Architectures that add numbers of their own to the mask in each layer: they need to be given one, and each row at its own place."""


def speed_up_short_rows(network: PreTrainedModel) -> None:
    """Lets `network` attend as here where it would use torch's fused attention; its config on disk does not change."""
    if network.config._attn_implementation == "sdpa" and network._can_set_attn_implementation():
        for name in (NAME, CAUSAL):
            AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        network.set_attn_implementation(NAME)


@contextmanager
def without_masks(network: PreTrainedModel, length: int) -> Iterator[None]:
    """Within it a decoder that is given no mask makes none, where causal attention over rows of `length` tokens is all that it needs."""
    config = network.config
    if not is_plainly_causal(config, length):
        yield
        return
    config._attn_implementation = CAUSAL
    try:
        yield
    finally:
        config._attn_implementation = NAME


def sees_all(config: Any) -> bool:
    """Whether a decoder was made to look at what follows a token as well (EmbeddingGemma): it sees padding, unless a mask hides it."""
    return not getattr(config, "is_causal", True) or bool(getattr(config, "use_bidirectional_attention", False))


def is_plainly_causal(config: Any, length: int) -> bool:
    """Whether each token of a row of `length` tokens looks at all before it and at nothing else, by the attention of this module."""
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    window = getattr(config, "sliding_window", None) or None  # 0 is none, as Qwen2 MoE says it
    known = config._attn_implementation == NAME and config.model_type not in OWN_MASKS
    plain = known and config.get_text_config() is config and not sees_all(config) and not kinds
    return plain and (window is None or length <= window)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Query (rows, heads, length, width), key and value (rows, key heads, length, width) -> (rows, length, heads, width).

    `attention_mask`: True where a query may look, broadcastable to (rows, 1, length, length); None is causal or, for encoders, everywhere.
    One of numbers, which are added to the scores, goes transformers' own way. Scores and their softmax are float32, as in the fused kernel.
    Packed rows come as one, and are attended to as what they are.
    """
    if (packing := packing_now()) is not None:
        query, key, value = (packing.padded(one[0].transpose(0, 1)).transpose(1, 2) for one in (query, key, value))
        with padded_again():
            states, _ = attention(module, query, key, value, attention_mask, dropout, scaling, is_causal, **others)
        return packing.packed(states).unsqueeze(0), None
    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    biased = any(other is not None for other in (others.get("position_bias"), others.get("softcap")))
    if biased or not _is_short(query, key, value) or not _only_permits(attention_mask):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **others
        )
    rows, heads, length, width = query.shape
    key_heads = key.shape[1]
    scale = width**-0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):
        grouped = (query.float() * scale).reshape(rows, key_heads, -1, width)
        scores = (grouped @ key.float().transpose(2, 3)).view(rows, heads, length, length)
        if causal:
            attention_mask = torch.ones(length, length, dtype=torch.bool).tril()
        if attention_mask is not None:
            # The smallest number, not -inf: a padded row may be allowed to look nowhere, and its NaN would reach every gradient.
            scores = scores.masked_fill(~attention_mask, torch.finfo(torch.float32).min)
        shares = torch.nn.functional.dropout(scores.softmax(dim=-1), dropout, module.training).to(value.dtype)
        states = shares.view(rows, key_heads, -1, length) @ value
    # Contiguous as transformers' own, which some architectures take for granted; the others would copy it themselves.
    return states.view(rows, heads, length, width).transpose(1, 2).contiguous(), None


def _is_short(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and query.shape[2] == key.shape[2] <= LONGEST_ROW
        and query.shape[3] == value.shape[3]
        and query.shape[1] % key.shape[1] == 0
    )


def _only_permits(attention_mask: torch.Tensor | None) -> bool:
    """Whether a mask says where to look and nothing of how much."""
    return attention_mask is None or attention_mask.dtype == torch.bool

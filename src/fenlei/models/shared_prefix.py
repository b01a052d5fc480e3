"""Rows that begin alike, read together: what they share goes through the network once, and nothing is padded.

The rows of a batch lie end to end in one sequence, after the prefix that they share (`Packed`). The linear layers see real tokens only.
Attention is the one place where rows meet, so it is here: a token sees the prefix, what is before it in its own row, and, in the tree of
answers at a row's end, its own ancestors. In training the prefix is part of the sequence, and the gradients of all rows flow into it once;
in prediction its keys and values are kept (`PrefixStates`), and it is read once a label set.

Registered with transformers as an attention implementation, so that every decoder that takes one can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import AttentionInterface

from fenlei.errors import ModelError
from fenlei.text.batches import sent

ATTENTION = "fenlei_shared_prefix"
"""The name transformers knows it by."""
LONG_ROWS = 128
"""Rows of so many tokens go through PyTorch's fused attention. Shorter ones do not: its backward pass takes twice as long there."""
CHUNK_SCORES = 1 << 25
"""Attention scores held at once in prediction: 128 MB in float32."""


@dataclass(frozen=True)
class PrefixStates:
    """A prefix as the attention of each layer has seen it: (tokens, key heads, head size) by layer."""

    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    tokens: int


@dataclass
class Group:
    """Rows behind one prefix, padded only inside attention."""

    prefix: int
    """Tokens of the prefix."""
    states: PrefixStates | None
    """None: the prefix stands in the sequence, before its rows."""
    positions: torch.Tensor
    """int64 (rows, length)"""
    visible: torch.Tensor
    """bool (rows, length, length): whether the row's second token is seen by the first."""
    real: torch.Tensor | None
    """int64 (tokens,): places of the real tokens among the padded ones, row by row; None where no row is shorter."""
    spread: torch.Tensor | None
    """int64 (rows * length,): which real token each padded place shows."""
    _hidden: dict[int | None, torch.Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.positions.numel() if self.real is None else len(self.real)

    def hidden(self, window: int | None) -> torch.Tensor:
        """Bool (rows, length, prefix + length): what a token must not see, in a layer that looks `window` tokens back."""
        if window not in self._hidden:
            rows, length = self.positions.shape
            there = torch.zeros(rows, length, self.prefix, dtype=torch.bool, device=self.visible.device)
            hidden = torch.cat([there, ~self.visible], dim=2)
            if window is not None:
                places = torch.arange(self.prefix, device=self.positions.device).expand(rows, -1)
                hidden |= self.positions[:, :, None] - torch.cat([places, self.positions], 1)[:, None, :] >= window
            self._hidden[window] = hidden
        return self._hidden[window]

    def to(self, device: torch.device) -> Group:
        real, spread = (None if one is None else sent(one, device) for one in (self.real, self.spread))
        return Group(self.prefix, self.states, sent(self.positions, device), sent(self.visible, device), real, spread)

    def pad(self, flat: torch.Tensor) -> torch.Tensor:
        """(tokens, ...) -> (rows, length, ...)."""
        flat = flat if self.spread is None else flat.index_select(0, self.spread)
        return flat.reshape(*self.positions.shape, *flat.shape[1:])

    def flatten(self, padded: torch.Tensor) -> torch.Tensor:
        """(rows, length, ...) -> (tokens, ...)."""
        flat = padded.reshape(-1, *padded.shape[2:])
        return flat if self.real is None else flat.index_select(0, self.real)


@dataclass(frozen=True)
class Packed:
    """One sequence of many rows, and how its tokens see each other."""

    ids: torch.Tensor
    """int64 (1, tokens)"""
    positions: torch.Tensor
    """int64 (1, tokens)"""
    groups: tuple[Group, ...]
    record: PrefixStates | None = field(default=None)
    """Where keys and values are to be kept, if they are."""


def group_rows(
    lengths: Sequence[int], positions: torch.Tensor, visible: torch.Tensor, *, prefix: int, states: PrefixStates | None
) -> Group:
    """A group of rows of these lengths; `positions` (rows, length) count from the prefix's end, `visible` (rows, length, length)."""
    longest = positions.shape[1]
    if all(length == longest for length in lengths):
        return Group(prefix, states, positions + prefix, visible, None, None)
    counts = torch.tensor(lengths, device=positions.device)
    there = torch.arange(longest, device=positions.device) < counts[:, None]
    real = there.flatten().nonzero()[:, 0]
    # A padded place shows a token of its own row, the last: it is seen by nobody, and its answer is read by nobody.
    spread = (counts.cumsum(0) - counts)[:, None] + torch.arange(longest, device=positions.device).minimum(counts[:, None] - 1)
    return Group(prefix, states, positions + prefix, visible, real, spread.flatten())


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: Packed,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface over a packed sequence: (1, heads, tokens, size) -> (1, tokens, heads, size)."""
    if s_aux is not None:
        raise ModelError("this model's attention has sinks, which the generate method does not compute; use --method head")
    layer = int(cast(Any, module).layer_idx)
    q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
    if packed.record is not None:
        packed.record.keys[layer], packed.record.values[layer] = k, v
    q = q * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    parts = []
    at = 0
    for group in packed.groups:
        if group.states is None:
            ends = at + group.prefix
            seen_k, seen_v = k[at:ends], v[at:ends]
            if group.prefix:
                parts.append(_causal(q[at:ends], seen_k, seen_v, sliding_window, softcap))
            at = ends
        else:
            seen_k, seen_v = group.states.keys[layer], group.states.values[layer]
        ends = at + group.tokens
        own_q, own_k, own_v = (group.pad(one[at:ends]) for one in (q, k, v))
        parts.append(group.flatten(_attend(own_q, own_k, own_v, seen_k, seen_v, group.hidden(sliding_window), softcap)))
        at = ends
    return torch.cat(parts)[None], None


AttentionInterface.register(ATTENTION, shared_prefix_attention)


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, softcap: float | None) -> torch.Tensor:
    """The prefix among itself: (tokens, heads, size)."""
    places = torch.arange(len(q), device=q.device)
    apart = places[:, None] - places
    hidden = (apart < 0) | (apart >= (window or len(q)))
    return _attend(q[None], k[None], v[None], k[:0], v[:0], hidden[None], softcap)[0]


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    seen_k: torch.Tensor,
    seen_v: torch.Tensor,
    hidden: torch.Tensor,
    softcap: float | None,
) -> torch.Tensor:
    """Scaled queries (rows, length, heads, size) over `seen` (prefix, key heads, size), which all rows share, and over their own.

    The prefix's products are matrix products over all rows at once: nothing of it is copied to a row, and its gradient is summed inside
    them. Scores and weights are float32.
    """
    rows, length, heads, size = q.shape
    kv, prefix = k.shape[2], len(seen_k)
    if length >= LONG_ROWS and softcap is None:
        return _attend_long(q, k, v, seen_k, seen_v, hidden)
    fit = max(1, CHUNK_SCORES // (heads * length * (prefix + length)))
    if rows > fit and not torch.is_grad_enabled():
        chunks = (slice(first, first + fit) for first in range(0, rows, fit))
        return torch.cat([_attend(q[one], k[one], v[one], seen_k, seen_v, hidden[one], softcap) for one in chunks])
    each = heads // kv * length
    asked = q.reshape(rows, length, kv, heads // kv, size).permute(2, 0, 3, 1, 4)  # kv, rows, heads of a kv, length, size
    flat = asked.reshape(kv, rows * each, size)
    own_k, own_v = (one.permute(2, 0, 1, 3).reshape(kv * rows, length, -1) for one in (k, v))
    to_prefix = (flat @ seen_k.permute(1, 2, 0)).view(kv, rows, each, prefix)
    to_own = (flat.reshape(kv * rows, each, size) @ own_k.transpose(1, 2)).view(kv, rows, each, length)
    scores = torch.cat([to_prefix, to_own], dim=-1).float()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.view(kv, rows, heads // kv, length, prefix + length)
    weights = cast(Any, _Weights).apply(scores, hidden[None, :, None], v.dtype)
    mixed = (weights[..., :prefix].reshape(kv, rows * each, prefix) @ seen_v.transpose(0, 1)).view(kv * rows, each, -1)
    mixed = mixed + weights[..., prefix:].reshape(kv * rows, each, length) @ own_v
    out: torch.Tensor = mixed.view(kv, rows, heads // kv, length, -1).permute(1, 3, 0, 2, 4).reshape(rows, length, heads, -1)
    return out


def _attend_long(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen_k: torch.Tensor, seen_v: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """The same for rows that are long beside their prefix: a copy of it a row costs little, a matrix of all weights would cost much."""
    keys, values = (torch.cat([seen.expand(len(q), -1, -1, -1), own], 1).transpose(1, 2) for seen, own in ((seen_k, k), (seen_v, v)))
    grouped = q.shape[2] != k.shape[2]
    if grouped and q.device.type != "cpu":  # CUDA's fused kernels take no mask beside grouped heads, and those of older MPS end the process
        keys, values = (one.repeat_interleave(q.shape[2] // k.shape[2], dim=1) for one in (keys, values))
        grouped = False
    mixed = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), keys, values, attn_mask=~hidden[:, None], scale=1.0, enable_gqa=grouped
    )
    return mixed.transpose(1, 2)


class _Weights(torch.autograd.Function):
    """Scores to attention weights in place, in the values' format: one float32 array of their size instead of four."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        weights = weights.div_(weights.sum(-1, keepdim=True)).to(dtype)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weights = ctx.saved_tensors[0].float()
        flow = gradients[0].float() * weights
        return flow.sub_(weights * flow.sum(-1, keepdim=True)), None, None

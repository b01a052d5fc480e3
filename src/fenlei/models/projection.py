"""A language model's output projection, for the positions and tokens that are asked for and no others.

Logits of a whole sequence over a vocabulary of 150,000 are most of the memory of training a small model. An answer needs them at a few
positions, and there it needs the logits of a few tokens and one number over the rest, the normaliser.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fenlei.errors import ModelError
from fenlei.text.batches import sent

CHUNK_LOGITS = 1 << 24
"""Logits held at once while normalising: 64 MB in float32."""


class Projection:
    """States to log-probabilities of tokens, as the model's own head gives them."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._head = cast(Any, network.get_output_embeddings())
        if self._head is None:
            raise ModelError(f"{type(network).__name__} has no output projection over its vocabulary; use --method head")
        config = network.config.get_text_config()
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)
        self._scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)

    def log_probabilities(self, states: torch.Tensor, places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Log p of `tokens` (steps,), which are on the CPU, after the states at `places` (steps,) of `states` (positions, hidden): float32
        (steps,).

        The tokens' own logits are computed in float32: differences between labels must not be rounded as bfloat16 logits are, in steps of
        an eighth. The normaliser, which the labels after one state share, is summed in float32 over logits in the states' format.
        """
        known, which = (sent(one, states.device) for one in torch.unique(tokens, return_inverse=True))
        with torch.autocast(states.device.type, enabled=False):
            bias = None if self._head.bias is None else self._head.bias[known].float()
            logits = self._shape(torch.nn.functional.linear(states.float(), self._head.weight[known].float(), bias))
        return logits[places, which] - self._normaliser(states)[places]

    def _normaliser(self, states: torch.Tensor) -> torch.Tensor:
        """Log of the sum over the vocabulary, float32 (positions,); recomputed in the backward pass rather than kept."""
        rows = max(1, CHUNK_LOGITS // self._head.weight.shape[0])
        if not torch.is_grad_enabled():
            return torch.cat([self._of_chunk(part) for part in states.split(rows)])
        return torch.cat(
            [
                cast(torch.Tensor, checkpoint(self._of_chunk, part, use_reentrant=False, preserve_rng_state=False))
                for part in states.split(rows)
            ]
        )

    def _of_chunk(self, states: torch.Tensor) -> torch.Tensor:
        states = states if torch.is_autocast_enabled(states.device.type) else states.to(self._head.weight.dtype)
        logits = torch.nn.functional.linear(states, self._head.weight, self._head.bias)
        return self._shape(logits.float()).logsumexp(-1)

    def _shape(self, logits: torch.Tensor) -> torch.Tensor:
        """What some models do to their logits: Cohere and Granite scale them, Gemma 2 bends them."""
        logits = logits if self._scale == 1.0 else logits * self._scale
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

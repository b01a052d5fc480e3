"""What training makes small: sums over rows, of logits (rows, labels) and the label ids (rows,)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fenlei.config import RunConfig

Loss = Callable[[torch.Tensor, Any], torch.Tensor]
"""Of logits and what is known of their rows: label ids, or what a teacher says too (training/lessons.py)."""


def choose_loss(config: RunConfig) -> Loss:
    """The loss that a configuration asks for."""
    if config.model.objective == "tokens":
        return answer_loss
    return partial(label_loss, smoothing=config.optimization.label_smoothing)


def label_loss(logits: torch.Tensor, gold: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy over the label set, or over a row's candidates where others are -inf: what prediction is measured by.

    For the generate method the logits are log p(label | prompt, text): the labels compete with each other, not with the vocabulary.
    """
    if not smoothing:
        return torch.nn.functional.cross_entropy(logits, gold, reduction="sum")
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    possible = ~logits.isneginf()
    spread = log_p.masked_fill(~possible, 0.0).sum(dim=1) / possible.sum(dim=1)
    return -((1 - smoothing) * _of_gold(log_p, gold) + smoothing * spread).sum()


def answer_loss(logits: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """-log p of the whole answer, its end included, over the vocabulary: instruction tuning as usual. `logits` are such log p."""
    return -_of_gold(logits, gold).sum()


def _of_gold(scores: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    return scores.gather(1, gold[:, None])[:, 0]

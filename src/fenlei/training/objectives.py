"""What training makes small: sums over rows, of logits (rows, labels) and the label ids (rows,), or multi-label bool (rows, labels)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from fenlei.config import RunConfig
from fenlei.training.imbalance import Cure, cure_of

NO_CURE = Cure()

Loss = Callable[[torch.Tensor, Any], torch.Tensor]
"""Of logits and what is known of their rows: label ids, or what a teacher says too (training/lessons.py)."""


def choose_loss(config: RunConfig, counts: np.ndarray, *, multi_label: bool = False) -> Loss:
    """The loss that a configuration asks for, given the training rows of each label, int64 (labels,)."""
    if multi_label:
        return partial(labels_loss, smoothing=config.optimization.label_smoothing)
    cure = cure_of(config.optimization.imbalance, counts)
    if config.model.objective == "tokens":
        return partial(answer_loss, cure=cure)
    return partial(label_loss, smoothing=config.optimization.label_smoothing, cure=cure)


def label_loss(logits: torch.Tensor, gold: torch.Tensor, smoothing: float = 0.0, cure: Cure = NO_CURE) -> torch.Tensor:
    """Cross-entropy over the label set, or over a row's candidates where others are -inf: what prediction is measured by.

    For the generate method the logits are log p(label | prompt, text): the labels compete with each other, not with the vocabulary.
    """
    if cure.log_prior is not None:
        logits = logits + cure.log_prior.to(logits)
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    of_gold = _of_gold(log_p, gold)
    losses = -of_gold
    if smoothing:
        possible = ~logits.isneginf()
        spread = log_p.masked_fill(~possible, 0.0).sum(dim=1) / possible.sum(dim=1)
        losses = -((1 - smoothing) * of_gold + smoothing * spread)
    if cure.focus:
        losses = losses * (1 - of_gold.exp()).clamp(min=0) ** cure.focus
    return _weighed(losses, gold, cure).sum()


def labels_loss(logits: torch.Tensor, gold: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Multi-label: binary cross-entropy of each label, summed over labels; gold is bool (rows, labels), -inf marks what is no candidate."""
    target = gold.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    possible = ~logits.isneginf()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits.masked_fill(~possible, 0.0), target, reduction="none")
    return losses.masked_fill(~possible, 0.0).sum()


def answer_loss(logits: torch.Tensor, gold: torch.Tensor, cure: Cure = NO_CURE) -> torch.Tensor:
    """-log p of the whole answer, its end included, over the vocabulary: instruction tuning as usual. `logits` are such log p."""
    return _weighed(-_of_gold(logits, gold), gold, cure).sum()


def _weighed(losses: torch.Tensor, gold: torch.Tensor, cure: Cure) -> torch.Tensor:
    return losses if cure.weights is None else losses * cure.weights.to(losses)[gold]


def _of_gold(scores: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    return scores.gather(1, gold[:, None])[:, 0]

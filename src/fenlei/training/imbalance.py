"""Uneven classes: what keeps a class of few rows from being drowned by those of many.

Rows are weighed, drawn, or scored otherwise in training; the answer is the largest logit as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fenlei.audit.profile import IMBALANCE
from fenlei.config import Imbalance, RunConfig
from fenlei.errors import ConfigError

BETA = 0.999
"""Of the effective number: a class has about 1 / (1 - BETA) rows before more add little."""
FOCUS = 2.0
"""The exponent of the focal loss, as in its paper."""


@dataclass(frozen=True)
class Cure:
    """What is done to the loss of a row, by its class."""

    weights: torch.Tensor | None = None
    """float32 (labels,): what a row of each class counts, 1 on average over the training rows."""
    log_prior: torch.Tensor | None = None
    """float32 (labels,): added to the logits in training alone."""
    focus: float = 0.0
    """The exponent with which rows that are sure already count less."""


def class_counts(gold: np.ndarray, labels: int) -> np.ndarray:
    """Rows of each label, int64 (labels,), of label ids (rows,); multi-label: rows that carry it, of bool (rows, labels)."""
    counts: np.ndarray = np.bincount(gold, minlength=labels) if gold.ndim == 1 else gold.sum(axis=0, dtype=np.int64)
    return counts


def check_imbalance(config: RunConfig, *, multi_label: bool) -> None:
    """ConfigError where nothing is learned, or rows have several labels: one counts for all of its own, so that no class can be evened out
    by itself.
    """
    kind = config.optimization.imbalance
    if multi_label and kind != "none":
        raise ConfigError(f"imbalance {kind!r} is for one label a row; with several, each label has a threshold of its own, fitted on dev")
    if config.model.tuning == "none" and kind != "none":
        raise ConfigError(f"imbalance {kind!r} changes what is learned, and with tuning 'none' nothing is; leave it out")


def cure_of(kind: Imbalance, counts: np.ndarray) -> Cure:
    """For training rows of each class, int64 (labels,).

    balanced: inverse to the rows of a class. effective-number: to their effective number, (1 - BETA^n) / (1 - BETA) (Cui et al. 2019,
    "Class-balanced loss based on effective number of samples"). focal: (1 - p)^FOCUS (Lin et al. 2017, "Focal loss for dense object
    detection"). logit-adjustment: each class must win by its log prior (Menon et al. 2021, "Long-tail learning via logit adjustment").
    """
    rows = np.maximum(counts, 1).astype(np.float64)
    if kind == "balanced":
        return Cure(weights=_even_on_average(1 / rows, counts))
    if kind == "effective-number":
        return Cure(weights=_even_on_average((1 - BETA) / (1 - BETA**rows), counts))
    if kind == "logit-adjustment":
        return Cure(log_prior=torch.from_numpy(np.log(rows / rows.sum())).float())
    return Cure(focus=FOCUS if kind == "focal" else 0.0)


def row_shares(kind: Imbalance, label_ids: np.ndarray) -> np.ndarray | None:
    """How often each row is to be drawn, float64 (rows,), 1 together, so that classes come alike; None where every row is drawn once."""
    if kind != "balanced-sampling":
        return None
    counts = np.bincount(label_ids)
    shares: np.ndarray = 1 / counts[label_ids] / np.count_nonzero(counts)
    return shares


def proposal(config: RunConfig, counts: np.ndarray, *, multi_label: bool = False) -> str | None:
    """A line that proposes a cure, where the classes are uneven and none was asked for."""
    present = counts[counts > 0]
    if multi_label or config.optimization.imbalance != "none" or config.model.tuning == "none" or present.max() < IMBALANCE * present.min():
        return None
    cure = "balanced-sampling" if config.model.objective == "tokens" else "logit-adjustment"
    return (
        f"uneven classes: the largest has {present.max():,} training rows, the smallest {present.min():,}; --imbalance {cure} is proposed, "
        "which is fairer to small classes (macro F1) and may cost large ones a little (accuracy)"
    )


def _even_on_average(weights: np.ndarray, counts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()

"""How a run's network learns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Imbalance = Literal["none", "balanced", "effective-number", "focal", "logit-adjustment", "balanced-sampling"]
Device = Literal["auto", "cpu", "cuda", "mps", "npu"]

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b?", re.IGNORECASE)


def bytes_of(size: str) -> int | None:
    """`6GB` (10^9 each), `6GiB` (2^30 each) and the like in bytes; None for what is no size above 0."""
    match = SIZE.fullmatch(size.strip())
    if match is None:
        return None
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** (1 + "kmgt".index(unit.lower()))) or None


@dataclass(frozen=True)
class OptimizationConfig:
    """How the network learns."""

    epochs: float | None = None
    """None: 3 for lora and full, 10 for frozen; more for few rows (see training/defaults.py)."""
    max_steps: int | None = None
    """Optimiser steps; overrides epochs."""
    learning_rate: float | None = None
    """None: by tuning and model size (see training/defaults.py)."""
    batch_size: int | None = None
    """Rows an optimiser step (the loss is their mean). None: 32; fewer for adapters on few rows, 128 for a small model with many."""
    batch_tokens: int | None = None
    """Tokens that go through the network at once; only memory and speed depend on it. None: 4096; on a GPU what its memory holds, up to
    16,384 (see training/memory.py)."""
    memory: str | None = None
    """What training may take at its peak, as 6GB or 800MB: fewer batch_tokens are chosen to fit, and gradient_checkpointing if need be."""
    int8: bool = False
    """Tuning lora and frozen: the weights that do not learn multiply in 8-bit integers, on x86 CPUs."""
    warmup_ratio: float = 0.06
    """Share of the steps in which the learning rate rises to its peak; then it falls as a cosine."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    label_smoothing: float = 0.0
    """Share of each label that is given to all classes."""
    imbalance: Imbalance = "none"
    """What is done for classes of few rows: rows weighed (`balanced`, `effective-number`), sure ones discounted (`focal`), each class made
    to win by its log prior (`logit-adjustment`), or rows drawn so that classes come alike (`balanced-sampling`); training/imbalance.py."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass in place of keeping them: less memory, more time."""
    evals_per_epoch: int = 1
    """How often an epoch the dev rows that select are measured, and a checkpoint is written."""
    early_stopping_patience: int | None = None
    """Evaluations without a better macro F1 on the selecting rows before training ends. None: never."""
    seed: int = 42
    """Of split, order of rows, new weights and dropout: two runs with one seed are equal."""
    device: Device = "auto"
    """Where to compute; `auto`: on a GPU or another accelerator where there is one, else on the CPU."""
    report_to: str = "none"
    """Experiment trackers joined by commas: tensorboard, wandb, swanlab, mlflow, ..."""
    baseline: bool = True
    """Fit the TF-IDF baseline on the same rows and show it beside the model."""

    def problems(self) -> list[str]:
        found = []
        for name in ("epochs", "max_steps", "learning_rate", "batch_size", "batch_tokens", "evals_per_epoch", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"{name} must be above 0, was {value}")
        if self.memory is not None and bytes_of(self.memory) is None:
            found.append(f"memory must be a size such as 6GB or 800MB, was {self.memory!r}")
        if self.max_grad_norm < 0:
            found.append(f"max_grad_norm must be at least 0, was {self.max_grad_norm}")
        if not 0 <= self.seed < 2**32:  # what NumPy and scikit-learn take
            found.append(f"seed must be at least 0 and below {2**32}, was {self.seed}")
        for name in ("warmup_ratio", "weight_decay", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                found.append(f"{name} must be at least 0 and below 1, was {value}")
        return found

"""What a network learns from besides labels: a teacher's scores. Hinton et al., Distilling the Knowledge in a Neural Network (2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fenlei.data.examples import Example
from fenlei.text.batches import sent
from fenlei.training.objectives import Loss

SOFTNESS = 2.0
"""The temperature at which teacher and student are compared: above 1, so that what the teacher thinks of the other labels counts."""
TEACHER_SHARE = 0.5
"""Of the loss of a row that has a label too; a row without one learns from the teacher alone."""


@dataclass(frozen=True, eq=False)
class Taught:
    """Rows with their labels and what a teacher says of them."""

    gold: torch.Tensor
    """Label ids, int64 (rows,); multi-label: bool (rows, labels). Anything where a row has no label."""
    labelled: torch.Tensor
    """bool (rows,)"""
    teacher: torch.Tensor
    """float32 (rows, taught): calibrated logits of the labels that the teacher knows, the first columns of the student's."""

    def __getitem__(self, rows: list[int]) -> Taught:
        return Taught(self.gold[rows], self.labelled[rows], self.teacher[rows])

    def to(self, device: torch.device) -> Taught:
        return Taught(sent(self.gold, device), sent(self.labelled, device), sent(self.teacher, device))


def taught(gold: torch.Tensor, teacher: torch.Tensor) -> Taught:
    """Rows whose first ones have labels, (labelled, ...), and of which a teacher says something each, (rows, taught)."""
    missing = len(teacher) - len(gold)
    labelled = torch.arange(len(teacher)) < len(gold)
    return Taught(torch.cat([gold, gold.new_zeros((missing, *gold.shape[1:]))]), labelled, teacher)


@dataclass(frozen=True, eq=False)
class Lessons:
    """What a training learns from."""

    targets: torch.Tensor | Taught
    """A row each for the labelled rows, then for `unlabelled`."""
    loss: Loss
    unlabelled: tuple[Example, ...] = ()
    exemplars: tuple[Example, ...] = ()
    """Rows that the run keeps as they are, since an older run chose them."""
    known: int | None = None
    """Of an extension: how many labels, the first ones, the older run had."""
    dev_is_natural: bool = True
    """Whether classes are in dev as often as they come."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What the run's manifest says of where it comes from."""


def taught_loss(labels_alone: Loss, *, multi_label: bool = False) -> Loss:
    """The loss of rows that are Taught: `labels_alone` on those with a label, and the divergence from the teacher."""
    diverges = label_divergence if multi_label else teacher_divergence

    def loss(logits: torch.Tensor, told: Taught) -> torch.Tensor:
        total = (diverges(logits, told.teacher) * torch.where(told.labelled, TEACHER_SHARE, 1.0)).sum()
        if told.labelled.any():
            total = total + (1 - TEACHER_SHARE) * labels_alone(logits[told.labelled], told.gold[told.labelled])
        return total

    return loss


def teacher_divergence(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """T^2 KL(teacher || student) of each row at T = SOFTNESS, float32 (rows,), over the labels that the teacher knows.

    The square keeps its gradient as large as that of the label loss, whatever T is. A label that is no candidate (-inf) counts nothing.
    """
    possible = ~(teacher.isneginf() | logits[:, : teacher.shape[1]].isneginf())
    says = _log_shares(teacher, possible)
    thinks = _log_shares(logits[:, : teacher.shape[1]], possible)
    return SOFTNESS**2 * (says.exp() * (says - thinks)).masked_fill(~possible, 0.0).sum(dim=1)


def label_divergence(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The same where each label is a question by itself: T^2 KL of yes and no, summed over labels, float32 (rows,)."""
    possible = ~(teacher.isneginf() | logits.isneginf())
    divergence = torch.zeros_like(logits)
    for sign in (1 / SOFTNESS, -1 / SOFTNESS):  # yes and no
        says, thinks = (torch.nn.functional.logsigmoid(sign * one.masked_fill(~possible, 0.0)) for one in (teacher, logits))
        divergence = divergence + says.exp() * (says - thinks)
    return SOFTNESS**2 * divergence.sum(dim=1)


def _log_shares(logits: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """Log p over the possible labels of each row, at the temperature SOFTNESS."""
    scores = (logits / SOFTNESS).masked_fill(~possible, -torch.inf)
    return (scores - scores.logsumexp(dim=1, keepdim=True)).masked_fill(~possible, 0.0)

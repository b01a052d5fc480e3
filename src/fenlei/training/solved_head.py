"""Where a linear head over a frozen decoder begins: where ridge regression ends.

The states of a decoder's last token share one large direction (with Qwen2.5-0.5B nine tenths of their length), and their dimensions differ
much in size. From random weights gradient steps that are right for one are too large for another; the solution has no such trouble, needs a
second, and is a good head by itself where rows are few (docs/results.md). Gradient steps go on from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from fenlei.config import Imbalance, RunConfig
from fenlei.labels import LabelSet
from fenlei.models.backbone import classifier_labels, has_score
from fenlei.models.configuration import load_config
from fenlei.models.head import HeadMethod
from fenlei.text.encoded import EncodedTexts
from fenlei.training.vectors import joined_states

MOST_ROWS = 20_000
"""Are enough to begin from, and fit into memory; gradient steps see all."""
PENALTIES = np.logspace(1, 4, 7)
"""Of ridge regression over states of variance 1; the one with the least error on rows left out is taken."""
SHARPNESS = 10.0
"""Logits between a row surely of a class and one surely not: of 5, 10 and 20 the one with the least log-loss on rows left out."""
LEAST_SHARE = 1e-3
"""Of a class in the rows: the logarithm of none has no end."""


def has_solution(config: RunConfig, base: Path, labels: LabelSet, head: nn.Module | None = None) -> bool:
    """Whether the head is a new linear one over a frozen decoder. `head`: the user's own."""
    learns_alone = config.model.tuning == "frozen" and config.model.method == "head"
    linear = config.model.head == "linear" and head is None
    return learns_alone and linear and has_score(base) and classifier_labels(load_config(base)) != labels.names


def begin_solved(method: HeadMethod, vectors: np.ndarray, encoded: EncodedTexts, gold: np.ndarray, imbalance: Imbalance) -> None:
    """Gives the head of `method` the weights that tell the labels of its training rows apart by ridge regression.

    `vectors`: what the frozen backbone has said of `encoded`; `gold`: label ids of its first rows, int64 (rows,), or multi-label bool
    (rows, labels).
    """
    head = cast(nn.Linear, method.stock.score)
    rows = np.unique(np.linspace(0, len(gold) - 1, min(MOST_ROWS, len(gold))).astype(np.int64))
    targets = np.eye(head.out_features, dtype=bool)[gold[rows]] if gold.ndim == 1 else gold[rows]
    evenly = imbalance not in ("none", "focal")  # the other cures have the classes taken alike, which is what theirs ends at
    weights = compute_sample_weight("balanced", gold[rows]) if evenly else np.ones(len(rows))
    states = joined_states(method, vectors, encoded, rows)
    told = np.isfinite(states).all(axis=1)  # of the others training tells, a row at a time
    if not told.any():
        return
    weight = solved_weight(states[told], targets[told], weights[told])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        if head.bias is not None:
            head.bias.zero_()


def solved_weight(states: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 (labels, hidden) whose products with states are logits, of float32 (rows, hidden), bool (rows, labels) and what a row counts.

    Without a bias, which few decoders' heads have: what all states share does its work.
    """
    size = states.std(axis=0, dtype=np.float64)
    size[size == 0] = 1.0
    share = np.average(targets, axis=0, weights=weights)
    logits = SHARPNESS * (targets - share) + np.log(np.maximum(share, LEAST_SHARE))
    ridge = RidgeCV(alphas=PENALTIES, fit_intercept=False).fit(states / size, logits, sample_weight=weights)
    found: np.ndarray = np.atleast_2d(ridge.coef_) / size
    return found

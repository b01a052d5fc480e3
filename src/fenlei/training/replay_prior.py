"""How often classes come in an extension, beside how often they would if all rows were trained on again.

New classes come with all their rows, known ones with the few that are replayed. A network that learns from these as they are takes new
classes to be as frequent as that, and answers with them where it is in doubt; logits that are adjusted in the loss leave the network what
holds for all rows (Menon et al. 2021, "Long-tail learning via logit adjustment", between two known priors).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fenlei.data.examples import Example
from fenlei.labels import LabelSet
from fenlei.training.objectives import Loss


def classes_before(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Training rows of each label of a run, without those replayed; nothing where an older fenlei did not write them down, or the labels
    have been changed since.
    """
    if "relabelled_from" in manifest:
        return {}
    earlier = manifest.get("extended_from")
    classes: dict[str, int] = earlier.get("all_classes", {}) if earlier else manifest["data"].get("classes", {})
    return classes


def counts_of_all(counts: np.ndarray, known: LabelSet, replay: Sequence[Example], rows: int, learned: Mapping[str, int]) -> np.ndarray:
    """Rows of each label if all were trained on, int64 (labels,).

    `counts` are those trained on now, int64 (labels,), the known ones first; of known ones the run learned from `rows`: as many of each as
    `learned` says, or, where it does not name them all, in the proportions of what there is to replay.
    """
    if not all(name in learned for name in known):
        there = Counter(str(row.label) for row in replay)
        share = rows / max(1, sum(there.values()))
        learned = {name: round(share * there[name]) for name in known}
    of_known = [max(learned[name], int(count)) for name, count in zip(known, counts[: len(known)], strict=True)]
    return np.concatenate([np.array(of_known, dtype=np.int64), counts[len(known) :]])


def prior_of_replay(counts: np.ndarray, of_all: np.ndarray) -> torch.Tensor:
    """What the logit of each label gains in training, float32 (labels,): log of its rows now over those of all, 0 where there are none."""
    there = (counts > 0) & (of_all > 0)
    return torch.from_numpy(np.where(there, np.log(np.maximum(counts, 1) / np.maximum(of_all, 1)), 0.0).astype(np.float32))


def under_prior(loss: Loss, prior: torch.Tensor) -> Loss:
    """`loss` of logits (rows, labels) that have gained `prior`."""
    return lambda logits, gold: loss(logits + prior.to(logits), gold)

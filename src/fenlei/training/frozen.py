"""What a run over a frozen backbone learns from: states that are kept, and a head that begins at their solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import numpy as np

from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod
from fenlei.text.encoded import EncodedTexts
from fenlei.training.setup import Setup
from fenlei.training.solved_head import begin_solved
from fenlei.training.vectors import cached_vectors, can_be_kept

RUN_AGAIN_NOTE = "frozen: the head of this encoder reads more than the first token's state, so the backbone is run in every epoch"


def states_are_kept(method: HeadMethod | GenerateMethod, setup: Setup, encoded: EncodedTexts) -> TypeGuard[HeadMethod]:
    """Whether the backbone reads every row once, however many epochs there are; `method` is that of the run, or the run loaded back."""
    return setup.config.model.tuning == "frozen" and isinstance(method, HeadMethod) and can_be_kept(method, encoded)


def kept_states(setup: Setup, encoded: EncodedTexts) -> np.ndarray | None:
    """What a frozen backbone says of every row, or window of one; None where it learns, or its head reads more than can be kept."""
    return cached_vectors(setup.method, setup.base, encoded) if states_are_kept(setup.method, setup, encoded) else None


def states_to_learn_from(setup: Setup, tell: Callable[[str], None], *, anew: bool) -> np.ndarray | None:
    """The same of the training rows. `anew`: the training does not go on from a checkpoint, and a head that they solve begins there."""
    states = kept_states(setup, setup.train)
    if states is None and setup.config.model.tuning == "frozen":
        tell(RUN_AGAIN_NOTE)
    if states is not None and setup.solved and anew and isinstance(setup.method, HeadMethod):
        begin_solved(setup.method, states, setup.train, setup.label_ids, setup.config.optimization.imbalance)
    return states

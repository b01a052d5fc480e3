"""What a run said of rows before it was extended: it is learned from, and compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fenlei.data.examples import Example
from fenlei.evaluation.calibration import Calibration
from fenlei.inference.scoring import Scores, score
from fenlei.labels import LabelSet
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.training.setup import Setup


def former_answers(
    setup: Setup, answered: Calibration, known: LabelSet, rows: Sequence[Example], encoded: EncodedTexts | None = None
) -> Scores:
    """What the run says of rows, over the labels it knows: the new rows of its head play no part.

    Logits are as it answers with them, in the network's own unit: what it was extended by before may have been taken back a little.
    """
    scores = _scores(setup, known, rows, encoded)
    return replace(scores, logits=(answered.apply(scores.logits) * answered.temperature).astype(np.float32))


def _scores(setup: Setup, known: LabelSet, rows: Sequence[Example], encoded: EncodedTexts | None) -> Scores:
    setup.method.eval()
    if isinstance(setup.encoder, QuestionEncoder):
        asked = setup.encoder.with_labels(known).encode([row.input for row in rows])
        return score(setup.method, asked, len(known), autocast=_autocast(setup))
    asked = setup.encoder.encode([row.input for row in rows]) if encoded is None else encoded
    said = score(setup.method, asked, len(setup.dataset.labels), autocast=_autocast(setup), keep_states=True)
    return replace(said, logits=np.ascontiguousarray(said.logits[:, : len(known)]))


def _autocast(setup: Setup) -> torch.dtype | None:
    return setup.autocast if setup.precision.weights != torch.float32 else None

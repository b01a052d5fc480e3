"""What a run said of rows before it was extended: it is learned from, and compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from fenlei.data.examples import Example
from fenlei.evaluation.calibration import Calibration
from fenlei.inference.scoring import Scores, score
from fenlei.labels import LabelSet
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.training.setup import Setup


def former_answers(
    setup: Setup, answered: Calibration, known: LabelSet, rows: Sequence[Example], encoded: EncodedTexts | None = None
) -> Scores:
    """What the run says of rows, over the labels it knows: the new rows of its head play no part.

    A row that offers candidates is asked among those that the run knows, as it will be asked among all of them; other labels have -inf.
    Logits are as it answers with them, in the network's own unit: what it was extended by before may have been taken back a little.
    """
    scores = _scores(setup, known, rows, encoded)
    return replace(scores, logits=(answered.apply(scores.logits) * answered.temperature).astype(np.float32))


@contextmanager
def as_it_learns(method: HeadMethod | GenerateMethod) -> Iterator[None]:
    """Within, what labels score on an empty text is left on, as in training: else the run would learn to take it off, and do so twice."""
    if not isinstance(method, GenerateMethod):
        yield
        return
    corrects, method.correct_prior = method.correct_prior, False
    try:
        yield
    finally:
        method.correct_prior = corrects


def _scores(setup: Setup, known: LabelSet, rows: Sequence[Example], encoded: EncodedTexts | None) -> Scores:
    setup.method.eval()
    if isinstance(setup.encoder, QuestionEncoder):
        asked = setup.encoder.with_labels(known).encode([row.input for row in rows], [_offered(row, known) for row in rows])
        return score(setup.method, asked, len(known), autocast=setup.scoring_autocast)
    asked = setup.encoder.encode([row.input for row in rows]) if encoded is None else encoded
    said = score(setup.method, asked, len(setup.dataset.labels), autocast=setup.scoring_autocast, keep_states=True)
    return replace(said, logits=np.ascontiguousarray(said.logits[:, : len(known)]))


def _offered(row: Example, known: LabelSet) -> tuple[str, ...] | None:
    """The known labels among a row's candidates; None where it offers none: all."""
    if row.candidates is None:
        return None
    # Where all are new, any one will do: what is said of the row is neither learned from nor compared with, and to ask among all known
    # labels might leave no room for the text.
    return tuple(name for name in row.candidates if name in known) or known.names[:1]

"""The trained classifier as a Python object: texts in, labels with calibrated confidence out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fenlei.config import Device
from fenlei.errors import RequestError
from fenlei.evaluation.calibration import probabilities
from fenlei.inference.loading import LoadedRun, load_run
from fenlei.inference.prediction import Prediction
from fenlei.inference.scoring import Scores, score
from fenlei.inference.zero_shot import load_zero_shot
from fenlei.labels import LabelSet
from fenlei.text.asking import QuestionEncoder, check_candidates
from fenlei.text.prompts import TextEncoder

KEPT_LABEL_SETS = 8


Labels = Sequence[str] | Sequence[Sequence[str] | None]
"""Labels to choose among: the same for all texts, or for each text its own (None: those of the run)."""


@dataclass(frozen=True)
class _Asked:
    """What a request comes to."""

    encoder: TextEncoder | QuestionEncoder
    names: tuple[str, ...]
    """The columns of the answer: the union of all candidates."""
    candidates: list[tuple[str, ...]] | None
    holds: np.ndarray
    """bool (rows,): whether what was fitted on the run's label set holds for a row."""


class Classifier:
    """A run, loaded. Its answers for a text do not depend on the texts beside it.

    A run of the generate method can be asked among other labels than its own (`labels=`); such answers are not calibrated.
    """

    def __init__(self, run: LoadedRun) -> None:
        self._run = run
        self._encoders: dict[tuple[str, ...], QuestionEncoder] = {}

    @classmethod
    def load(cls, run: str | Path, *, device: Device = "auto", head: nn.Module | None = None) -> Classifier:
        """From a folder that `train` wrote. ArtifactError where it is incomplete, ModelError where its base model is not to be found."""
        return cls(load_run(run, device=device, head=head))

    @classmethod
    def zero_shot(cls, model: str, labels: Sequence[str] | Path, **options: Any) -> Classifier:
        """A language model asked among `labels` (or those of a file, with descriptions), without training.

        `options`: prompt, examples as (text, label), prior_correction, max_length, revision, source, device. ConfigError where labels or
        prompt do not fit the model, ModelError where it is no language model.
        """
        return cls(load_zero_shot(model, labels, **options))

    @property
    def labels(self) -> tuple[str, ...]:
        return self._run.labels.names

    @property
    def temperature(self) -> float:
        return float(self._run.manifest["temperature"])

    @property
    def device(self) -> torch.device:
        return self._run.method.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the network's weights."""
        return next(self._run.method.parameters()).dtype

    def describe(self) -> dict[str, Any]:
        """The run's manifest (labels, method, base model, versions, ...)."""
        return dict(self._run.manifest)

    @property
    def takes_labels(self) -> bool:
        """Whether it can be asked among other labels than its own."""
        return isinstance(self._run.encoder, QuestionEncoder)

    def logits(self, texts: Sequence[str], *, labels: Labels | None = None, progress: Callable[[int], None] | None = None) -> Scores:
        """Uncalibrated scores of every text, float32 (rows, labels). RequestError for a lone string or anything that is no text.

        `labels` asks among others than the run's: columns are those labels (each text its own: all of them in order of appearance), -inf
        where a label is no candidate for a text. RequestError where the run answers with a head, or a text has no candidates.
        """
        _check_texts(texts)
        return self._score(texts, self._asked(labels, len(texts)), progress)

    def predict_proba(self, texts: Sequence[str], *, labels: Labels | None = None) -> np.ndarray:
        """float32 (rows, labels), columns in the order of `labels`, else of the run's."""
        _check_texts(texts)
        asked = self._asked(labels, len(texts))
        return self._probabilities(self._score(texts, asked), asked)

    def predict(self, texts: Sequence[str], *, labels: Labels | None = None) -> list[Prediction]:
        """The answer for each text, among the run's labels or those given; see `logits`."""
        _check_texts(texts)
        asked = self._asked(labels, len(texts))
        scores = self._score(texts, asked)
        calibrated = bool(self._run.manifest.get("calibrated"))
        answers = []
        for row, values in enumerate(self._probabilities(scores, asked)):
            best = int(values.argmax())
            possible = ~np.isneginf(scores.logits[row])
            named = {name: float(p) for name, p, there in zip(asked.names, values, possible, strict=True) if there}
            holds, cut = calibrated and bool(asked.holds[row]), int(scores.tokens_cut[row])
            read = int(scores.tokens_read[row])
            answers.append(Prediction(asked.names[best], float(values[best]), named, holds, cut, read))
        return answers

    def _score(self, texts: Sequence[str], asked: _Asked, progress: Callable[[int], None] | None = None) -> Scores:
        if isinstance(asked.encoder, QuestionEncoder):
            encoded = asked.encoder.encode(texts, asked.candidates)
        else:
            encoded = asked.encoder.encode(texts)
        return score(self._run.method, encoded, len(asked.names), progress=progress)

    def _probabilities(self, scores: Scores, asked: _Asked) -> np.ndarray:
        fitted = probabilities(scores.logits, self.temperature)
        return fitted if asked.holds.all() else np.where(asked.holds[:, None], fitted, probabilities(scores.logits))

    def _asked(self, labels: Labels | None, rows: int) -> _Asked:
        own, encoder = self.labels, self._run.encoder
        if labels is None:
            return _Asked(encoder, own, None, np.ones(rows, dtype=bool))
        if not isinstance(encoder, QuestionEncoder):
            raise RequestError(
                f"this run answers with a head that knows its {len(own)} labels and no other, so labels cannot be given with a request; "
                "use a run of --method generate, or a model's name with labels (zero-shot)"
            )
        given = [own if one is None else one for one in _each_text(labels, rows)]
        names = tuple(dict.fromkeys(name for one in given for name in one)) or own
        if names not in self._encoders:
            if len(self._encoders) >= KEPT_LABEL_SETS:
                self._encoders.pop(next(iter(self._encoders)))
            self._encoders[names] = encoder.with_labels(LabelSet(names))
        # The temperature was fitted on the run's whole label set, or, where its rows brought candidates of their own, on such.
        known = set(own) if self._run.manifest.get("row_candidates") else set()
        holds = np.array([one == own or known.issuperset(one) for one in given], dtype=bool)
        return _Asked(self._encoders[names], names, given, holds)


def _each_text(labels: Labels, rows: int) -> list[tuple[str, ...] | None]:
    """The candidates of each text; RequestError where they are none, or not as many lists as texts."""
    if isinstance(labels, str) or all(isinstance(one, str) for one in labels):
        check_candidates(cast("Sequence[str]", labels), "labels")
        return [tuple(cast("Sequence[str]", labels))] * rows
    if len(labels) != rows:
        raise RequestError(f"labels: expected one list of labels for each of {rows} texts, found {len(labels)}")
    for at, one in enumerate(labels):
        if one is not None:
            check_candidates(one, f"labels of text {at}")
    return [None if one is None else tuple(one) for one in labels]


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise RequestError("expected a list of texts, found one string; write [text]")
    wrong = next((at for at, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise RequestError(f"text {wrong} is {type(texts[wrong]).__name__} {texts[wrong]!r}, expected a string")
    broken = next((at for at, text in enumerate(texts) if not _is_unicode(text)), None)
    if broken is not None:
        raise RequestError(f"text {broken} {texts[broken]!r} is no valid Unicode (a lone surrogate); decode it with the right encoding")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

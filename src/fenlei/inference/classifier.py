"""The trained classifier as a Python object: texts in, labels with calibrated confidence out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fenlei.config import Device
from fenlei.errors import RequestError
from fenlei.evaluation.calibration import probabilities
from fenlei.inference.loading import LoadedRun, load_run
from fenlei.inference.scoring import Scores, score


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    confidence: float
    """Probability of `label`, between 0 and 1."""
    probabilities: Mapping[str, float]
    """Of every label, in label order; they sum to 1."""
    calibrated: bool
    """Whether the probabilities were fitted to held-out rows."""
    tokens_cut: int
    """Tokens of the text that did not fit the length limit and were not read."""


class Classifier:
    """A run, loaded. Its answers for a text do not depend on the texts beside it."""

    def __init__(self, run: LoadedRun) -> None:
        self._run = run

    @classmethod
    def load(cls, run: str | Path, *, device: Device = "auto", head: nn.Module | None = None, int8: bool = False) -> Classifier:
        """From a folder that `train` wrote. `int8`: faster on CPUs with VNNI, and slightly less exact (see models/quantized.py).

        ArtifactError where the folder is incomplete, ModelError where its base model is not to be found, ConfigError for `int8` on a
        machine that has no fast 8-bit products.
        """
        return cls(load_run(run, device=device, head=head, int8=int8))

    @property
    def labels(self) -> tuple[str, ...]:
        return self._run.labels.names

    @property
    def temperature(self) -> float:
        return float(self._run.manifest["temperature"])

    def describe(self) -> dict[str, Any]:
        """The run's manifest (labels, method, base model, versions, ...)."""
        return dict(self._run.manifest)

    def logits(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Scores:
        """Uncalibrated scores of every text, float32 (rows, labels). RequestError for a lone string or anything that is no text."""
        if isinstance(texts, str):
            raise RequestError("expected a list of texts, found one string; write [text]")
        wrong = next((at for at, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise RequestError(f"text {wrong} is {type(texts[wrong]).__name__} {texts[wrong]!r}, expected a string")
        broken = next((at for at, text in enumerate(texts) if not _is_unicode(text)), None)
        if broken is not None:
            raise RequestError(f"text {broken} {texts[broken]!r} is no valid Unicode (a lone surrogate); decode it with the right encoding")
        return score(self._run.method, self._run.encoder.encode(texts), len(self.labels), progress=progress)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (rows, labels), columns in the order of `labels`."""
        return probabilities(self.logits(texts).logits, self.temperature)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        scores = self.logits(texts)
        calibrated = bool(self._run.manifest.get("calibrated"))
        answers = []
        for row, cut in zip(probabilities(scores.logits, self.temperature), scores.tokens_cut, strict=True):
            best = int(row.argmax())
            named = dict(zip(self.labels, row.tolist(), strict=True))
            answers.append(Prediction(self.labels[best], float(row[best]), named, calibrated, int(cut)))
        return answers


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

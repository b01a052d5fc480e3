"""The trained classifier as a Python object: texts in, labels with calibrated confidence out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fenlei.artifact import read_manifest
from fenlei.config import Device, TrustConfig
from fenlei.errors import RequestError
from fenlei.inference.loading import LoadedRun, load_run_from
from fenlei.inference.scoring import Scores, score
from fenlei.inference.trust import Trust, load_trust


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
    prediction_set: tuple[str, ...] | None = None
    """The labels that cannot be excluded, the likeliest first; None where no sets were asked for."""
    abstained: bool | None = None
    """Whether the confidence is below what answers need; None where no threshold was asked for."""
    novelty: float | None = None
    """The share of known rows that are less strange, 0 to 1; None where the run does not measure it."""


class Classifier:
    """A run, loaded. Its answers for a text do not depend on the texts beside it."""

    def __init__(self, run: LoadedRun, trust: Trust) -> None:
        self._run = run
        self.trust = trust

    @classmethod
    def load(
        cls, run: str | Path, *, device: Device = "auto", head: nn.Module | None = None, trust: TrustConfig | None = None
    ) -> Classifier:
        """From a folder that `train` wrote; what `trust` names takes the place of the run's own threshold and sets.

        ArtifactError where it is incomplete, ModelError where its base model is not to be found, DataError where its calibrating rows
        cannot promise what is asked.
        """
        manifest = read_manifest(run)
        asked = load_trust(Path(run), manifest, trust)  # first: it takes no time, and loading a network may take minutes
        return cls(load_run_from(Path(run), manifest, device=device, head=head), asked)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._run.labels.names

    @property
    def temperature(self) -> float:
        return self.trust.calibration.temperature

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
        encoded = self._run.encoder.encode(texts)
        return score(self._run.method, encoded, len(self.labels), keep_states=self.trust.needs_states, progress=progress)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (rows, labels), columns in the order of `labels`."""
        return self.trust.calibration.probabilities(self.logits(texts).logits)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        return self.answer(self.logits(texts))

    def answer(self, scores: Scores) -> list[Prediction]:
        """What is said on scores that `logits` gave."""
        trust = self.trust
        rows = trust.calibration.probabilities(scores.logits)
        sets = trust.sets.sets(rows) if trust.sets else None
        abstained = trust.abstention.abstains(rows) if trust.abstention else None
        novelty = trust.novelty.ranks(scores) if trust.novelty else None
        return [
            Prediction(
                label=self.labels[int(row.argmax())],
                confidence=float(row.max()),
                probabilities=dict(zip(self.labels, row.tolist(), strict=True)),
                calibrated=trust.calibrated,
                tokens_cut=int(scores.tokens_cut[at]),
                prediction_set=None if sets is None else self._named(row, sets[at]),
                abstained=None if abstained is None else bool(abstained[at]),
                novelty=None if novelty is None else float(novelty[at]),
            )
            for at, row in enumerate(rows)
        ]

    def _named(self, row: np.ndarray, chosen: np.ndarray) -> tuple[str, ...]:
        """The chosen labels, the likeliest first."""
        return tuple(self.labels[at] for at in np.argsort(-row, kind="stable") if chosen[at])


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The trained classifier as a Python object: texts in, labels with calibrated confidence out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fenlei.artifact import read_manifest
from fenlei.config import Device, TrustConfig
from fenlei.data.labelling import Labelling
from fenlei.errors import ConfigError, RequestError
from fenlei.evaluation.calibration import Calibration
from fenlei.evaluation.decision import plain_decision
from fenlei.inference.adapters import check_adapter_labels, is_adapter, load_adapter, refuse_run_options
from fenlei.inference.candidates import called, each_text, was_fitted_among
from fenlei.inference.checksums import explained
from fenlei.inference.loading import LoadedRun, load_run
from fenlei.inference.prediction import Labels, Passage, Prediction
from fenlei.inference.said import Said, said
from fenlei.inference.scoring import Scores, score
from fenlei.inference.trust import Trust, load_trust
from fenlei.inference.zero_shot import load_zero_shot
from fenlei.labels import LabelNote, LabelSet, noted
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.text.pairs import PAIR_COLUMN, Text, check_texts
from fenlei.text.prompts import TextEncoder

KEPT_LABEL_SETS = 8


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

    A run of the generate method can be asked among other labels than its own (`labels=`); such answers are not calibrated, and
    come without set, threshold and novelty, which were fitted on its own.
    """

    def __init__(self, run: LoadedRun, trust: Trust | None = None, retold: frozenset[str] = frozenset()) -> None:
        """`retold`: labels that the prompt says something else of than when the run was calibrated."""
        self._run = run
        self._retold = retold
        self.trust = trust or _unfitted(run)
        self._encoders: dict[tuple[str, ...], QuestionEncoder] = {}

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        device: Device = "auto",
        head: nn.Module | None = None,
        trust: TrustConfig | None = None,
        int8: bool = False,
        verify: bool = False,
        labels: Sequence[str] | None = None,
        base: str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        multi_label: bool = False,
    ) -> Classifier:
        """From a folder that `train` wrote; what `trust` names takes the place of the run's own threshold and sets.

        A sequence-classification adapter of PEFT or ms-swift opens with its `labels`, in the order of their ids; base, prompt, max_length
        and multi_label may say what its folder does not (see inference/adapters.py). Such answers are not calibrated.

        `int8`: faster on CPUs with VNNI, and slightly less exact (see models/quantized.py). `verify` compares every file with its checksum
        first. ArtifactError where the folder is incomplete or damaged, ModelError where its base model is not to be found, DataError where
        its calibrating rows cannot promise what is asked, ConfigError for `int8` on a machine that has no fast 8-bit products.
        """
        if is_adapter(run):
            refuse_run_options(run, int8=int8, verify=verify, head=head is not None, promises=trust is not None and trust.promises)
            names = check_adapter_labels(run, labels)
            told: dict[str, Any] = {"base": base, "prompt": prompt, "max_length": max_length, "multi_label": multi_label}
            return cls(load_adapter(Path(run), names, device=device, **told))
        if multi_label or any(one is not None for one in (labels, base, prompt, max_length)):
            raise ConfigError(f"{run}: labels, base, prompt, max_length and multi_label belong to adapters of others; a run knows its own")
        manifest = read_manifest(run)
        with explained(Path(run), manifest):
            asked = load_trust(Path(run), manifest, trust)  # first: it takes no time, and loading a network may take minutes
        return cls(load_run(run, device=device, head=head, int8=int8, verified=verify), asked)

    @classmethod
    def zero_shot(cls, model: str, labels: Sequence[str] | Mapping[str, LabelNote | str] | Path, **options: Any) -> Classifier:
        """A language model asked among `labels` (or, with descriptions or LabelNotes, those of a mapping or a file), without training.

        `options`: multi_label, prompt, examples as (text, label), prior_correction, max_length, long (what is read of longer texts),
        revision, source, device. ConfigError where labels or prompt do not fit the model, ModelError where it is no language model.
        """
        return cls(load_zero_shot(model, labels, **options))

    def with_notes(self, notes: Mapping[str, LabelNote | str]) -> Classifier:
        """The same run, whose prompt says of labels what `notes` do; names alone change nothing, nor do notes for a run with a head.

        Answers among labels that it says something else of than in training are not calibrated.
        """
        before = self._run.encoder
        if not isinstance(before, QuestionEncoder):
            return self
        labelling = Labelling.from_json(self._run.manifest)
        encoder = before.with_notes({labelling.path(name, "notes"): note for name, note in noted(notes).items()})
        retold = before.instruction.retold(encoder.instruction)
        manifest = {**self._run.manifest, "instruction": encoder.instruction.to_json()} if retold else self._run.manifest
        return Classifier(replace(self._run, encoder=encoder, manifest=manifest), self.trust, self._retold | retold)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._run.labels.names

    @property
    def multi_label(self) -> bool:
        """Whether a text is given any number of labels."""
        return self.trust.calibration.multi_label

    @property
    def pairs(self) -> bool:
        """Whether it is asked pairs of texts, (first, second), instead of texts."""
        return self._run.manifest.get(PAIR_COLUMN) is not None

    @property
    def temperature(self) -> float:
        return self.trust.calibration.temperature

    @property
    def device(self) -> torch.device:
        return self._run.method.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the network's weights."""
        return next(self._run.method.parameters()).dtype

    def describe(self) -> dict[str, Any]:
        """The run's manifest (labels, method, base model, versions, ...), with the calibration and promises that its answers have here."""
        return {**self._run.manifest, **self.trust.to_json()}

    @property
    def takes_labels(self) -> bool:
        """Whether it can be asked among other labels than its own."""
        return isinstance(self._run.encoder, QuestionEncoder)

    def logits(self, texts: Sequence[Text], *, labels: Labels | None = None, progress: Callable[[int], None] | None = None) -> Scores:
        """Uncalibrated scores of every text, float32 (rows, labels). RequestError for a lone string, and for anything that is no text (of a
        run on pairs: no pair of texts).

        `labels` asks among others than the run's: columns are those labels (each text its own: all of them in order of appearance), -inf
        where a label is no candidate for a text. RequestError where the run answers with a head, or a text has no candidates.
        """
        texts = check_texts(texts, pairs=self.pairs)
        return self._score(texts, self._asked(labels, len(texts)), progress)

    def predict_proba(self, texts: Sequence[Text], *, labels: Labels | None = None) -> np.ndarray:
        """float32 (rows, labels), columns in the order of `labels`, else of the run's."""
        texts = check_texts(texts, pairs=self.pairs)
        asked = self._asked(labels, len(texts))
        return self._said(self._score(texts, asked), asked).probabilities

    def predict(self, texts: Sequence[Text], *, labels: Labels | None = None) -> list[Prediction]:
        """The answer for each text, or for each pair (first, second) where `pairs`, among the run's labels or those given; see `logits`."""
        return self.answer(self.logits(texts, labels=labels), labels=labels)

    def predict_frame(
        self, frame: Any, *, text_column: str | None = None, pair_column: str | None = None, probabilities: bool = False, prefix: str = ""
    ) -> Any:
        """A pandas or polars frame, a Hugging Face dataset or an Arrow table with the answer's columns added; see inference/frames.py."""
        from fenlei.inference.frames import predict_frame

        return predict_frame(self, frame, text_column=text_column, pair_column=pair_column, probabilities=probabilities, prefix=prefix)

    def columns(self, labels: Labels | None, rows: int) -> tuple[str, ...]:
        """The names of the columns that `logits` gives for such labels."""
        return self._asked(labels, rows).names

    def answer(self, scores: Scores, *, labels: Labels | None = None) -> list[Prediction]:
        """What is said on scores that `logits` gave for the same labels."""
        asked = self._asked(labels, len(scores.logits))
        own, possible, holds = self._said(scores, asked), ~np.isneginf(scores.logits), asked.holds.tolist()
        # Of all rows at once: numpy takes microseconds to be asked, once or for every row.
        best = np.where(possible, own.probabilities, -1).argmax(axis=1).tolist()
        confidence, cut = own.confidence.tolist(), scores.tokens_cut.tolist()
        answers = []
        for row, shares in enumerate(own.probabilities):
            among = zip(asked.names, shares.tolist(), possible[row].tolist(), strict=True)
            answers.append(
                Prediction(
                    label=asked.names[best[row]],
                    confidence=confidence[row],
                    probabilities={name: share for name, share, there in among if there},
                    calibrated=self.trust.calibrated and holds[row],
                    tokens_cut=cut[row],
                    prediction_set=None if own.sets is None or not holds[row] else _named(asked.names, shares, own.sets[row]),
                    abstained=None if own.abstained is None or not holds[row] else bool(own.abstained[row]),
                    novelty=None if own.novelty is None or not holds[row] else float(own.novelty[row]),
                    labels=None if own.given is None else _named(asked.names, shares, own.given[row]),
                    passages=_passages(scores, row),
                    tokens_read=0 if scores.tokens_read is None else int(scores.tokens_read[row]),
                )
            )
        return answers

    def fitted_among(self, labels: Sequence[str]) -> bool:
        """Whether what was fitted to the run - temperature, threshold, sets - holds for answers among these labels; else they have none of
        it. RequestError where the run cannot be asked among labels.
        """
        return bool(self._asked(labels, 1).holds.all())

    def trust_over(self, names: Sequence[str]) -> Trust:
        """What the run's answers are given with, for columns of these names."""
        if tuple(names) == self.labels:
            return self.trust
        ancestors = Labelling.from_json(self._run.manifest).ancestors(LabelSet(tuple(names))) if self.multi_label else None
        return self.trust.over(self.labels, names, ancestors)

    def _said(self, scores: Scores, asked: _Asked) -> Said:
        trust, holds = self.trust_over(asked.names), asked.holds
        if holds.all():
            return said(trust, scores)
        raw = said(trust.unfitted(), scores)
        return said(trust, scores).where(holds, raw) if holds.any() else raw

    def _score(self, texts: Sequence[Text], asked: _Asked, progress: Callable[[int], None] | None = None) -> Scores:
        if isinstance(asked.encoder, QuestionEncoder):
            encoded = self._encoded(asked.encoder, texts, asked.candidates)
        else:
            encoded = asked.encoder.encode(texts)
        method, states = self._run.method, self.trust.needs_states
        return score(method, encoded, len(asked.names), keep_states=states, progress=progress)

    def _encoded(self, encoder: QuestionEncoder, texts: Sequence[Text], candidates: list[tuple[str, ...]] | None) -> EncodedTexts:
        try:
            return encoder.encode(texts, candidates)
        except ConfigError as error:
            if candidates is None:
                raise
            raise RequestError(str(error)) from error  # of labels that came with the request

    def _asked(self, labels: Labels | None, rows: int) -> _Asked:
        own, encoder = self.labels, self._run.encoder
        if labels is None:
            return _Asked(encoder, own, None, np.full(rows, self._holds(own)))
        if not isinstance(encoder, QuestionEncoder):
            raise RequestError(
                f"this run answers with a head that knows its {len(own)} labels and no other, so labels cannot be given with a request; "
                "use a run of --method generate, or a model's name with labels (zero-shot)"
            )
        labelling = Labelling.from_json(self._run.manifest)
        given = [own if one is None else called(one, labelling) for one in each_text(labels, rows)]
        names = tuple(dict.fromkeys(name for one in given for name in one)) or own
        if names not in self._encoders:
            if len(self._encoders) >= KEPT_LABEL_SETS:
                self._encoders.pop(next(iter(self._encoders)))
            self._encoders[names] = encoder.with_labels(LabelSet(names))
        holds = {one: self._holds(one) for one in set(given)}
        return _Asked(self._encoders[names], names, given, np.array([holds[one] for one in given], dtype=bool))

    def _holds(self, among: tuple[str, ...]) -> bool:
        return self._retold.isdisjoint(among) and was_fitted_among(self._run.manifest, self.labels, among)


def _unfitted(run: LoadedRun) -> Trust:
    """Of a network that nothing was fitted for."""
    calibration, labelling = Calibration.from_json(run.manifest), Labelling.from_json(run.manifest)
    decision = plain_decision(len(run.labels), labelling.ancestors(run.labels)) if labelling.multi_label else None
    return Trust(calibration, bool(run.manifest.get("calibrated")), decision=decision)


def _passages(scores: Scores, row: int) -> tuple[Passage, ...] | None:
    if scores.windows is None or scores.weights is None:
        return None
    own = slice(scores.windows.first[row], scores.windows.first[row + 1])
    spans, weights = scores.windows.spans[own].tolist(), scores.weights[own].tolist()
    return tuple(Passage(begin, end, weight) for (begin, end), weight in zip(spans, weights, strict=True))


def _named(names: Sequence[str], shares: np.ndarray, chosen: np.ndarray) -> tuple[str, ...]:
    """The chosen labels, the likeliest first."""
    return tuple(names[at] for at in np.argsort(-shares, kind="stable") if chosen[at])

"""How a run's scores become answers: calibrated, with a threshold to keep silent below, prediction sets, and novelty.

Fitted once, at the end of training, on the calibrating rows; kept in fenlei.json and, what is large, beside it; applied by whoever answers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fenlei.artifact import saving
from fenlei.config import TrustConfig
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.evaluation import abstention, conformal
from fenlei.evaluation.abstention import AbstentionRule, accuracy_threshold, fixed_threshold
from fenlei.evaluation.answers import Answers, answers_of, confidence_and_gold
from fenlei.evaluation.calibration import Calibration
from fenlei.evaluation.conformal import ConformalRule, fit_conformal
from fenlei.evaluation.decision import PLAIN, Ancestors, Decision, plain_decision
from fenlei.evaluation.novelty import ClassGaussians, NoveltyScore, energy, joint_energy, rank_among
from fenlei.inference.scoring import Scores

DEV_SCORES = "dev.safetensors"
"""Uncalibrated logits and label ids of the dev rows: what every promise is fitted on, and other ones can be later."""
NOVELTY = "novelty.safetensors"
"""The calibrating rows' novelty scores and, for Mahalanobis, the Gaussians."""


@dataclass(frozen=True)
class DevScores:
    """What the finished run says of one part of its dev rows."""

    logits: np.ndarray
    """float32 (rows, labels)"""
    label_ids: np.ndarray
    """int64 (rows,); multi-label: the labels of each row, bool (rows, labels)"""


@dataclass(frozen=True)
class NoveltyRule:
    """How novelty is scored, and what known rows score."""

    score: NoveltyScore
    known: np.ndarray
    """float64 (rows,), sorted: the calibrating rows' own scores."""
    gaussians: ClassGaussians | None = None

    @classmethod
    def of(cls, score: NoveltyScore, known: Scores, gaussians: ClassGaussians | None = None) -> NoveltyRule:
        """Of the calibrating rows, whose scores `known` are in any order."""
        unsorted = cls(score, np.zeros(0), gaussians)
        return dataclasses.replace(unsorted, known=np.sort(unsorted.raw(known)))

    def raw(self, scores: Scores) -> np.ndarray:
        """Higher for stranger texts, float64 (rows,); the unit is the score's own."""
        if self.gaussians is None:
            return joint_energy(scores.logits) if self.score == "joint energy" else energy(scores.logits)
        assert scores.pooled is not None, "states were asked for"
        return self.gaussians.distances(scores.pooled)

    def ranks(self, scores: Scores) -> np.ndarray:
        """The share of the calibrating rows that are less strange, float64 (rows,)."""
        return rank_among(self.known, self.raw(scores))


@dataclass(frozen=True)
class Trust:
    """What a run's answers are given with."""

    calibration: Calibration
    calibrated: bool
    """Whether the probabilities were fitted to held-out rows."""
    abstention: AbstentionRule | None = None
    sets: ConformalRule | None = None
    novelty: NoveltyRule | None = None
    decision: Decision | None = None
    """Multi-label: which labels are given; None where it is the most probable one."""

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of logits over the run's labels: float32 (rows, labels)."""
        fitted = self.calibration.probabilities(logits)
        return fitted if self.decision is None else self.decision.coherent(fitted)

    def answers(self, probabilities: np.ndarray) -> Answers:
        """What is answered on probabilities (rows, labels)."""
        return probabilities if self.decision is None else answers_of(self.decision, probabilities)

    def over(self, own: Sequence[str], names: Sequence[str], ancestors: Ancestors | None) -> Trust:
        """The same for other columns than the run's `own`: what belongs to a label goes where it stands among `names`.

        `ancestors` are those of `names`. Labels that the run does not know are given from one half on, and are in every set by class; rows
        that have such labels as candidates are none that this was fitted for.
        """
        places = {name: at for at, name in enumerate(own)}

        def moved(values: Sequence[float], unknown: float) -> tuple[float, ...]:
            return tuple(unknown if name not in places else float(values[places[name]]) for name in names)

        calibration, sets, decision = self.calibration, self.sets, self.decision
        if calibration.scale is not None and calibration.bias is not None:
            calibration = dataclasses.replace(calibration, scale=moved(calibration.scale, 1.0), bias=moved(calibration.bias, 0.0))
        if sets is not None:
            sets = dataclasses.replace(sets, thresholds=np.array(moved(sets.thresholds.tolist(), np.inf), dtype=np.float64))
        if decision is not None:
            decision = Decision(moved(decision.thresholds, PLAIN), ancestors)
        return dataclasses.replace(self, calibration=calibration, sets=sets, decision=decision)

    def unfitted(self) -> Trust:
        """The network alone, and labels from one half on: for rows that nothing was fitted for."""
        decision = self.decision and plain_decision(len(self.decision.thresholds), self.decision.ancestors)
        return Trust(Calibration(multi_label=self.calibration.multi_label), False, decision=decision)

    @property
    def needs_states(self) -> bool:
        """Whether the pooled state of each row has to be kept."""
        return self.novelty is not None and self.novelty.gaussians is not None

    def to_json(self) -> dict[str, Any]:
        """The keys of fenlei.json."""
        sets = None
        if self.sets is not None:
            thresholds = [None if math.isinf(one) else one for one in self.sets.thresholds.tolist()]
            sets = {**{f.name: getattr(self.sets, f.name) for f in dataclasses.fields(self.sets)}, "thresholds": thresholds}
        return {
            **self.calibration.to_json(),
            "calibrated": self.calibrated,
            "abstention": dataclasses.asdict(self.abstention) if self.abstention else None,
            "prediction_sets": sets,
            "novelty": self.novelty.score if self.novelty else None,
            "decision": self.decision.to_json() if self.decision else None,
        }


@dataclass(frozen=True)
class FittedPromises:
    """The threshold and the sets that were asked for, each by itself."""

    abstention: AbstentionRule | None
    sets: ConformalRule | None
    unmet: DataError | None
    """Why those that are missing cannot be had from these rows."""


def fit_promises(asked: TrustConfig, trust: Trust, dev: DevScores) -> FittedPromises:
    """What was asked for, from calibrating rows. Multi-label, an answer is right where all labels of a row are given and no others."""
    probabilities = trust.probabilities(dev.logits) if len(dev.logits) else dev.logits
    scores, right = confidence_and_gold(trust.answers(probabilities), dev.label_ids)
    silence, sets = None, None
    unmet: list[str] = []
    try:
        if asked.min_confidence is not None:
            silence = fixed_threshold(asked.min_confidence, scores, right)
        elif asked.target_accuracy is not None:
            silence = accuracy_threshold(asked.target_accuracy, scores, right)
    except DataError as error:
        unmet.append(str(error))
    try:
        if asked.set_coverage is not None:
            by_class = asked.set_by_class
            sets = fit_conformal(asked.set_coverage, probabilities, dev.label_ids, score=asked.set_score, class_conditional=by_class)
    except DataError as error:
        unmet.append(str(error))
    return FittedPromises(silence, sets, DataError("; ".join(unmet)) if unmet else None)


def check_promises(asked: TrustConfig, calibrating_rows: int, *, multi_label: bool = False) -> None:
    """ConfigError where so few rows cannot promise what is asked, however good the model will be, or multi-label has no such thing."""
    if multi_label:
        _refuse_sets(asked)
    for name, least in (
        ("target_accuracy", asked.target_accuracy and abstention.least_rows(asked.target_accuracy)),
        ("set_coverage", asked.set_coverage and conformal.least_rows(asked.set_coverage)),
    ):
        if least and calibrating_rows < least:
            raise ConfigError(
                f"{name} {getattr(asked, name)} takes at least {least:,} calibrating rows (half of dev), there are {calibrating_rows:,}; "
                "give more dev rows, or ask for less"
            )


def load_trust(run: Path, manifest: dict[str, Any], asked: TrustConfig | None = None) -> Trust:
    """A run's own; what `asked` names takes the place of what was stored, fitted to the run's saved dev scores.

    ArtifactError where a file is missing or damaged, DataError where the rows cannot promise what is asked.
    """
    calibration = Calibration.from_json(manifest)
    decision = Decision.from_json(manifest["decision"]) if manifest.get("decision") else None
    trust = Trust(
        calibration,
        bool(manifest.get("calibrated")),
        _abstention_from(manifest.get("abstention")),
        _sets_from(manifest.get("prediction_sets")),
        _load_novelty(run, manifest["novelty"]) if manifest.get("novelty") else None,
        decision,
    )
    if asked is None or not asked.promises:
        return trust
    if decision is not None:
        _refuse_sets(asked)
    fitted = fit_promises(asked, trust, _dev_for(run, asked, len(manifest["labels"]), multi_label=decision is not None))
    if fitted.unmet is not None:
        raise fitted.unmet
    return dataclasses.replace(trust, abstention=fitted.abstention or trust.abstention, sets=fitted.sets or trust.sets)


def _refuse_sets(asked: TrustConfig) -> None:
    if asked.set_coverage is not None:
        raise ConfigError(
            "set_coverage: prediction sets say which one label may be right, and here a row has any number of them; "
            "min_confidence and target_accuracy tell the answers to believe"
        )


def save_scores(run: Path, parts: dict[str, DevScores]) -> None:
    """Writes the scores of dev's parts by name."""
    arrays = {f"{name}.logits": np.ascontiguousarray(part.logits) for name, part in parts.items()}
    _save(run / DEV_SCORES, arrays | {f"{name}.label_ids": part.label_ids for name, part in parts.items()})


def load_scores(run: str | Path) -> dict[str, DevScores]:
    """The scores of dev's parts, `selecting` and `calibrating`; ArtifactError where the run has none."""
    arrays = _load(Path(run) / DEV_SCORES)
    names = [name.removesuffix(".logits") for name in arrays if name.endswith(".logits")]
    try:
        return {name: DevScores(arrays[f"{name}.logits"], arrays[f"{name}.label_ids"]) for name in names}
    except KeyError as error:
        raise ArtifactError(f"{Path(run) / DEV_SCORES}: lacks {error}; restore the file or train again") from error


def save_novelty(run: Path, rule: NoveltyRule) -> None:
    """Writes what novelty is measured by."""
    gaussians = {} if rule.gaussians is None else {f.name: getattr(rule.gaussians, f.name) for f in dataclasses.fields(ClassGaussians)}
    _save(run / NOVELTY, {"known": rule.known, **{name: np.ascontiguousarray(array) for name, array in gaussians.items()}})


def _load_novelty(run: Path, score: NoveltyScore) -> NoveltyRule:
    arrays = _load(run / NOVELTY)
    try:
        known = arrays.pop("known")
        return NoveltyRule(score, known, ClassGaussians(**arrays) if score == "mahalanobis" else None)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{run / NOVELTY}: does not hold what {score} needs; restore the file or train again") from error


def _dev_for(run: Path, asked: TrustConfig, labels: int, *, multi_label: bool) -> DevScores:
    if (run / DEV_SCORES).exists():
        return load_scores(run)["calibrating"]
    if asked.target_accuracy is None and asked.set_coverage is None:  # a threshold needs no rows
        gold = np.zeros((0, labels), dtype=bool) if multi_label else np.zeros(0, dtype=np.int64)
        return DevScores(np.zeros((0, labels), dtype=np.float32), gold)
    name = "target_accuracy" if asked.target_accuracy is not None else "set_coverage"
    raise ArtifactError(
        f"{name}: {run} has no {DEV_SCORES}, the scores of dev rows that it is fitted on. If the file was lost, restore it. A generate run "
        "whose labels were changed has none: give min_confidence, or train on the labels it has now"
    )


def _abstention_from(stored: dict[str, Any] | None) -> AbstentionRule | None:
    return None if stored is None else AbstentionRule(**stored)


def _sets_from(stored: dict[str, Any] | None) -> ConformalRule | None:
    if stored is None:
        return None
    thresholds = np.array([np.inf if one is None else one for one in stored["thresholds"]], dtype=np.float64)
    return ConformalRule(**{**stored, "thresholds": thresholds})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with saving(path):
        save_file(arrays, path)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); restore the file, or train again with this fenlei") from error

"""What a finished run promises of its answers: calibration, a threshold, prediction sets and novelty, fitted on its calibrating rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fenlei.config import TrustConfig
from fenlei.data.encodings import refuse_read_once
from fenlei.data.examples import Example
from fenlei.data.extension import OF_A_SAMPLE
from fenlei.data.labelling import ONE_LABEL, Labelling
from fenlei.data.readers import read_examples
from fenlei.data.sources import split_files
from fenlei.errors import DataError, first_few
from fenlei.evaluation.calibration import Calibration, fit_calibration
from fenlei.evaluation.decision import Decision, fit_decision, plain_decision
from fenlei.evaluation.novelty import ClassGaussians, NoveltyScore, auroc
from fenlei.evaluation.platt import fit_label_calibration
from fenlei.inference.scoring import Scores
from fenlei.inference.trust import DevScores, NoveltyRule, Trust, fit_promises
from fenlei.labels import LabelSet

LEAST_CALIBRATING_ROWS = 30
"""Fewer rows cannot fit even one number to better than chance."""
STATE_ROWS = 5000
"""Training rows whose states the Gaussians are fitted on: more than the dimensions of any state, and minutes at most to compute."""

ScoreRows = Callable[[Sequence[Example], bool], Scores]
"""Rows, and whether their states are wanted, to scores."""


class UnmetPromiseError(DataError):
    """The run is whole, but its calibrating rows cannot promise what was asked; the cause says what."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result
        """What the call would have returned."""


@dataclass(frozen=True)
class Promises:
    """What could be promised."""

    trust: Trust
    notes: tuple[str, ...]
    unmet: DataError | None
    """Why a threshold or sets that were asked for cannot be had; the run is whole without them."""


@dataclass(frozen=True)
class KnownRows:
    """The rows that novelty is measured against."""

    calibrating: Sequence[Example]
    train: Sequence[Example]
    train_ids: np.ndarray
    """int64 (rows,); multi-label: bool (rows, labels)"""


def make_promises(
    asked: TrustConfig,
    dev: DevScores,
    rows: KnownRows,
    labels: Sequence[str],
    score: ScoreRows,
    seed: int,
    labelling: Labelling = ONE_LABEL,
    known: int | None = None,
    *,
    dev_is_natural: bool = True,
) -> Promises:
    """Fitted on `dev`, the scores of the calibrating rows; `score` is asked for states only where novelty needs them.

    `known`: of an extended run how many labels, the first ones, it had before. `dev_is_natural`: whether classes are in dev as often as
    they come.
    """
    calibration, notes = _calibrated(dev, labels, labelling.multi_label, known, summands=dev_is_natural)
    trust = Trust(calibration, len(dev.label_ids) >= LEAST_CALIBRATING_ROWS)
    if labelling.multi_label:
        trust = dataclasses.replace(trust, decision=_decision(dev, trust, labels, labelling))
    fitted = fit_promises(asked, trust, dev)
    trust = dataclasses.replace(trust, abstention=fitted.abstention, sets=fitted.sets)
    notes += _told(trust, labels)
    if not dev_is_natural and (trust.abstention or trust.sets):
        notes.append(OF_A_SAMPLE)
    if len(dev.label_ids):
        rule, told = _novelty(asked.out_of_scope, dev, rows, score, seed, labelling.multi_label)
        trust = dataclasses.replace(trust, novelty=rule)
        notes += told
    return Promises(trust, tuple(notes), fitted.unmet)


def read_out_of_scope(path: str | Path, usual_text: Sequence[str]) -> list[Example]:
    """The rows of a file, or of the train files of a folder or a data set on a hub, labelled or not, read from the columns `usual_text`
    where it has them all. DataError where there are none, ConfigError where they come but once.
    """
    refuse_read_once("out_of_scope", path, "training")
    files = split_files(path).train
    told = chain.from_iterable(read_examples(file, labelled=False, usual_text=usual_text) for file in files)
    rows = [Example(one.text, None, one.source, one.line) for one in told]
    if not rows:
        raise DataError(f"{path}: expected texts outside the label set, found none")
    return rows


def _calibrated(
    dev: DevScores, labels: Sequence[str], multi_label: bool, known: int | None, *, summands: bool
) -> tuple[Calibration, list[str]]:
    rows = len(dev.label_ids)
    if rows < LEAST_CALIBRATING_ROWS:
        unfitted = Calibration(multi_label=multi_label)
        return unfitted, [f"not calibrated: {rows} calibrating rows, at least {LEAST_CALIBRATING_ROWS} are needed"]
    if multi_label:
        calibration = fit_label_calibration(dev.logits, dev.label_ids)
        (scale, bias) = ((calibration.scale or (1.0,))[0], (calibration.bias or (0.0,))[0])
        notes = [f"logits times {scale:.3f}, plus {bias:.3f}, and a threshold for each label: fitted on {rows:,} calibrating rows"]
        absent = [name for at, name in enumerate(labels) if not dev.label_ids[:, at].any()]
    else:
        calibration = fit_calibration(dev.logits, dev.label_ids, known, summands=summands)
        kind = _beside_temperature(calibration, known)
        notes = [f"temperature {calibration.temperature:.3f}{kind}: fitted on {rows:,} calibrating rows"]
        absent = [name for at, name in enumerate(labels) if not (dev.label_ids == at).any()]
    if absent:
        shown = first_few(absent)
        notes.append(f"{len(absent)} of {len(labels)} classes have no calibrating row, so nothing is promised for them: {shown}")
    return calibration, notes


def _beside_temperature(calibration: Calibration, known: int | None) -> str:
    if calibration.bias is None:
        return ""
    if known is not None and not any(calibration.bias[:known]):
        return f", and {calibration.bias[-1]:+.2f} for the logits of new classes, which explains held-out rows better"
    return ", and vector scaling, which explains held-out rows better"


def _decision(dev: DevScores, trust: Trust, labels: Sequence[str], labelling: Labelling) -> Decision:
    """The threshold of each label; one half where there are too few rows to fit any."""
    ancestors = labelling.ancestors(LabelSet(tuple(labels)))
    plain = plain_decision(len(labels), ancestors)
    if not trust.calibrated:
        return plain
    return fit_decision(plain.coherent(trust.calibration.probabilities(dev.logits)), dev.label_ids, ancestors)


def _told(trust: Trust, labels: Sequence[str]) -> list[str]:
    notes = []
    rule = trust.abstention
    if rule and rule.coverage is not None:
        kept = "" if rule.accuracy is None else f", right in {rule.accuracy:.1%} of them"
        notes.append(f"answers from confidence {rule.min_confidence:.4f} on: {rule.coverage:.1%} of the calibrating rows{kept}")
    if trust.sets is not None and trust.sets.class_conditional and len(trust.sets.unpromised):
        names = [labels[at] for at in trust.sets.unpromised]
        shown = first_few(names)
        notes.append(f"{len(names)} classes have too few calibrating rows for a coverage of their own, and are in every set: {shown}")
    return notes


def _novelty(
    out_of_scope: str | None, dev: DevScores, rows: KnownRows, score: ScoreRows, seed: int, multi_label: bool
) -> tuple[NoveltyRule, list[str]]:
    """By energy, or with out-of-scope texts the one that tells them best from the calibrating rows."""
    by_energy: NoveltyScore = "joint energy" if multi_label else "energy"
    if out_of_scope is None:  # energy needs no state, and no extra pass over training rows
        return NoveltyRule.of(by_energy, Scores(dev.logits, np.zeros(0))), []
    known = score(rows.calibrating, True)
    candidates = [NoveltyRule.of(by_energy, known)]
    # A Gaussian a class takes rows of one class each.
    gaussians = _gaussians(rows, score, seed) if known.pooled is not None and not multi_label else None
    if gaussians is not None:
        candidates.append(NoveltyRule.of("mahalanobis", known, gaussians))
    novel = score(read_out_of_scope(out_of_scope, rows.train[0].text_columns), True)
    reached = [auroc(rule.known, rule.raw(novel)) for rule in candidates]
    best = int(np.argmax(reached))
    figures = ", ".join(f"{rule.score} {figure:.3f}" for rule, figure in zip(candidates, reached, strict=True))
    return candidates[best], [f"novelty by {candidates[best].score}: AUROC on the {len(novel.logits):,} out-of-scope rows {figures}"]


def _gaussians(rows: KnownRows, score: ScoreRows, seed: int) -> ClassGaussians | None:
    """Of training rows drawn at random, each class its share; None where no class has two of them."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows.train))[:STATE_ROWS])
    states = score([rows.train[at] for at in chosen], True).pooled
    ids = rows.train_ids[chosen]
    if states is None or len(np.unique(ids)) == len(ids):
        return None
    return ClassGaussians.fit(states, ids)

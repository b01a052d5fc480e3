"""What a finished run promises of its answers: calibration, a threshold, prediction sets and novelty, fitted on its calibrating rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fenlei.config import TrustConfig
from fenlei.data.examples import Example
from fenlei.data.readers import read_examples
from fenlei.errors import DataError
from fenlei.evaluation import novelty
from fenlei.evaluation.calibration import Calibration, fit_calibration
from fenlei.evaluation.novelty import ClassGaussians, NoveltyScore, auroc
from fenlei.inference.scoring import Scores
from fenlei.inference.trust import DevScores, NoveltyRule, Trust, fit_promises

LEAST_CALIBRATING_ROWS = 30
"""Fewer rows cannot fit even one number to better than chance."""
STATE_ROWS = 5000
"""Training rows whose states the Gaussians are fitted on: more than the dimensions of any state, and minutes at most to compute."""

ScoreRows = Callable[[Sequence[Example], bool], Scores]
"""Rows, and whether their states are wanted, to scores."""


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
    """int64 (rows,)"""


def make_promises(asked: TrustConfig, dev: DevScores, rows: KnownRows, labels: Sequence[str], score: ScoreRows, seed: int) -> Promises:
    """Fitted on `dev`, the scores of the calibrating rows; `score` is asked for states only where novelty needs them."""
    calibration, notes = _calibrated(dev, labels)
    trust = Trust(calibration, len(dev.label_ids) >= LEAST_CALIBRATING_ROWS)
    unmet = None
    try:
        silence, sets = fit_promises(asked, calibration, dev)
    except DataError as error:
        unmet = error
    else:
        trust = dataclasses.replace(trust, abstention=silence, sets=sets)
        notes += _told(trust, labels)
    if len(dev.label_ids):
        rule, told = _novelty(asked.out_of_scope, dev, rows, score, seed)
        trust = dataclasses.replace(trust, novelty=rule)
        notes += told
    return Promises(trust, tuple(notes), unmet)


def read_out_of_scope(path: str | Path) -> list[Example]:
    """The rows of a file, labelled or not. DataError where there are none."""
    rows = [Example(one.text, None, one.source, one.line) for one in read_examples(path, labelled=False)]
    if not rows:
        raise DataError(f"{path}: expected texts outside the label set, found none")
    return rows


def _calibrated(dev: DevScores, labels: Sequence[str]) -> tuple[Calibration, list[str]]:
    rows = len(dev.label_ids)
    if rows < LEAST_CALIBRATING_ROWS:
        return Calibration(), [f"not calibrated: {rows} calibrating rows, at least {LEAST_CALIBRATING_ROWS} are needed"]
    calibration = fit_calibration(dev.logits, dev.label_ids)
    kind = "" if calibration.scale is None else ", and vector scaling, which explains held-out rows better"
    notes = [f"temperature {calibration.temperature:.3f}{kind}: fitted on {rows:,} calibrating rows"]
    absent = [name for at, name in enumerate(labels) if not (dev.label_ids == at).any()]
    if absent:
        shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
        notes.append(f"{len(absent)} of {len(labels)} classes have no calibrating row, so nothing is promised for them: {shown}")
    return calibration, notes


def _told(trust: Trust, labels: Sequence[str]) -> list[str]:
    notes = []
    rule = trust.abstention
    if rule and rule.coverage is not None:
        kept = "" if rule.accuracy is None else f", right in {rule.accuracy:.1%} of them"
        notes.append(f"answers from confidence {rule.min_confidence:.4f} on: {rule.coverage:.1%} of the calibrating rows{kept}")
    if trust.sets is not None and trust.sets.class_conditional and len(trust.sets.unpromised):
        names = [labels[at] for at in trust.sets.unpromised]
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        notes.append(f"{len(names)} classes have too few calibrating rows for a coverage of their own, and are in every set: {shown}")
    return notes


def _novelty(out_of_scope: str | None, dev: DevScores, rows: KnownRows, score: ScoreRows, seed: int) -> tuple[NoveltyRule, list[str]]:
    """The default score, or with out-of-scope texts the one that tells them best from the calibrating rows."""
    if out_of_scope is None and novelty.DEFAULT == "energy":
        return _rule("energy", Scores(dev.logits, np.zeros(0)), None), []
    known = score(rows.calibrating, True)
    candidates = [_rule("energy", known, None)]
    gaussians = _gaussians(rows, score, seed) if known.pooled is not None else None
    if gaussians is not None:
        candidates.append(_rule("mahalanobis", known, gaussians))
    if out_of_scope is None:
        return candidates[-1], []
    novel = score(read_out_of_scope(out_of_scope), True)
    reached = [auroc(rule.known, rule.raw(novel)) for rule in candidates]
    best = int(np.argmax(reached))
    figures = ", ".join(f"{rule.score} {figure:.3f}" for rule, figure in zip(candidates, reached, strict=True))
    return candidates[best], [f"novelty by {candidates[best].score}: AUROC on the {len(novel.logits):,} out-of-scope rows {figures}"]


def _rule(score: NoveltyScore, known: Scores, gaussians: ClassGaussians | None) -> NoveltyRule:
    unsorted = NoveltyRule(score, np.zeros(0), gaussians)
    return dataclasses.replace(unsorted, known=np.sort(unsorted.raw(known)))


def _gaussians(rows: KnownRows, score: ScoreRows, seed: int) -> ClassGaussians | None:
    """Of training rows drawn at random, each class its share; None where no class has two of them."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows.train))[:STATE_ROWS])
    states = score([rows.train[at] for at in chosen], True).pooled
    ids = rows.train_ids[chosen]
    if states is None or len(np.unique(ids)) == len(ids):
        return None
    return ClassGaussians.fit(states, ids)

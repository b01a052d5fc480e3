"""What a search has found: its trials, what mattered, the best run, and what that is worth on rows that chose nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from fenlei.artifact import LOGS, MANIFEST, give_name, read_json, read_manifest, saving
from fenlei.errors import FenleiError
from fenlei.evaluation.calibration import probabilities
from fenlei.evaluation.comparison import PairedTest, mcnemar
from fenlei.evaluation.metrics import Metrics, compute_metrics
from fenlei.inference.trust import DEV_SCORES, load_scores
from fenlei.labels import LabelSet
from fenlei.training.search.plan import FULL, Plan
from fenlei.training.search.study import DEFAULTS, ERROR, ROWS_SEEN, SECONDS, running
from fenlei.training.search.trial import RECORD

BEST = "best"
KEPT = frozenset({"config.yaml", "metrics.json", DEV_SCORES, RECORD, LOGS})
"""Of the runs that are not the best: small, and enough to compare them."""
LEAST_FOR_IMPORTANCE = 6
"""Trials, below which importances are noise."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as the report shows it."""

    number: int
    state: str
    """complete, pruned or failed"""
    options: dict[str, Any]
    macro_f1: float | None
    """On the selecting rows: of the weights that it keeps, or, pruned, the best of its last stage. None where it came to no evaluation."""
    step: int
    """How far it came: the share of a full training's rows, in per cent."""
    seconds: float
    rows_seen: int
    """Rows that went through training, all stages and epochs together."""
    defaults: bool
    """Whether its options are the ones that `train` would have chosen."""
    error: str | None


@dataclass(frozen=True)
class HeldOut:
    """The best trial beside the defaults, on the calibrating rows of dev, which chose nothing; probabilities as the networks gave them."""

    best: Metrics
    defaults: Metrics
    test: PairedTest
    """Of the best (first) against the defaults (second)."""


def records(study: Study) -> tuple[TrialRecord, ...]:
    """Every trial that ended by itself, by number."""
    ended = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return tuple(
        TrialRecord(
            number=trial.number,
            state=ended[trial.state],
            options=dict(trial.params),
            macro_f1=_figure(trial),
            step=trial.last_step or 0,
            seconds=float(trial.user_attrs.get(SECONDS, 0.0)),
            rows_seen=int(trial.user_attrs.get(ROWS_SEEN, 0)),
            defaults=DEFAULTS in trial.user_attrs,
            error=trial.user_attrs.get(ERROR),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (trial.state == TrialState.FAIL and ERROR in trial.user_attrs)
    )


def importances(study: Study, first: int) -> dict[str, float]:
    """How much each option decided of the figure at step `first`, where the first stage ends; they add up to 1. Empty for few trials.

    fANOVA (Hutter et al. 2014). Final figures would tell of the few trials that came so far, all of them good; where there is one stage
    alone, there are no others, and those of trials that were pruned on the way are not like them.
    """
    early = optuna.create_study(direction="maximize")
    states = (TrialState.COMPLETE,) if first == FULL else (TrialState.COMPLETE, TrialState.PRUNED)
    for trial in study.get_trials(deepcopy=False, states=states):
        reported = [value for step, value in trial.intermediate_values.items() if step <= first]
        if reported:
            early.add_trial(create_trial(params=trial.params, distributions=trial.distributions, value=max(reported)))
    values = {trial.value for trial in early.trials}
    if len(early.trials) < LEAST_FOR_IMPORTANCE or len(values) < 2:
        return {}
    return get_param_importances(early, evaluator=FanovaImportanceEvaluator(seed=0))


def thin(study: Study, plan: Plan) -> None:
    """Removes the weights of every complete trial that another one beats. Safe beside other workers: one that is the best of those
    that this one knows of is never touched.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return
    best = _best(complete)
    for trial in complete:
        if trial.number != best.number:
            for path in _entries(plan.trial_folder(trial.number)):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def settle(study: Study, plan: Plan) -> FrozenTrial:
    """Gives the best trial's run the name BEST, in place of an earlier one; the trial. FenleiError where no trial came to its end."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        errors = [str(trial.user_attrs[ERROR]) for trial in study.get_trials(deepcopy=False) if ERROR in trial.user_attrs]
        raise FenleiError(f"{plan.out}: no trial came to its end" + (f"; the first that failed: {errors[0]}" if errors else ""))
    best, target = _best(complete), plan.out / BEST
    source = plan.trial_folder(best.number)
    if (source / MANIFEST).exists():
        with saving(target):
            if target.exists():
                earlier = plan.trial_folder(_number(target))
                shutil.rmtree(earlier, ignore_errors=True)
                give_name(target, earlier)
            give_name(source, target)
    thin(study, plan)
    if not running(study):
        numbers = {f"{trial.number:04d}" for trial in complete}
        for left in (path for path in source.parent.iterdir() if path.name not in numbers):  # by workers that died
            shutil.rmtree(left, ignore_errors=True)
    return best


def held_out(study: Study, plan: Plan, best: FrozenTrial) -> HeldOut | None:
    """None where the defaults are the best, were not tried, or failed."""
    usual = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if DEFAULTS in trial.user_attrs]
    if not usual or usual[0].number == best.number:
        return None
    ours, theirs = (load_scores(folder)["calibrating"] for folder in (plan.out / BEST, plan.trial_folder(usual[0].number)))
    if not len(ours.label_ids):
        return None
    labels = LabelSet(tuple(read_manifest(plan.out / BEST)["labels"]))
    gold = ours.label_ids
    metrics = [compute_metrics(gold, probabilities(one.logits), labels, uncertainty=True) for one in (ours, theirs)]
    right = [np.asarray(one.logits).argmax(axis=1) == gold for one in (ours, theirs)]
    return HeldOut(metrics[0], metrics[1], mcnemar(right[0], right[1]))


def _best(complete: list[FrozenTrial]) -> FrozenTrial:
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))


def _figure(trial: FrozenTrial) -> float | None:
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def _entries(folder: Path) -> list[Path]:
    """What is removed of a trial's run, fenlei.json first: without its weights the folder is no run any more."""
    entries = [path for path in folder.iterdir() if path.name not in KEPT] if folder.is_dir() else []
    return sorted(entries, key=lambda path: path.name != MANIFEST)


def _number(run: Path) -> int:
    return int(read_json(run / RECORD)["number"])

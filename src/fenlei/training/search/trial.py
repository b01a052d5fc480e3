"""One trial: a training on few rows and, where that is promising, on more of them, up to all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import TrialPruned
from optuna.trial import Trial

from fenlei.artifact import LOGS, read_json, read_manifest, write_text
from fenlei.config import TrustConfig
from fenlei.errors import ConfigError, FenleiError, ModelError
from fenlei.training.fit import TrainingInterrupted, train
from fenlei.training.progress import Progress
from fenlei.training.promises import UnmetPromiseError
from fenlei.training.search.plan import FULL, Plan
from fenlei.training.search.space import suggest
from fenlei.training.search.study import DEFAULTS, ERROR, ROWS_SEEN, SECONDS, UNMET, WORKER, taken
from fenlei.training.tracking import TrackerError

RECORD = "trial.json"
"""In the folder of a trial: its number, its options and what it reached."""


class SuperfluousError(FenleiError):
    """Another worker has begun the last trial that was wanted."""


class UnfitError(FenleiError):
    """A trial's options cannot work, which is noted on it."""


class Objective:
    """Trains a trial; what comes back is the selection figure of the weights that its run keeps.

    UnfitError where its options cannot work; what else goes wrong is the machine's or the data's, and would befall every trial.

    The selecting rows of dev are all that it sees: the calibrating ones stay untouched for comparing the best trial with the defaults,
    and test for the end.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.latest: int | None = None
        """The number of the trial that was begun last."""

    def __call__(self, trial: Trial) -> float:
        trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
        self.latest = trial.number
        if taken(trial.study, before=trial.number) >= self._plan.trials:
            raise SuperfluousError(f"trial {trial.number}: {self._plan.trials} trials were wanted")
        folder, watch, began = self._plan.trial_folder(trial.number), Watch(trial), time.monotonic()
        try:
            options = suggest(trial, self._plan.space)
            for rows, end in zip(self._plan.stages, self._plan.stage_ends(), strict=True):
                watch.begin(rows, end)
                self._train(trial, options, rows, folder, watch)
                watch.conclude()
            return self._record(trial, options, folder)
        except TrainingInterrupted:
            self._remove(folder)
            raise KeyboardInterrupt from None  # Optuna hands it on, and counts no failure of the trial's own
        except (TrialPruned, FenleiError) as error:
            self._remove(folder)
            # What a row itself offers leaves no room: the question's own complaint, told with the place of the row.
            of_a_row = isinstance(error.__cause__, ConfigError)
            if isinstance(error, TrackerError) or not (of_a_row or isinstance(error, (ConfigError, ModelError))):
                raise
            trial.set_user_attr(ERROR, str(error))
            raise UnfitError(str(error)) from error
        finally:
            trial.set_user_attr(SECONDS, round(time.monotonic() - began, 1))
            trial.set_user_attr(ROWS_SEEN, round(watch.rows_seen))

    def _train(self, trial: Trial, options: dict[str, Any], rows: int, folder: Path, watch: Watch) -> None:
        if rows == self._plan.stages[-1]:
            try:
                train(out=folder, config=self._plan.config.replace(**options), progress=watch)
            except UnmetPromiseError as error:  # what the calibrating rows cannot promise chooses nothing
                trial.set_user_attr(UNMET, str(error.__cause__))
            return
        # Of an early stage only its figure is wanted: no baseline, no promises, and no folder afterwards.
        early = folder.with_name(f"{folder.name}-{rows}")
        config = self._plan.config.replace(**options, **dataclasses.asdict(TrustConfig()), max_train_rows=rows, baseline=False)
        try:
            train(out=early, config=config, progress=watch)
        finally:
            self._remove(early)

    def _remove(self, run: Path) -> None:
        """A run that is not wanted any more, but for what trackers wrote into it: each training is one of theirs."""
        if (run / LOGS).is_dir():
            kept = self._plan.out / LOGS / run.name
            kept.parent.mkdir(exist_ok=True)
            with suppress(OSError):
                shutil.move(run / LOGS, kept)
        shutil.rmtree(run, ignore_errors=True)

    def _record(self, trial: Trial, options: dict[str, Any], folder: Path) -> float:
        value = kept_figure(folder)
        told = {"number": trial.number, "macro_f1": value, "options": options, "defaults": DEFAULTS in trial.user_attrs}
        write_text(folder / RECORD, json.dumps(told, ensure_ascii=False, indent=2) + "\n")
        return value


def kept_figure(run: Path) -> float:
    """The selection figure of the weights that a run keeps. The best of its evaluations may be another, higher by luck."""
    kept, history = read_manifest(run)["best_step"], read_json(run / "metrics.json")["history"]
    return next(float(entry["eval_selection"]) for entry in history if entry["step"] == kept and "eval_selection" in entry)


class Watch:
    """Told of a trial's progress, it reports each evaluation to the study, and ends the trial where the pruner says so."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._may_end = DEFAULTS not in trial.user_attrs  # what all others are compared with is trained to its end
        self._start = self._end = self._reported = 0
        self._rows, self._rows_before, self._epoch = 0, 0.0, 0.0
        self.best = float("-inf")
        """Of the present stage, the best selection figure so far."""

    @property
    def rows_seen(self) -> float:
        """Rows that have gone through training, in all stages and epochs together."""
        return self._rows_before + self._rows * self._epoch

    def begin(self, rows: int, end: int) -> None:
        """A stage of so many rows begins; at its end the step `end` is reported."""
        self._start, self._end = self._end, end
        self._rows_before, self._rows, self._epoch = self.rows_seen, rows, 0.0
        self.best = float("-inf")

    def __call__(self, now: Progress) -> None:
        self._epoch = now.epoch
        if now.selection is None:
            return
        self.best = max(self.best, now.selection)
        done = self._start + (self._end - self._start) * now.step // now.steps
        self._report(self._end if now.step >= now.steps else min(done, self._end - 1))

    def conclude(self) -> None:
        """The stage has ended, maybe before its last step."""
        self._report(self._end)

    def _report(self, step: int) -> None:
        if step <= self._reported:
            return
        self._reported = step
        self._trial.report(self.best, step)
        if step < FULL and self._trial.should_prune() and self._may_end:
            raise TrialPruned(f"after {step} % of a full training")

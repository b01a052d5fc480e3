"""tune(): a search for better options, trial by trial, by the selecting half of dev."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fenlei.artifact import checked_path, is_taken, saving
from fenlei.config import RunConfig, SearchConfig
from fenlei.data.frames import is_frame, refuse_rows
from fenlei.data.splits import load_dataset
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.models.devices import pick_device
from fenlei.models.qlora import check_four_bit
from fenlei.training.choices import choose, model_name
from fenlei.training.fit import TrainingInterrupted
from fenlei.training.ranks import is_one_of_many
from fenlei.training.setup import base_fingerprints, data_fingerprints

if TYPE_CHECKING:
    from optuna.study import Study

    from fenlei.training.search.outcome import HeldOut, TrialRecord
    from fenlei.training.search.plan import Plan

LOOK_EVERY = 1.0
"""Seconds between two looks at a study that others work at."""


@dataclass(frozen=True)
class TuneResult:
    """A finished search."""

    out: Path
    best: Path
    """The run of the best trial."""
    options: dict[str, Any]
    """Of the best trial, those that were searched."""
    trials: tuple[TrialRecord, ...]
    importances: dict[str, float]
    """How much each option decided, adding up to 1; empty for few trials."""
    held_out: HeldOut | None
    """The best trial beside the defaults, on the rows of dev that chose nothing; None where the defaults are the best."""
    stages: tuple[int, ...]
    """Training rows of each stage of a trial."""
    full_trainings: float
    """What the whole search cost, in trainings with the defaults on all rows (rows that went through, not seconds)."""
    notes: tuple[str, ...]
    seconds: float


def tune(
    data: str | Path | None = None,
    *,
    out: str | Path,
    model: str | None = None,
    config: RunConfig | None = None,
    space: Mapping[str, Any] | str | Path | None = None,
    announce: Callable[[str], None] | None = None,
    **options: Any,
) -> TuneResult:
    """Searches options of `train` for those with the best macro F1 on the selecting rows of dev. Nothing is ever measured on test.

    `space` is a YAML file or what such a file says; None: learning rate, batch size, epochs and, for LoRA, rank and alpha, around the
    defaults. `options` are those of SearchConfig and of `train`, by name. The first trial has the defaults. The same call goes on with a
    search that was ended. `announce` is told each choice and each trial. ConfigError, DataError, ModelError and ArtifactError come before
    anything is trained, or where the machine fails; TrainingInterrupted after Ctrl-C; FenleiError where no trial came to its end.
    """
    began = time.monotonic()
    tell = announce or _say_nothing
    _check_surroundings()
    if is_frame(data):
        raise DataError(f"data: every trial reads the rows anew, found {type(data).__name__}; write the frame to a file, and give that")
    refuse_rows("data", data)
    search = SearchConfig(**{one.name: options.pop(one.name) for one in dataclasses.fields(SearchConfig) if one.name in options})
    named = {key: str(value) for key, value in (("data", data), ("model", model)) if value is not None}
    plan, notes = _plan((config or RunConfig()).overridden({**named, **options}), search, space, Path(out))
    for note in notes:
        tell(note)
    with _opened(plan, search) as study:
        told = _begin(study, plan)
        for note in told:
            tell(note)
        _run(study, plan, search, tell)
        result = _result(study, plan, (*notes, *told), began)
    for note in result.notes[len(notes) + len(told) :]:
        tell(note)
    return result


def _result(study: Study, plan: Plan, notes: tuple[str, ...], began: float) -> TuneResult:
    """What the search has found, its best trial put in place."""
    from fenlei.training.search.outcome import BEST, held_out, importances, records, settle
    from fenlei.training.search.study import UNMET

    best = settle(study, plan)
    trials = records(study)
    unmet = best.user_attrs.get(UNMET)
    return TuneResult(
        out=plan.out,
        best=plan.out / BEST,
        options=dict(best.params),
        trials=trials,
        importances=importances(study, plan.stage_ends()[0]),
        held_out=held_out(study, plan, best),
        stages=plan.stages,
        full_trainings=sum(one.rows_seen for one in trials) / _rows_of_a_training(plan),
        notes=(*notes, *([f"the best run is without what cannot be promised: {unmet}"] if unmet else [])),
        seconds=time.monotonic() - began,
    )


def _check_surroundings() -> None:
    if find_spec("optuna") is None:
        raise ConfigError("a search needs Optuna: pip install 'fenlei[tune]'")
    if is_one_of_many():
        raise ConfigError("a search starts its own processes: run it without torchrun or accelerate launch, and give --workers")


def _plan(config: RunConfig, search: SearchConfig, space: Mapping[str, Any] | str | Path | None, out: Path) -> tuple[Plan, list[str]]:
    """What will be searched, and what there is to say of it."""
    from fenlei.training.search.plan import Plan, stage_rows
    from fenlei.training.search.space import read_space, space_from, usual_space

    model_name(config)  # a search without one ends before its data is read
    checked_path(out)
    if config.model.tuning == "none":
        raise ConfigError("tuning 'none' learns nothing, so there is nothing to search")
    device, _ = pick_device(config.optimization.device)  # each trial would fail by it
    if config.model.tuning == "qlora":
        check_four_bit(device)
    dataset = load_dataset(config.data, seed=config.optimization.seed)
    if dataset.multi_label:
        raise ConfigError("a search of multi-label data is not there yet: its figures are those of one label a row; use `fenlei train`")
    # Once: the lengths of an early stage's texts might speak for another way to read.
    chosen = choose(config, dataset)
    usual, rows = chosen.config, len(dataset.train)
    if space is None:
        searched = usual_space(usual)
    elif isinstance(space, Mapping):
        searched = space_from(space, usual)
    else:
        searched = space_from(read_space(space), usual, where=str(space))
    fingerprints = data_fingerprints((*dataset.train, *dataset.selecting, *dataset.calibrating, *dataset.test))
    fingerprints |= base_fingerprints(chosen.base, chosen.instruction)
    # Where the number of steps is given, fewer rows would save nothing.
    stages = (rows,) if config.optimization.max_steps is not None else stage_rows(rows, search.first_rows)
    plan = Plan(out, usual, searched, search.pruner, search.trials, stages, fingerprints)
    notes = [*dataset.notes, *map(str, chosen.reasons), f"searched: {', '.join(searched)}"]
    notes.append("stages of a trial: " + ", ".join(f"{stage:,}" for stage in stages) + f" training rows; pruner {search.pruner}")
    return plan, notes


def _opened(plan: Plan, search: SearchConfig) -> AbstractContextManager[Study]:
    """The study, and room for its trials. ArtifactError where a study in memory would find some there."""
    from fenlei.training.search import study as studies

    if search.storage == studies.MEMORY and is_taken(plan.out):
        raise ArtifactError(f"{plan.out}: is not empty, and a study in memory begins anew; choose a new folder for --out")
    with saving(plan.out):
        (plan.out / "trials").mkdir(parents=True, exist_ok=True)
    return studies.open_study(plan, search.storage, seed=plan.config.optimization.seed, beat=studies.BEAT)


def _begin(study: Study, plan: Plan) -> list[str]:
    """Queues the defaults as the first trial; what there is to say of the study. ArtifactError where the folder holds another's trials."""
    from fenlei.training.search import study as studies
    from fenlei.training.search.outcome import BEST
    from fenlei.training.search.space import within

    known = study.get_trials(deepcopy=False)
    if not known and (any((plan.out / "trials").iterdir()) or (plan.out / BEST).exists()):  # of which others may all have been pruned
        raise ArtifactError(f"{plan.out}: holds trials of another study; give its --storage, or choose a new folder for --out")
    notes = [f"going on with a study of {studies.taken(study)} trials"] if known else []
    options = within(plan.space, plan.config)
    if options is None:
        notes.append("the defaults lie outside the space: they are not tried, and nothing is compared with them")
    elif not any(studies.DEFAULTS in one.user_attrs and (not one.state.is_finished() or _ended_by_itself(one)) for one in known):
        studies.queue(study, options, plan.space, **{studies.DEFAULTS: True})
    return notes


def _ended_by_itself(trial: Any) -> bool:
    from fenlei.training.search.study import ERROR

    return trial.state.name != "FAIL" or ERROR in trial.user_attrs


def _run(study: Study, plan: Plan, search: SearchConfig, tell: Callable[[str], None]) -> None:
    """Until the study has the trials that are wanted."""
    from fenlei.training.search.study import BEAT, taken, waiting
    from fenlei.training.search.worker import work

    teller = _Teller(study, tell)
    try:
        if search.workers == 1:
            work(study, plan, BEAT, teller.look)
        else:
            _watch(_start_workers(plan, search), teller)
    except KeyboardInterrupt:
        raise TrainingInterrupted(f"{plan.out}: the search was stopped; the same command goes on with it") from None
    if waiting(study) or taken(study) < plan.trials:
        raise TrainingInterrupted(f"{plan.out}: every worker ended before the last trial; the same command goes on with the search")


def _start_workers(plan: Plan, search: SearchConfig) -> list[subprocess.Popen[str]]:
    """One process each, which takes its share of the processor, and a GPU of its own where there are several."""
    from fenlei.training.search.study import BEAT
    from fenlei.training.search.worker import told

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if "CUDA_VISIBLE_DEVICES" in os.environ else None
    gpus = gpus or [str(one) for one in range(torch.cuda.device_count())]
    workers = []
    for number in range(search.workers):
        environment = dict(os.environ)
        if len(gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        worker = subprocess.Popen(
            [sys.executable, "-m", "fenlei.training.search.worker"], stdin=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
        )
        assert worker.stdin is not None
        worker.stdin.write(told(plan, search.storage, seed=plan.config.optimization.seed, beat=BEAT, workers=search.workers) + "\n")
        worker.stdin.flush()  # and left open: its end tells the worker that this process is gone
        workers.append(worker)
    return workers


def _watch(workers: Sequence[subprocess.Popen[str]], teller: _Teller) -> None:
    """Tells of trials and of workers that die, until all have ended."""
    ended: set[int] = set()
    try:
        while len(ended) < len(workers):
            time.sleep(LOOK_EVERY)
            teller.look()
            for number, worker in enumerate(workers):
                code = worker.poll()
                if code is not None and number not in ended:
                    ended.add(number)
                    if code:
                        teller.tell(f"worker {number} ended with {code}; what it was at is tried again by another")
    finally:
        # Ctrl-C has reached the workers too; each queues its trial again before it ends.
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in workers:
            worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()  # not while it lives: that is a second SIGTERM, which ends it in mid-step
        teller.look()


class _Teller:
    """Tells of each trial once it has ended."""

    def __init__(self, study: Study, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self._study = study
        self._known = {one.number for one in self._records()}

    def look(self) -> None:
        for one in self._records():
            if one.number not in self._known:
                self._known.add(one.number)
                self.tell(_line(one))

    def _records(self) -> tuple[TrialRecord, ...]:
        from fenlei.training.search.outcome import records

        return records(self._study)


def _line(trial: TrialRecord) -> str:
    figure = "no figure" if trial.macro_f1 is None else f"macro F1 {trial.macro_f1:.4f}"
    how = f"failed: {trial.error}" if trial.error else figure if trial.state == "complete" else f"{figure} after {trial.step} %, pruned"
    options = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in trial.options.items())
    return f"trial {trial.number}: {how}; {options}{' (the defaults)' if trial.defaults else ''}; {trial.seconds:,.0f} s"


def _rows_of_a_training(plan: Plan) -> float:
    options = plan.config.optimization
    if options.max_steps is not None:
        return float(options.max_steps * int(options.batch_size or 1))
    return plan.stages[-1] * float(options.epochs or 1.0)


def _say_nothing(note: str) -> None:
    return None

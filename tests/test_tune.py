"""A search: its space, its stages, its workers, what is kept of it, and what it must not look at."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pyarrow as pa
import pytest
import yaml
from conftest import TOY_NEWS, write_jsonl
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from processes import ended, split
from rich.console import Console

from fenlei import Classifier, ConfigError, FenleiError, RunConfig, tune
from fenlei.artifact import MANIFEST
from fenlei.config import SearchConfig
from fenlei.data.splits import load_dataset
from fenlei.data.stratify import sample
from fenlei.errors import ArtifactError, DataError
from fenlei.report.search import held_out_line, ranked, render_search, trials_table, write_search
from fenlei.training import fit
from fenlei.training.fit import TrainingInterrupted
from fenlei.training.progress import Progress
from fenlei.training.search import study as studies
from fenlei.training.search import trial as trials
from fenlei.training.search.plan import Plan, stage_rows
from fenlei.training.search.space import TUNABLE, read_space, space_from, usual_space
from fenlei.training.tracking import TrackerError
from fenlei.training.tune import TuneResult, _Teller, _watch

RATES = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}
QUICK: dict[str, Any] = {
    "epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "tuning": "full", "device": "cpu", "max_length": 16, "baseline": False,
}  # fmt: skip


def searched(data: Path, model: Path, out: Path, **options: Any) -> TuneResult:
    return tune(data, model=str(model), out=out, **{"trials": 3, "first_rows": 15, "space": RATES, **QUICK, **options})


def trials_of(out: Path) -> list[FrozenTrial]:
    """As the study's file has them."""
    kept = optuna.storages.RDBStorage(f"sqlite:///{out / 'study.db'}")
    try:
        return optuna.load_study(study_name=out.name, storage=kept).trials
    finally:
        kept.engine.dispose()


@pytest.fixture(scope="module")
def finished(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    """Four trials over one and a half orders of rates."""
    out = tmp_path_factory.mktemp("search") / "search"
    return searched(TOY_NEWS, tiny_qwen, out, trials=4, test_ratio=0.1)


def test_the_best_run_is_kept_whole_and_the_others_are_thinned(finished: TuneResult) -> None:
    assert Classifier.load(finished.best).predict(["央行宣布降准"])[0].label
    assert [path.parent for path in finished.out.rglob(MANIFEST)] == [finished.best]
    best = max((one for one in finished.trials if one.state == "complete"), key=lambda one: one.macro_f1 or 0.0)
    assert json.loads((finished.best / trials.RECORD).read_text(encoding="utf-8"))["number"] == best.number
    kept = RunConfig.from_yaml(finished.best / "config.yaml").to_options()
    assert {name: kept[name] for name in finished.options} == pytest.approx(finished.options)


def test_the_first_trial_has_the_defaults_and_comes_to_its_end(finished: TuneResult) -> None:
    first = finished.trials[0]
    assert (first.number, first.defaults, first.state, first.options) == (0, True, "complete", {"learning_rate": 1e-3})
    assert not any(one.defaults for one in finished.trials[1:])


def test_defaults_that_failed_were_tried(finished: TuneResult) -> None:
    failed = dataclasses.replace(finished.trials[0], state="failed", macro_f1=None, step=0, error="out of memory")
    other = dataclasses.replace(finished.trials[0], number=1, defaults=False)
    told = held_out_line(dataclasses.replace(finished, held_out=None, trials=(failed, other)))
    assert told == "The training with the defaults failed, so nothing says what the search has won."
    assert "were not tried" in held_out_line(dataclasses.replace(finished, held_out=None, trials=(other,)))


def test_a_trial_reports_more_rows_step_by_step(finished: TuneResult) -> None:
    assert finished.stages == (15, 45)
    for one in trials_of(finished.out):
        steps = list(one.intermediate_values)
        assert steps == sorted(steps)
        assert 33 in steps  # 15 of 45 rows, where the first stage ends
        assert (100 in steps) == (one.state == TrialState.COMPLETE)
        if one.state == TrialState.COMPLETE:
            assert one.user_attrs[studies.ROWS_SEEN] == 2 * 15 + 2 * 45


def test_test_rows_and_calibrating_rows_choose_nothing(
    tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path, finished: TuneResult
) -> None:
    """The same search with other test and calibrating texts goes exactly the same way."""
    data = load_dataset(RunConfig.from_options({"data": str(TOY_NEWS), "test_ratio": 0.1}).data, seed=42)
    unseen = {example.line for example in (*data.test, *data.calibrating)}
    rows = [{**row, "text": "无关" * 4} if line in unseen else row for line, row in enumerate(toy_rows, start=1)]
    changed = write_jsonl(tmp_path / "toy_news.jsonl", rows)
    again = searched(changed, tiny_qwen, tmp_path / "search", trials=4, test_ratio=0.1)
    told = [(one.options, one.macro_f1, one.state) for one in finished.trials]
    assert [(one.options, one.macro_f1, one.state) for one in again.trials] == told


def test_a_search_is_gone_on_with_and_an_earlier_best_gives_way(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    space = {"learning_rate": [1e-7, 1e-2]}
    first = searched(toy_file, tiny_qwen, out, trials=1, space=space, learning_rate=1e-7, pruner="none", first_rows=60)
    assert first.options == {"learning_rate": 1e-7}
    more = searched(toy_file, tiny_qwen, out, trials=4, space=space, learning_rate=1e-7, pruner="none", first_rows=60)
    assert [one.number for one in more.trials] == [0, 1, 2, 3]
    assert more.options == {"learning_rate": 1e-2}
    assert [path.parent for path in out.rglob(MANIFEST)] == [more.best]
    assert more.held_out is not None
    assert more.held_out.best.accuracy > more.held_out.defaults.accuracy
    assert "more accurate than the defaults" in held_out_line(more)
    again = searched(toy_file, tiny_qwen, out, trials=4, space=space, learning_rate=1e-7, pruner="none", first_rows=60)
    assert again.trials == more.trials


@pytest.mark.timeout(400)
def test_a_killed_workers_trial_is_tried_again(tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers on one study; the first to train is killed at it: the study is complete, with that trial's options in another trial."""
    monkeypatch.setattr(studies, "BEAT", 1)
    monkeypatch.setattr("fenlei.training.tune.LOOK_EVERY", 0.1)
    out, killed, told = tmp_path / "search", tmp_path / "killed", []
    (tmp_path / "sitecustomize.py").write_text(  # imported by a Python that starts: both workers are the real command
        "import os, signal\n"
        "from fenlei.training.search import trial\n"
        "usual = trial.Watch.__call__\n"
        "def mortal(self, now):\n"
        "    usual(self, now)\n"
        "    try:\n"
        f"        killed = open({str(killed)!r}, 'x')\n"
        "    except FileExistsError:\n"
        "        return\n"
        "    print(self._trial.number, file=killed, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "trial.Watch.__call__ = mortal\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    result = searched(toy_file, tiny_qwen, out, trials=3, workers=2, first_rows=60, pruner="none", epochs=1, announce=told.append)
    assert any("ended with -9" in note for note in told)
    assert len(result.trials) == 3
    number = int(killed.read_text())
    assert number not in [one.number for one in result.trials]
    assert trials_of(out)[number].params in [one.options for one in result.trials if one.state == "complete"]
    best = json.loads((result.best / trials.RECORD).read_text(encoding="utf-8"))["number"]
    assert {path.name for path in (out / "trials").iterdir()} == {f"{one.number:04d}" for one in result.trials if one.number != best}


def test_a_worker_ends_with_the_search_that_began_it() -> None:
    """However that ended: SIGKILL leaves nobody who could tell it."""
    told = json.dumps({"plan": {}, "storage": None, "seed": 0, "beat": 1, "workers": 1})
    (listens, tells), (heard, says) = os.pipe(), os.pipe()

    def busy(*_: object, **__: object) -> None:
        os.write(says, b"at it\n")
        time.sleep(60)

    def work() -> None:
        from fenlei.training.search import worker

        os.close(tells)  # its own copy would keep the pipe open
        os.dup2(listens, 0)
        sys.stdin = os.fdopen(0, closefd=False)  # that of pytest is no file
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        worker.Plan = SimpleNamespace(from_json=lambda told: told)  # type: ignore[assignment,misc]
        worker.open_study = busy  # type: ignore[assignment]
        worker.main()

    child = split(work)
    os.close(listens)
    os.close(says)
    with os.fdopen(heard) as hears:
        with os.fdopen(tells, "w") as search:
            search.write(told + "\n")
            search.flush()
            assert hears.readline() == "at it\n"
        assert ended(child) == -signal.SIGTERM


def test_workers_that_are_stopped_end_their_step_first(tmp_path: Path) -> None:
    """The end of their standard input is a second SIGTERM, which would end them at once: each is waited for before."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, signal, sys, threading, time\n"
        "asked = []\n"
        "def ask(number, frame):\n"
        "    asked.append(number)\n"
        "    signal.signal(number, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGTERM, ask)\n"
        "def end():\n"
        "    os.read(0, 1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=end, daemon=True).start()\n"
        "print('at it', flush=True)\n"
        "while not asked:\n"
        "    time.sleep(0.01)\n"
        "time.sleep(float(sys.argv[1]))\n"
        "os._exit(130)\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, str(script), seconds], **pipes) for seconds in ("0.3", "0.6")]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at it\n"
    looks = iter([KeyboardInterrupt, None])

    def look() -> None:
        if (error := next(looks)) is not None:
            raise error

    with pytest.raises(KeyboardInterrupt):
        _watch(workers, cast(_Teller, SimpleNamespace(look=look, tell=print)))
    assert [worker.returncode for worker in workers] == [130, 130]
    for worker in workers:
        worker.stdout.close()


def test_ctrl_c_leaves_a_search_to_go_on_with(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """The trial that was cut off is queued again, and counts once."""
    told = trials.Watch.__call__

    def interrupted(self: trials.Watch, now: Progress) -> None:
        told(self, now)
        if self._trial.number == 1 and now.step == 1:
            signal.raise_signal(signal.SIGINT)

    options: dict[str, Any] = {"trials": 2, "first_rows": 60, "pruner": "none"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.Watch, "__call__", interrupted)
        with pytest.raises(TrainingInterrupted, match="the same command goes on with it"):
            searched(toy_file, tiny_qwen, tmp_path / "search", **options)
    cut_off = trials_of(tmp_path / "search")[1]
    assert cut_off.state == TrialState.FAIL
    result = searched(toy_file, tiny_qwen, tmp_path / "search", **options)
    assert [(one.number, one.state) for one in result.trials] == [(0, "complete"), (2, "complete")]
    assert result.trials[1].options == cut_off.params


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "journal:{}/study.log"])
@pytest.mark.parametrize("beats", [True, False])
def test_who_gives_no_sign_of_life_is_given_up(storage: str, beats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a worker that died before its first sign, whom Optuna would wait for."""
    usual = RunConfig.from_options({"tuning": "full", "learning_rate": 3e-4, "batch_size": 32, "epochs": 3})
    plan = Plan(tmp_path, usual, usual_space(usual), "halving", 7, (10, 30), {})
    with studies.open_study(plan, storage.format(tmp_path), seed=1, beat=1) as study:
        trial = study.ask(plan.space)
        if beats:
            trial.set_user_attr(studies.WORKER, "here:1")
            study._storage.record_heartbeat(trial._trial_id)
        studies.bury_the_dead(study, 1)
        assert [one.state for one in study.trials] == [TrialState.RUNNING]
        if beats and storage.startswith("sqlite"):
            with closing(sqlite3.connect(tmp_path / "study.db")) as base, base:  # which has a clock of its own
                base.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 minute')")
        else:
            later = time.time() + studies.MISSED_BEATS + 2
            monkeypatch.setattr(studies, "time", SimpleNamespace(time=lambda: later))
        studies.bury_the_dead(study, 1)
        dead, again = study.trials
        assert (dead.state, again.state) == (TrialState.FAIL, TrialState.WAITING)
        assert again.params == dead.params
        assert studies.taken(study) == 1
        assert study.ask(plan.space).params == dead.params


def test_a_trial_whose_options_cannot_work_is_noted_and_the_search_goes_on(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    result = searched(
        toy_file, tiny_qwen, tmp_path / "some", space={"layers": [2, 99]}, layers=2, trials=4, pruner="none", epochs=1, first_rows=60
    )
    failed = [one for one in result.trials if one.state == "failed"]
    assert failed
    assert all("layers" in str(one.error) for one in failed)
    assert len(result.trials) == 4
    assert result.options["layers"] == 2
    with pytest.raises(FenleiError, match=r"no trial came to its end; the first that failed: .*layers"):
        searched(toy_file, tiny_qwen, tmp_path / "none", space={"layers": [98, 99]}, trials=2, epochs=1, first_rows=60)


@pytest.mark.parametrize("error", [ArtifactError("the disk is full"), TrackerError("report_to 'wandb': log in")], ids=["disk", "tracker"])
def test_what_the_machine_cannot_do_ends_the_search_and_is_no_failure_of_the_trial(
    error: FenleiError, tiny_qwen: Path, toy_file: Path, tmp_path: Path
) -> None:
    """The same command goes on with it, and tries the same options again."""
    train = trials.train

    def failing(out: Path, **given: Any) -> Any:
        if out.name == "0001":
            raise error
        return train(out=out, **given)

    options: dict[str, Any] = {"trials": 2, "first_rows": 60, "pruner": "none", "epochs": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "train", failing)
        with pytest.raises(type(error), match=str(error)):
            searched(toy_file, tiny_qwen, tmp_path / "search", **options)
    cut_off = trials_of(tmp_path / "search")[1]
    assert (cut_off.state, studies.ERROR in cut_off.user_attrs) == (TrialState.FAIL, False)
    result = searched(toy_file, tiny_qwen, tmp_path / "search", **options)
    assert [(one.number, one.state) for one in result.trials] == [(0, "complete"), (2, "complete")]
    assert result.trials[1].options == cut_off.params


def test_options_that_leave_no_room_for_what_a_row_offers_fail_with_their_trial(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every row has candidates, the row is what notices; its complaint is one of the options all the same."""
    train = trials.train

    def without_room(out: Path, **given: Any) -> Any:
        if out.name == "0001":
            raise DataError("rows.jsonl:1: no room") from ConfigError("no room")
        return train(out=out, **given)

    monkeypatch.setattr(trials, "train", without_room)
    result = searched(toy_file, tiny_qwen, tmp_path / "search", trials=2, first_rows=60, pruner="none", epochs=1)
    assert [(one.state, one.error) for one in result.trials] == [("complete", None), ("failed", "rows.jsonl:1: no room")]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "cuda"}, "device 'cuda' is not available"), ({"tuning": "qlora"}, "tuning 'qlora' needs a CUDA device")],
)
def test_what_the_machine_has_not_ends_a_search_before_its_first_trial(
    options: dict[str, Any], message: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        searched(toy_file, tiny_qwen, tmp_path / "search", **options)
    assert not (tmp_path / "search").exists()


def test_a_trial_counts_for_the_weights_that_its_run_keeps(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two checkpoints within one standard error that is the later one: the figure of the other is none of the run's."""

    def evaluation_of(setup: Any, ranks: Any) -> Any:
        figures = iter((0.95, 0.9) if setup.config.optimization.learning_rate == QUICK["learning_rate"] else (0.92, 0.92))

        def evaluate(_: Any) -> dict[str, float]:
            figure = next(figures)
            return {"accuracy": figure, "macro_f1": figure, "loss": 1.0, "selection": figure}

        return evaluate

    monkeypatch.setattr("fenlei.training.fit.evaluation_of", evaluation_of)
    result = searched(toy_file, tiny_qwen, tmp_path / "search", trials=2, first_rows=60, pruner="none")
    assert [one.macro_f1 for one in result.trials] == [0.9, 0.92]
    assert result.options == result.trials[1].options
    assert [json.loads(path.read_text(encoding="utf-8"))["macro_f1"] for path in sorted(result.out.rglob(trials.RECORD))] == [0.92, 0.9]


def test_the_network_of_a_trial_that_was_ended_is_gone_before_the_next_is_loaded(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in cycles, and is as large as ever: two may not fit the memory."""
    networks: list[weakref.ref[Any]] = []
    left: list[int] = []
    prepare, told = fit.prepare, trials.Watch.__call__

    def loaded(*given: Any, **named: Any) -> Any:
        left.append(sum(one() is not None for one in networks))
        setup = prepare(*given, **named)
        networks.append(weakref.ref(setup.method))
        return setup

    def ended(self: trials.Watch, now: Progress) -> None:
        told(self, now)
        if self._trial.number == 1:
            raise optuna.TrialPruned

    monkeypatch.setattr(fit, "prepare", loaded)
    monkeypatch.setattr(trials.Watch, "__call__", ended)
    gc.disable()
    try:
        result = searched(toy_file, tiny_qwen, tmp_path / "search", first_rows=60, pruner="none", epochs=1)
    finally:
        gc.enable()
    assert [one.state for one in result.trials] == ["complete", "pruned", "complete"]
    assert left == [0, 0, 0]


def test_only_as_itself_is_a_search_gone_on_with(finished: TuneResult, tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"begun with other options \(epochs\)"):
        searched(TOY_NEWS, tiny_qwen, finished.out, trials=4, test_ratio=0.1, epochs=3)
    with pytest.raises(ConfigError, match=r"begun with other .*data"):
        searched(toy_file, tiny_qwen, finished.out, trials=4, test_ratio=0.1)
    with pytest.raises(ArtifactError, match="holds trials of another study"):
        searched(TOY_NEWS, tiny_qwen, finished.out, trials=4, test_ratio=0.1, storage=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ArtifactError, match="a study in memory begins anew"):
        searched(TOY_NEWS, tiny_qwen, finished.out, storage="memory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fenlei.training.tune.base_fingerprints", lambda *_: {"base model": "another"})
        with pytest.raises(ConfigError, match=r"begun with other data \(base model\)"):
            searched(TOY_NEWS, tiny_qwen, finished.out, trials=4, test_ratio=0.1)
    spared = {"gradient_checkpointing": True, "memory": "6GB", "baseline": True}  # no figure depends on these
    assert searched(TOY_NEWS, tiny_qwen, finished.out, trials=4, test_ratio=0.1, **spared).trials == finished.trials


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_no_trial_is_given_to_two_workers_that_begin_in_the_same_moment(tmp_path: Path) -> None:
    usual = RunConfig.from_options({"tuning": "full", "learning_rate": 3e-4, "batch_size": 32, "epochs": 3})
    plan = Plan(tmp_path, usual, usual_space(usual), "none", 40, (30,), {})
    together, given = threading.Barrier(4), []

    def ask(study: optuna.Study) -> None:
        for _ in range(10):
            together.wait(60)
            given.append(study.ask().number)

    with ExitStack() as stack:
        opened = [stack.enter_context(studies.open_study(plan, None, seed=1, beat=60)) for _ in range(4)]
        for _ in range(20):  # so that half of what is given has waited, and half is new
            studies.queue(opened[0], {"learning_rate": 3e-4}, {"learning_rate": FloatDistribution(1e-5, 1e-2)})
        threads = [threading.Thread(target=ask, args=[study]) for study in opened]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert sorted(given) == list(range(40))


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_no_machine_draws_what_another_has_drawn(tmp_path: Path) -> None:
    """Each opens the study with the same seed, as does a search that is gone on with; and the same search again draws the same."""
    usual = RunConfig.from_options({"tuning": "full", "learning_rate": 3e-4, "batch_size": 32, "epochs": 3})

    def rates(folder: Path) -> list[float]:
        folder.mkdir()
        plan = Plan(folder, usual, space_from(RATES, usual), "none", 40, (30,), {})
        drawn = []
        with ExitStack() as stack:
            machines = [stack.enter_context(studies.open_study(plan, None, seed=1, beat=60)) for _ in range(3)]
            for at in range(6):
                trial = machines[at % 3].ask()
                drawn.append(trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True))
                machines[at % 3].tell(trial, 0.5)
        return drawn

    first = rates(tmp_path / "first")
    assert len(set(first)) == 6
    assert rates(tmp_path / "second") == first


def test_a_promise_that_cannot_be_kept_fails_no_trial(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """What the calibrating rows cannot promise is said of the best run, and chooses nothing."""
    told: list[str] = []
    options = {"target_accuracy": 0.75, "dev_ratio": 0.6, "learning_rate": 1e-9, "space": {"learning_rate": [1e-9, 2e-9]}}
    result = searched(toy_file, tiny_qwen, tmp_path / "search", announce=told.append, **options)
    assert {one.state for one in result.trials} <= {"complete", "pruned"}
    assert any("the best run is without what cannot be promised: an accuracy of 0.75 cannot be promised" in note for note in told)
    assert Classifier.load(result.best, device="cpu").predict(["央行"])[0].abstained is None
    with pytest.raises(ConfigError, match=r"target_accuracy 0\.99 takes at least"):  # whatever is trained
        searched(toy_file, tiny_qwen, tmp_path / "other", **{**options, "target_accuracy": 0.99})


def test_what_a_tracker_wrote_outlives_the_trial(tmp_path: Path) -> None:
    usual = RunConfig.from_options({"tuning": "full", "learning_rate": 3e-4, "batch_size": 32, "epochs": 3})
    plan = Plan(tmp_path, usual, usual_space(usual), "none", 40, (30,), {})
    for name in ("0001", "0001-30"):
        written = tmp_path / "trials" / name / "logs" / "wandb" / "run"
        written.parent.mkdir(parents=True)
        written.write_text(name)
        trials.Objective(plan)._remove(tmp_path / "trials" / name)
        assert (tmp_path / "logs" / name / "wandb" / "run").read_text() == name
    assert not list((tmp_path / "trials").iterdir())


def test_a_retried_trial_begins_at_the_pruners_first_rung() -> None:
    """What the pruner wrote on the trial that was cut off would count the second try as further on than it is."""
    study = optuna.create_study(direction="maximize")
    space = {"learning_rate": FloatDistribution(1e-5, 1e-2, log=True)}
    cut_off = create_trial(
        state=TrialState.FAIL, params={"learning_rate": 1e-4}, distributions=space,
        user_attrs={studies.WORKER: "here:1", studies.DEFAULTS: True}, system_attrs={"completed_rung_0": 0.5},
    )  # fmt: skip
    study.add_trial(cut_off)
    studies.try_again(study, study.trials[0])
    again = study.trials[1]
    assert (again.state, again.params, again.system_attrs) == (TrialState.WAITING, {"learning_rate": 1e-4}, {})
    assert again.user_attrs == {studies.DEFAULTS: True, studies.RETRIES: 1, studies.RETRY_OF: 0}
    assert studies.was_given_up(study, 0)
    assert not studies.was_given_up(study, 1)
    for _ in range(studies.MOST_RETRIES):
        studies.try_again(study, study.trials[-1])
    assert len(study.trials) == 1 + studies.MOST_RETRIES
    assert studies.taken(study) == studies.MOST_RETRIES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": [1, 2]}, "cannot be searched .did you mean 'learning_rate'"),
        ({"lr": [1e-5, 1e-4]}, "cannot be searched .did you mean 'learning_rate'"),
        ({"model": ["nano", "bert"]}, "'model' cannot be searched"),
        ({"learning_rate": ["fast", 1e-4]}, "learning_rate must be a number"),
        ({"learning_rate": {"low": 1e-3}}, "a range {low: X, high: Y"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-5}}, "is no range"),
        ({"learning_rate": {"low": -1.0, "high": 1e-3}}, "learning_rate must be above 0"),
        ({"batch_size": [16]}, "at least two values"),
        ({"head": {"low": "linear", "high": "mlp"}}, "takes no numbers"),
        ({"layers": [None, 2]}, "null is no value"),
        ({"lora_rank": [8, 16]}, "belong to tuning 'lora'"),
        ({"learning_rate": [1, 2], "weight_decay": [0.1, 3.0]}, "weight_decay must be at least 0 and below 1"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"space: .*{message}" if "belong" not in message else message):
        space_from(given, RunConfig.from_options({"tuning": "full"}))


def test_a_space_reads_as_it_is_written(tmp_path: Path) -> None:
    """Whole numbers for options that take them; YAML 1.1 reads 1e-5, without a dot, as a text."""
    path = tmp_path / "space.yaml"
    path.write_text(
        "learning-rate: {low: 1e-5, high: 1e-3, log: true}\nlora_rank: [8, 16]\nlayers: {low: 4, high: 8, step: 2}\n", encoding="utf-8"
    )
    space = space_from(read_space(path), RunConfig.from_options({"tuning": "lora"}))
    assert space == {
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "lora_rank": CategoricalDistribution((8, 16)),
        "layers": IntDistribution(4, 8, step=2),
    }


@pytest.mark.parametrize("tuning", ["full", "lora", "qlora", "frozen"])
def test_the_usual_space_holds_the_defaults(tuning: str) -> None:
    usual = RunConfig.from_options({"tuning": tuning, "learning_rate": 3e-4, "batch_size": 32, "epochs": 3, "lora_rank": 12})
    space = usual_space(usual)
    options = usual.to_options()
    assert {"learning_rate", "batch_size", "epochs"} <= space.keys()
    adapts = tuning in ("lora", "qlora")
    assert ({"lora_rank", "lora_alpha"} <= space.keys()) == adapts
    if adapts:
        assert space_from({"lora_rank": [8, 16], "lora_dropout": [0.0, 0.1]}, usual).keys() == {"lora_rank", "lora_dropout"}
    for name, one in space.items():
        assert one._contains(one.to_internal_repr(options[name])), name


def test_a_plan_comes_back_from_json(tmp_path: Path) -> None:
    usual = RunConfig.from_options({"tuning": "lora", "learning_rate": 3e-4, "batch_size": 32, "epochs": 3, "prompt": "新闻：{text}"})
    plan = Plan(tmp_path, usual, usual_space(usual), "median", 7, (10, 30), {"a": "b"})
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_stages_are_thirds_and_none_is_too_small() -> None:
    assert stage_rows(90_000, None) == (10_000, 30_000, 90_000)
    assert stage_rows(9_000, None) == (3_000, 9_000)
    assert stage_rows(5_000, None) == (5_000,)
    assert stage_rows(90_000, 1_000) == (1_111, 3_333, 10_000, 30_000, 90_000)
    assert stage_rows(90, 90) == (90,)


def test_a_sample_gives_each_class_its_share_and_grows() -> None:
    ids = [0] * 60 + [1] * 30 + [2] * 10
    few, more = sample(ids, 10, seed=1), sample(ids, 50, seed=1)
    assert [sum(ids[place] == label for place in few) for label in range(3)] == [6, 3, 1]
    assert len(more) == 50
    assert set(few) <= set(more)
    assert len(sample([0] * 98 + [1, 2], 10, seed=1)) >= 10
    assert {ids[place] for place in sample(ids, 3, seed=1)} == {0, 1, 2}


def test_max_train_rows_leaves_dev_and_test_as_they_are(toy_file: Path) -> None:
    options = {"data": str(toy_file), "test_ratio": 0.2}
    every = load_dataset(RunConfig.from_options(options).data, seed=1)
    some = load_dataset(RunConfig.from_options({**options, "max_train_rows": 12}).data, seed=1)
    assert len(some.train) == 12
    assert [example for example in every.train if example in some.train] == list(some.train)
    assert (some.selecting, some.calibrating, some.test, some.labels) == (every.selecting, every.calibrating, every.test, every.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2, "storage": "memory"}, "known to one process only"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"pruner": "hyberband"}, "pruner must be one of halving"),
        ({"storage": "nowhere://x"}, "storage: cannot be opened"),
        ({"tuning": "none", "method": "generate"}, "learns nothing"),
        ({"max_steps": 3, "space": {"epochs": [1, 2]}}, "epochs has no effect"),
        ({"trails": 3}, "unknown option 'trails'"),
    ],
)
def test_what_cannot_be_searched_ends_at_once(
    options: dict[str, Any], message: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        searched(toy_file, tiny_qwen, tmp_path / "search", **options)


def test_a_search_takes_no_rows_that_are_in_memory(tmp_path: Path) -> None:
    given: list[tuple[Any, str]] = [
        (pa.table({"text": ["甲"], "label": ["乙"]}), "found Table; write the frame to a file"),
        ([{"text": "甲", "label": "乙"}], "data: expected a file, .*found list"),
    ]
    for data, message in given:
        with pytest.raises(DataError, match=message):
            tune(data, out=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_out_of_scope_texts_that_cannot_be_read_end_a_search_at_once(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """And not the last stage of each trial, which is the first that reads them."""
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        searched(toy_file, tiny_qwen, tmp_path / "search", out_of_scope=str(tmp_path / "gone.jsonl"))
    assert not (tmp_path / "search").exists()


def test_the_report_shows_every_trial_and_escapes_what_it_shows(finished: TuneResult) -> None:
    write_search(finished)
    page = (finished.out / "report.html").read_text(encoding="utf-8")
    assert page.count("<circle") == sum(one.macro_f1 is not None for one in finished.trials)
    assert all(f"trial {one.number}: macro F1" in page for one in finished.trials)
    assert held_out_line(finished).split(",")[0] in page.replace("&#39;", "'")
    assert ranked(finished)[0].state == "complete"
    lines = (finished.out / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["number"] for line in lines] == [one.number for one in finished.trials]
    odd = dataclasses.replace(finished, notes=("<script>",))
    assert "<script>" not in render_search(odd)


def test_the_trials_are_shown_as_they_are_and_whole(finished: TuneResult) -> None:
    def printed(width: int, **options: Any) -> str:
        trials = tuple(dataclasses.replace(one, options=options) for one in finished.trials)
        file = io.StringIO()
        Console(file=file, width=width).print(trials_table(dataclasses.replace(finished, trials=trials)))
        return file.getvalue()

    assert "[INST] {text} [/INST]" in printed(200, prompt="[INST] {text} [/INST]")
    assert "…" not in printed(60, learning_rate=0.000345, lora_alpha=16, lora_rank=8, weight_decay=5.4e-05, head="linear")


def test_what_each_option_decided_is_told_where_trials_are_enough() -> None:
    from fenlei.training.search.outcome import importances

    study = optuna.create_study(direction="maximize")
    space = {"learning_rate": FloatDistribution(0.0, 1.0), "batch_size": CategoricalDistribution((16, 32))}
    for at in range(12):
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if at % 2 else TrialState.COMPLETE,
                value=None if at % 2 else 0.1,
                params={"learning_rate": at / 12, "batch_size": (16, 32)[at // 2 % 2]},
                distributions=space,
                intermediate_values={11: at / 12, 100: 0.1},
            )
        )
        if at == 4:
            assert importances(study, 11) == {}
    found = importances(study, 11)
    assert found["learning_rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)


def test_figures_of_trials_that_were_pruned_on_the_way_tell_nothing_beside_final_ones() -> None:
    """Where there is one stage alone, its end is the end."""
    from fenlei.training.search.outcome import importances

    study = optuna.create_study(direction="maximize")
    space = {"learning_rate": FloatDistribution(0.0, 1.0), "batch_size": CategoricalDistribution((16, 32))}

    def add(rate: float, rows: int, **ended: Any) -> None:
        study.add_trial(create_trial(params={"learning_rate": rate, "batch_size": rows}, distributions=space, **ended))

    for at in range(6):
        add(at / 6, (16, 32)[at % 2], state=TrialState.COMPLETE, value=at / 6, intermediate_values={33: 0.1, 100: at / 6})
    alone = importances(study, 100)
    assert alone
    for rate in (0.1, 0.2, 0.3):
        add(rate, 16, state=TrialState.PRUNED, intermediate_values={33: 0.9})
    assert importances(study, 100) == alone
    assert importances(study, 33) != alone


def test_search_options_have_one_home() -> None:
    assert SearchConfig() == SearchConfig(trials=20, storage=None, workers=1, pruner="halving", first_rows=None)


def test_the_space_in_the_docs_can_be_searched() -> None:
    page = (Path(__file__).parents[1] / "docs" / "tune.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r'^```yaml title="space.yaml"\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    space = space_from(yaml.safe_load(shown), RunConfig.from_options({"tuning": "lora"}))
    assert len(space) == shown.count(":") - shown.count("low:") - shown.count("high:") - shown.count("log:") - shown.count("step:")
    assert all(f"`{name}`" in page for name in TUNABLE)

"""A search of 12 trials on nano with two workers on one study, one of them killed in the middle: python -m bench.tune_nano [--quick].

The first 6,000 news titles, of which 5,100 train, in stages of 566, 1,700 and all. The study is in SQLite, or where --storage says.
The figure: accuracy of the best trial less that of the defaults, in points, on the half of dev that chose nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
from optuna.trial import TrialState

import fenlei.data
from bench.runs import WORK, conclude, head_of, shared
from fenlei.training.search.study import WORKER

TRIALS, ROWS, FIRST_ROWS, KILL_AFTER = 12, 6000, 560, 3


def main() -> int:
    """1 where the study is not complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the built-in rows and one epoch: whether it runs")
    parser.add_argument("--storage", help="a PostgreSQL URL, or journal:FILE")
    given = parser.parse_args()
    out = WORK / "tune_nano"
    shutil.rmtree(out, ignore_errors=True)
    storage = given.storage or f"sqlite:///{(WORK / 'tune_nano.db').resolve()}"
    (WORK / "tune_nano.db").unlink(missing_ok=True)
    data = (
        Path(fenlei.data.__path__[0]) / "builtin" / "train.jsonl"
        if given.quick
        else head_of(shared() / "data/thucnews10/train.jsonl", ROWS)
    )
    options = ["--epochs", "1", "--first-rows", "100", "--space", str(_quick_space())] if given.quick else ["--first-rows", str(FIRST_ROWS)]
    command = [sys.executable, "-m", "fenlei", "tune", str(data), "--model", "nano", "--out", str(out), "--trials", str(TRIALS)]
    command += ["--workers", "2", "--storage", storage, "--json", *options]
    killed: list[int] = []
    threading.Thread(target=_kill_one, args=(storage, killed), daemon=True).start()
    began = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        return ended.returncode
    found = json.loads(ended.stdout)
    beside = found["held_out"]
    gain = 100 * (beside["best"]["accuracy"] - beside["defaults"]["accuracy"]) if beside else 0.0
    conclude(
        "best trial less defaults, points of accuracy on dev rows that chose nothing",
        gain,
        0.0,
        trials=len(found["trials"]),
        killed_at_trial=killed,
        states={state: sum(one["state"] == state for one in found["trials"]) for state in ("complete", "pruned", "failed")},
        full_trainings=found["full_trainings"],
        options=found["options"],
        macro_f1_selecting=found["macro_f1"],
        held_out=beside,
        importances=found["importances"],
        seconds=round(time.perf_counter() - began),
    )
    return int(len(found["trials"]) != TRIALS or not killed)


def _kill_one(storage: str, killed: list[int]) -> None:
    """SIGKILL for the worker of a running trial, once a few trials have ended."""
    while not killed:
        time.sleep(0.5)
        try:
            known = (
                optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage[8:]))
                if storage[:8] == "journal:"
                else storage
            )
            study = optuna.load_study(study_name="tune_nano", storage=known)
        except (KeyError, optuna.exceptions.StorageInternalError):
            continue
        trials = study.get_trials(deepcopy=False)
        running = [one for one in trials if one.state == TrialState.RUNNING and one.params and WORKER in one.user_attrs]
        if sum(one.state.is_finished() for one in trials) >= KILL_AFTER and running:
            os.kill(int(running[0].user_attrs[WORKER].partition(":")[2]), signal.SIGKILL)
            killed.append(running[0].number)


def _quick_space() -> Path:
    path = WORK / "tune_nano_space.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("learning_rate: {low: 1.0e-4, high: 2.0e-3, log: true}\nbatch_size: [16, 32]\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())

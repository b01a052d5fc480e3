"""A worker: trial after trial of a study, until there are enough. `python -m fenlei.training.search.worker` is told of it on stdin."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from optuna.exceptions import OptunaError
from optuna.study import Study
from optuna.trial import FrozenTrial

from fenlei.errors import FenleiError
from fenlei.training.search.outcome import thin
from fenlei.training.search.plan import Plan
from fenlei.training.search.study import (
    bury_the_dead,
    open_study,
    running,
    taken,
    try_again_if_cut_off,
    waiting,
    was_given_up,
)
from fenlei.training.search.trial import Objective, SuperfluousError, UnfitError

INTERRUPTED = 130
LONGEST_WAIT = 5.0
"""Seconds between two looks at the study where others are at its last trials."""


def work(study: Study, plan: Plan, beat: int, after_trial: Callable[[], None] | None = None) -> None:
    """Runs trials until the study has as many as are wanted, and none is left that a dead worker may have to be replaced for.

    A trial whose options cannot work is noted and the next one begun. KeyboardInterrupt where the training was asked to stop, FenleiError
    where the machine or the data cannot do it; the trial is queued again.
    """
    objective = Objective(plan)

    def tidy(study: Study, _: FrozenTrial) -> None:
        thin(study, plan)
        if after_trial:
            after_trial()

    while True:
        bury_the_dead(study, beat)
        if waiting(study) or taken(study) < plan.trials:
            try:
                # Of a trial that was ended, the network lies in cycles: collected before the next one's is loaded beside it.
                study.optimize(objective, n_trials=1, catch=(UnfitError, SuperfluousError), callbacks=[tidy], gc_after_trial=True)
            except (KeyboardInterrupt, FenleiError):
                if objective.latest is not None:
                    try_again_if_cut_off(study, objective.latest)
                raise
            except (OptunaError, ValueError, AssertionError):  # as Optuna says that it takes no answer any more
                at = objective.latest
                if at is None or not was_given_up(study, at):
                    raise
        elif running(study):
            time.sleep(min(LONGEST_WAIT, beat))
        else:
            return


def told(plan: Plan, storage: str | None, *, seed: int, beat: int, workers: int) -> str:
    """What a worker in a process of its own has to know, as JSON: its standard input, for a database's URL may hold a password."""
    return json.dumps({"plan": plan.to_json(), "storage": storage, "seed": seed, "beat": beat, "workers": workers})


def main() -> int:
    """The exit code."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_search, daemon=True).start()
    plan = Plan.from_json(given["plan"])
    torch.set_num_threads(max(1, torch.get_num_threads() // given["workers"]))
    try:
        with open_study(plan, given["storage"], seed=given["seed"], beat=given["beat"]) as study:
            work(study, plan, given["beat"])
    except FenleiError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _end_with_the_search() -> None:
    """Ends as by SIGTERM once the process that began it is gone, however it ended: then its end of the pipe is closed."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read, whose lock a process must not end with
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

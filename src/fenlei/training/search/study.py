"""The study: where it is kept, what proposes and ends trials, and how a trial whose worker died is tried again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.event import listen
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from fenlei.errors import ConfigError, first_line
from fenlei.training.search.plan import FULL, REDUCTION, Plan
from fenlei.training.search.sampler import SeededByTrial
from fenlei.training.search.space import Space

MEMORY, JOURNAL = "memory", "journal:"
BEAT = 20
"""Seconds between the signs of life of a running trial; after MISSED_BEATS times as long without one, its worker counts as dead."""
MISSED_BEATS = 4
MOST_RETRIES = 2
"""A trial whose worker dies again and again, as when memory runs out, is given up then."""
PATIENCE_FOR_LOCKS = 60
"""Seconds that a worker waits for another one to let go of an SQLite file."""
LEAST_RANDOM = 4
"""Trials before the sampler believes that it knows something: at least so many, and a quarter of all."""

DEFAULTS, ERROR, UNMET, WORKER, SECONDS, ROWS_SEEN = "defaults", "error", "unmet", "worker", "seconds", "rows_seen"
RETRIES, RETRY_OF = "retries", "retry_of"
"""What is noted on a trial: that its options are the usual ones; why it failed by itself; what its run cannot promise; who is at it, how
long, on how many rows; how often its options were tried before, and the number of the last of these trials.
"""


@contextmanager
def open_study(plan: Plan, storage: str | None, *, seed: int, beat: int) -> Iterator[Study]:
    """The study of `plan`, begun or gone on with; its storage is closed with the block. ConfigError where it cannot be opened or holds a
    study of something else.
    """
    _quiet()
    kept = _storage(storage or f"sqlite:///{plan.out / 'study.db'}", beat)
    try:
        yield _study(plan, kept, seed)
    finally:
        if isinstance(kept, RDBStorage):  # Optuna leaves its connections to the garbage collector
            kept.remove_session()
            kept.engine.dispose()


def _study(plan: Plan, kept: BaseStorage, seed: int) -> Study:
    with _experimental():
        study = optuna.create_study(
            study_name=plan.out.resolve().name,
            storage=kept,
            sampler=SeededByTrial(seed, random_trials=max(LEAST_RANDOM, plan.trials // 4)),
            pruner=pruner_of(plan),
            direction="maximize",
            load_if_exists=True,
        )
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", plan.identity())
    elif known != plan.identity():
        raise ConfigError(f"{plan.out}: {_differing(known, plan.identity())}; search in another folder, or as it was begun")
    return study


def pruner_of(plan: Plan) -> BasePruner:
    """What ends trials early; the resource is the step, the share of a full training in per cent."""
    first = plan.stage_ends()[0] if len(plan.stages) > 1 else FULL // REDUCTION
    if plan.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    if plan.pruner == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=FULL, reduction_factor=REDUCTION)
    return MedianPruner(n_startup_trials=LEAST_RANDOM, n_warmup_steps=first - 1) if plan.pruner == "median" else NopPruner()


def queue(study: Study, options: dict[str, Any], space: Space, **notes: Any) -> None:
    """Has a trial of these options run next."""
    study.add_trial(create_trial(state=TrialState.WAITING, params=options, distributions=space, user_attrs=notes))


def taken(study: Study, before: int | None = None) -> int:
    """Trials (of a number below `before`) that have ended by themselves, are running or waiting. One that was cut off is none of them:
    another has its place.
    """
    trials = study.get_trials(deepcopy=False)[:before]
    return sum(trial.state != TrialState.FAIL or ERROR in trial.user_attrs for trial in trials)


def waiting(study: Study) -> bool:
    """Whether there are trials whose options are set and that nobody has begun."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def running(study: Study) -> bool:
    """Whether there are trials that a worker is at, or seems to be."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def bury_the_dead(study: Study, beat: int) -> None:
    """Fails trials whose worker gives no sign of life any more, and queues each again."""
    with _experimental():
        fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Optuna waits for ever for a worker that died before its first sign of life.
        began = trial.datetime_start
        if WORKER not in trial.user_attrs and began and time.time() - began.timestamp() > MISSED_BEATS * beat:
            with suppress(ValueError, UpdateFinishedTrialError):  # another worker was quicker
                study.tell(trial.number, state=TrialState.FAIL)
                try_again(study, trial)


def try_again(study: Study, trial: FrozenTrial) -> None:
    """Queues the options of a trial that was cut off.

    Optuna's own callback copies what the pruner has written on the trial, too: the second try would count as further on than it is.
    """
    retries = int(trial.user_attrs.get(RETRIES, 0)) + 1
    if retries <= MOST_RETRIES and trial.params:
        kept = {name: value for name, value in trial.user_attrs.items() if name == DEFAULTS}
        queue(study, trial.params, trial.distributions, **kept, **{RETRIES: retries, RETRY_OF: trial.number})


def try_again_if_cut_off(study: Study, number: int) -> None:
    """As `try_again`, where the trial neither came to its end nor failed by itself, and nobody else has queued it."""
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state == TrialState.FAIL and ERROR not in trial.user_attrs and not was_given_up(study, number):
        try_again(study, trial)


def was_given_up(study: Study, number: int) -> bool:
    """Whether another worker took this one for dead, as when a laptop slept, and tries the trial again."""
    return any(trial.user_attrs.get(RETRY_OF) == number for trial in study.get_trials(deepcopy=False))


class _BeatingJournal(JournalStorage, BaseHeartbeat):
    """A journal with signs of life, as Optuna's databases have them."""

    def __init__(self, path: str, beat: int) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
        self._beat = beat

    def record_heartbeat(self, trial_id: int) -> None:
        self.set_trial_system_attr(trial_id, "heartbeat", time.time())

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        long_ago = time.time() - MISSED_BEATS * self._beat
        trials = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [trial._trial_id for trial in trials if trial.system_attrs.get("heartbeat", long_ago) < long_ago]

    def get_heartbeat_interval(self) -> int:
        return self._beat

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        return try_again


def _storage(url: str, beat: int) -> BaseStorage:
    if url == MEMORY:
        return InMemoryStorage()
    if url.startswith(JOURNAL):
        return _BeatingJournal(url.removeprefix(JOURNAL), beat)
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": PATIENCE_FOR_LOCKS, "isolation_level": None}}  # we begin: see _database
    try:
        try:
            return _database(url, engine, beat)
        except IntegrityError:  # two that begin at once make the tables at once: the second finds them
            time.sleep(1)
            return _database(url, engine, beat)
    except ImportError as error:
        driver = " (PostgreSQL: pip install 'psycopg[binary]', and postgresql+psycopg://...)"
        raise ConfigError(f"storage: the database's driver is missing: {first_line(error)}{driver}") from error
    except SQLAlchemyError as error:
        raise ConfigError(
            f"storage: cannot be opened: {first_line(error)}; give `memory`, journal:FILE, sqlite:///FILE, "
            "or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ) from error


def _database(url: str, engine: dict[str, Any], beat: int) -> RDBStorage:
    with _experimental():
        kept = RDBStorage(
            url, engine_kwargs=engine, heartbeat_interval=beat, grace_period=MISSED_BEATS * beat, heartbeat_stale_trial_callback=try_again
        )
    if kept.engine.name == "sqlite":
        # It locks no row, and a file only at the first write: two workers that begin in the same moment would read that the same trial
        # waits, and both take it.
        listen(kept.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return kept


def _differing(known: dict[str, Any], now: dict[str, Any]) -> str:
    parts = []
    for name in now:
        if known.get(name) != now[name]:
            before, after = known.get(name), now[name]
            if isinstance(before, dict) and isinstance(after, dict):
                keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
                parts.append(f"{name} ({', '.join(keys)})")
            else:
                parts.append(f"{name} (was {before}, now {after})")
    return f"the study was begun with other {', '.join(parts)}"


def _quiet() -> None:
    """Optuna tells of every trial, and of a failed one with its traceback: here the worker does, in a line."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextmanager
def _experimental() -> Iterator[None]:
    """Heartbeats are in Optuna since 2020 and still called experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield

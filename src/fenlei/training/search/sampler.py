"""What proposes the options of a trial: Optuna's TPE, its random numbers those of the trial.

A sampler that is seeded once would begin its sequence anew wherever it is opened: machines that share a study, and a search that is gone
on with, would try the same random options again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class SeededByTrial(BaseSampler):
    """TPE (Bergstra et al. 2011), seeded by `seed` and the number of the trial; the first `random_trials` are drawn at random."""

    def __init__(self, seed: int, *, random_trials: int) -> None:
        self._seed, self._random_trials = seed, random_trials
        self._sampler = self._of(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = self._of(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def _of(self, number: int) -> TPESampler:
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # constant_liar, in Optuna since 2021
            return TPESampler(seed=seed, n_startup_trials=self._random_trials, constant_liar=True)

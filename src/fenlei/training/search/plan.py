"""A search as all of its workers know it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution

from fenlei.config import Pruner, RunConfig
from fenlei.training.resume import FREE_TO_CHANGE
from fenlei.training.search.space import Space

REDUCTION = 3
"""Every stage of a trial has this many times the rows of the one before it, and about one trial in so many comes to it."""
LEAST_FIRST_ROWS = 2000
"""Fewer rows say little of how options fare on all of them."""
FULL = 100
"""The step that a trial reports at its end; before, the share of a full training's rows, in per cent."""


@dataclass(frozen=True)
class Plan:
    """What is searched, how, and where it goes."""

    out: Path
    config: RunConfig
    """With every choice filled in for all rows: what trials have in common, and the defaults that they are compared with."""
    space: Space
    pruner: Pruner
    trials: int
    stages: tuple[int, ...]
    """Training rows of each stage of a trial; the last has all of them."""
    fingerprints: dict[str, str]
    """SHA-256 of the data, by file, and of the base model and the prompt."""

    def stage_ends(self) -> tuple[int, ...]:
        """The step reported at the end of each stage."""
        return tuple(max(1, FULL * rows // self.stages[-1]) for rows in self.stages)

    def trial_folder(self, number: int) -> Path:
        """Where the run of a trial lies."""
        return self.out / "trials" / f"{number:04d}"

    def identity(self) -> dict[str, Any]:
        """What trials of one study must have in common to be compared."""
        return {
            "options": {name: value for name, value in self.config.to_options().items() if name not in FREE_TO_CHANGE},
            "space": {name: distribution_to_json(one) for name, one in self.space.items()},
            "pruner": self.pruner,
            "stages": list(self.stages),
            "data": self.fingerprints,
        }

    def to_json(self) -> dict[str, Any]:
        return {**self.identity(), "out": str(self.out), "config": self.config.to_options(), "trials": self.trials}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Plan:
        space = {name: json_to_distribution(one) for name, one in told["space"].items()}
        config = RunConfig.from_options(told["config"])
        return cls(Path(told["out"]), config, space, told["pruner"], told["trials"], tuple(told["stages"]), told["data"])


def stage_rows(rows: int, first: int | None) -> tuple[int, ...]:
    """Training rows of each stage, ascending: all of them, a third, a ninth and so on, none below `first` (None: a ninth, or 2,000)."""
    least = max(LEAST_FIRST_ROWS, rows // REDUCTION**2) if first is None else first
    stages = [rows]
    while stages[0] // REDUCTION >= least:
        stages.insert(0, stages[0] // REDUCTION)
    return tuple(stages)

"""How `fenlei tune` searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fenlei.errors import ConfigError

Pruner = Literal["halving", "hyperband", "median", "none"]


@dataclass(frozen=True)
class SearchConfig:
    """How options are searched for: those of `fenlei tune` that are none of a run."""

    trials: int = 20
    """Trials of the whole study, also when it is gone on with."""
    storage: str | None = None
    """`memory`, `journal:FILE`, or a database's URL. None: an SQLite file in the search's folder."""
    workers: int = 1
    """Processes on this machine, one trial each at a time."""
    pruner: Pruner = "halving"
    """Which trials end early: by asynchronous successive halving (Li et al. 2020), Hyperband (Li et al. 2018), the median, or none."""
    first_rows: int | None = None
    """Training rows of a trial's first stage. None: a ninth of all, at least 2,000."""

    def __post_init__(self) -> None:
        found = [
            f"{name} must be at least 1, was {getattr(self, name)}"
            for name in ("trials", "workers", "first_rows")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.pruner not in get_args(Pruner):
            found.append(f"pruner must be one of {', '.join(get_args(Pruner))}, was {self.pruner!r}")
        if self.storage == "memory" and self.workers > 1:
            found.append("storage 'memory' is known to one process only; leave it out, or give a file or a database for several workers")
        if found:
            raise ConfigError("\n".join(found))

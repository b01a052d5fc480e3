"""One training in several processes, as `torchrun` and `accelerate launch` start them: which rows are mine, and what do all say?

Every process holds the same rows in the same order and knows the rows of each optimiser step; it takes its share of them. So the steps of
two processes are those of one, a checkpoint of two resumes in one and the other way round, and no row is ever seen twice.
"""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import distributed

from fenlei.artifact import CHECKPOINTS, LOCK, checked_path
from fenlei.config import Device
from fenlei.errors import ArtifactError, ConfigError
from fenlei.locks import alone_at
from fenlei.models.devices import pick_device
from fenlei.training.spread import check_launch

PATIENCE = datetime.timedelta(days=1)
"""How long a process waits for the others: the first one measures the run and fits the baseline alone. A process that dies is noticed
by what started them, which ends the others.
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a value, never changed

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and tells."""
        return self.rank == 0

    def share(self, rows: Sequence[int], lengths: np.ndarray, rank: int | None = None) -> list[int]:
        """The rows that this process (or `rank`) takes of `rows`: dealt by length, there and back, so that tokens are balanced."""
        if self.world == 1:
            return list(rows)
        rank = self.rank if rank is None else rank
        order = sorted(rows, key=lambda row: (-lengths[row], row))
        places = (rank, 2 * self.world - 1 - rank)
        return [row for place, row in enumerate(order) if place % (2 * self.world) in places]

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum of what every process gives, the same for all of them."""
        if self.world == 1:
            return values
        total = torch.from_numpy(values).to(self.device)
        distributed.all_reduce(total)
        return total.cpu().numpy()

    def any(self, flag: bool) -> bool:
        """Whether it holds for any process."""
        return flag if self.world == 1 else bool(self.summed(np.array([flag], dtype=np.int64))[0])

    def wait(self) -> None:
        """Until all have come so far."""
        self.any(False)

    def from_first(self, compute: Callable[[], T]) -> T:
        """What the first process computes; the others wait for it."""
        if self.world == 1:
            return compute()
        found: list[T | None] = [compute() if self.is_first else None]
        distributed.broadcast_object_list(found, src=0, device=self.device)
        return cast(T, found[0])


def is_first() -> bool:
    """Whether this process writes and tells; also before it has joined the others."""
    return not is_one_of_many() or int(os.environ["RANK"]) == 0


def alone_in(out: Path) -> AbstractContextManager[None]:
    """Nobody else trains into `out` meanwhile, else ArtifactError; the first process stands for all. ConfigError where it is a URL."""
    checked_path(out)
    taken = ArtifactError(f"{out}: another process trains there; wait for its end, or choose another --out")
    return alone_at(out / CHECKPOINTS / LOCK, taken) if is_first() else nullcontext()


def join(device: Device) -> Ranks:
    """This process among those that its environment tells of, connected with them. ConfigError where they cannot train so."""
    check_launch()
    if not is_one_of_many():
        return Ranks()
    place, _ = pick_device(device)
    if place.type == "mps":  # accelerate knows no processes there, and gloo takes none of its tensors
        raise ConfigError("several processes train on CUDA, NPU or CPU: give --device cpu, or start one process")
    if place.type in ("cuda", "npu"):
        place = torch.device(place.type, int(os.environ["LOCAL_RANK"]))
        torch.get_device_module(place).set_device(place)
    if not distributed.is_initialized():
        backend = {"cuda": "nccl", "npu": "hccl"}.get(place.type, "gloo")
        distributed.init_process_group(backend, timeout=PATIENCE)
        if backend == "gloo":  # whose threads end the process with SIGABRT where its groups are left to the interpreter's end
            atexit.register(distributed.destroy_process_group)
    return Ranks(distributed.get_rank(), distributed.get_world_size(), place)


def is_one_of_many() -> bool:
    """Clusters set RANK and WORLD_SIZE for whole machines too; LOCAL_RANK comes from what starts the processes."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1

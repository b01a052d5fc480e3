"""Processes that a test splits off: quicker than new ones, which would import everything again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY_NEWS

from fenlei.artifact import checkpoints
from fenlei.training.fit import TrainingInterrupted, train
from fenlei.training.progress import Progress

InProcesses = Callable[[Callable[[int], object]], None]
"""Runs work in one process or several, each with its rank."""


def in_one(work: Callable[[int], object]) -> None:
    work(0)


def split(work: Callable[[], None]) -> int:
    """Runs `work` in a process of its own; its id. It ends with 0, with 1 after an error that it prints, or by a signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of other threads: torch's are idle
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - a child must never go on as pytest
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_two(work: Callable[[int], object], **environment: str) -> None:
    """Runs `work` in two processes that find each other as torchrun's do, with `environment`; fails where one of them does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def joined(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GLOO_SOCKET_IFNAME="lo")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        os.environ.update(environment)
        work(rank)

    children = [split(lambda rank=rank: joined(rank)) for rank in range(2)]  # type: ignore[misc]
    codes = []
    while children:
        child, status = os.wait()
        if child not in children:
            continue
        children.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1]:  # as torchrun does: the others wait for it in vain
            for other in children:
                os.kill(other, signal.SIGKILL)
    assert codes == [0, 0]


def trained_alone(folder: Path, **usual: Any) -> Callable[..., Path]:
    """What trains a model in this process, on the toy news, once for all who ask for the same options; it returns the run."""

    @cache
    def trained(model: Path, **options: Any) -> Path:
        out = folder / "-".join([model.name, *map(str, options.values())])
        return train(TOY_NEWS, model=str(model), out=out, **{**usual, **options}).out

    return trained


def stopped_and_resumed(data: Path, out: Path, options: dict[str, Any], beginning: InProcesses, going_on: InProcesses) -> None:
    """Trains into `out`, ends by a signal to one process at the sixth step, and goes on; each half in processes of its own way."""

    def stop(now: Progress) -> None:
        if now.step == 6 and now.metrics is None:
            os.kill(os.getpid(), signal.SIGTERM)  # one process is told; the others have to stop after the same step

    def begin(rank: int) -> None:
        with pytest.raises(TrainingInterrupted):
            train(data, out=out, progress=stop, **options)

    def go_on(rank: int) -> None:
        train(out=out, resume=True)

    beginning(begin)
    assert checkpoints(out)[0].name == "checkpoint-7"
    going_on(go_on)

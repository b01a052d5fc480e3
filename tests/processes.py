"""Processes that a test splits off: quicker than new ones, which would import everything again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable


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


def in_two(work: Callable[[int], None], **environment: str) -> None:
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

"""A training, begun or gone on with, that kills itself at the N-th change below checkpoints/, if it is told to."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from fenlei.artifact import checkpoints
from fenlei.training import state_files
from fenlei.training.fit import train


def die_at(moment: int) -> Callable[[], int]:
    """SIGKILL at the `moment`-th change below checkpoints/ (0: never); a function that says how many there were.

    A change is a file opened to be written, renamed or removed, a folder made or removed; weights and optimiser states, which are not
    written by Python itself, count twice: cut off in the middle, and whole.
    """
    seen = 0

    def comes(path: str, cut: bool = False) -> None:
        nonlocal seen
        if "checkpoints/checkpoint-" not in path:
            return
        seen += 1
        if seen == moment:
            if cut:
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        opened = event == "open" and any(mode in str(args[1]) for mode in "wax")
        if opened or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            comes(str(args[0]))

    def counted(save: Callable[..., None]) -> Callable[..., None]:
        def saved(content: Any, path: Any, *more: Any, **options: Any) -> None:
            save(content, path, *more, **options)
            comes(str(path), cut=True)
            comes(str(path))

        return saved

    state_files.save_file = counted(state_files.save_file)
    torch.save = counted(torch.save)
    sys.addaudithook(watch)
    return lambda: seen


def main() -> None:
    """Prints nothing: what counts is the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("options", nargs="*", help="name=value, options of fenlei.train")
    given = parser.parse_args()
    die_at(given.die_at)
    if checkpoints(given.out):
        train(out=given.out, resume=True)
    else:
        train(
            given.data, out=given.out, **{name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in given.options)}
        )


if __name__ == "__main__":
    main()

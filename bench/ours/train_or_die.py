"""A training, begun or gone on with, that kills itself at the N-th change below checkpoints/, if it is told to."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from fenlei.artifact import checkpoints
from fenlei.training.fit import train


def die_at(change: int) -> None:
    """SIGKILL at the `change`-th file that is opened to be written, renamed or removed in a checkpoint."""
    seen = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        opened = event == "open" and any(mode in str(args[1]) for mode in "wax")
        changes = opened or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if changes and "checkpoints/checkpoint-" in str(args[0]):
            seen += 1
            if seen == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    """Prints nothing: what counts is the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("options", nargs="*", help="name=value, options of fenlei.train")
    given = parser.parse_args()
    if given.die_at:
        die_at(given.die_at)
    if checkpoints(given.out):
        train(out=given.out, resume=True)
    else:
        train(
            given.data, out=given.out, **{name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in given.options)}
        )


if __name__ == "__main__":
    main()

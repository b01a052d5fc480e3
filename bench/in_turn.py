"""Measuring scripts one after the other in one process: python -m bench.in_turn SCRIPT [ARGUMENT ...] [--then SCRIPT ...].

A script is a path or a module. What it needs is imported first, then a line on standard input is waited for: a process can be started while
another one measures, and costs it no time. Each script's last line is printed as JSON; for one that failed, {"failed": why}.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress

THEN = "--then"


def main() -> None:
    """Runs what the command line names."""
    commands = list(split(sys.argv[1:]))
    for name in ("torch", "transformers", "peft", *(command[0] for command in commands if not command[0].endswith(".py"))):
        importlib.import_module(name)
    sys.stdin.readline()
    for command in commands:
        print(json.dumps(_said_by(command), ensure_ascii=False), flush=True)
        _tidy_up()


def split(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands between THEN."""
    command: list[str] = []
    for word in words:
        if word == THEN:
            yield command
            command = []
        else:
            command.append(word)
    yield command


def _said_by(command: Sequence[str]) -> dict[str, object]:
    sys.argv = list(command)
    written = io.StringIO()
    try:
        with redirect_stdout(written):
            if command[0].endswith(".py"):
                runpy.run_path(command[0], run_name="__main__")
            else:
                importlib.import_module(command[0]).main()
        return dict(json.loads(written.getvalue().strip().split("\n")[-1]))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the others are to be measured all the same
        sys.stderr.write(traceback.format_exc())
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:500]}


def _tidy_up() -> None:
    """What one script has left is no part of the next one's figures."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # of a GPU that a script has broken
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()

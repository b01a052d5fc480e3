"""Two processes beside one on the same cores: python -m bench.two_processes [--rounds N] [--quick].

nano, full tuning over the news titles with the same rows a step: in one process that has all cores, and under torchrun in two that have one
each (gloo). What two cost is what the processes exchange and wait for each other, for the arithmetic is the same.
"""

from __future__ import annotations

import shutil
import sys

from bench.runs import WORK, conclude, even_head_of, head_of, shared
from bench.side_by_side import Rounds, Side, alternate, arguments, ours, speed_ratio
from fenlei.models.hub import NANO_FOLDER

ROWS, QUICK_ROWS, DEV_ROWS, BATCH = 25_600, 1_280, 200, 128
GOAL = 0.75
"""No goal was set; below this a second process on the same machine would be a mistake worth looking for."""
ONE, TWO = "one process", "two processes"


def sides(round_number: int, rows: int) -> list[Side]:
    """Both ways, each into a folder that no other round has."""
    data = shared() / "data" / "thucnews10"
    files = (even_head_of(data / "train.jsonl", rows), head_of(data / "dev.jsonl", DEV_ROWS))
    ways = []
    for name, launcher in (
        (ONE, [sys.executable]),
        (TWO, [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        folder = WORK / "two_processes" / f"{name.split()[0]}_{round_number}"
        shutil.rmtree(folder, ignore_errors=True)
        module = ours("train", *files, "--model", NANO_FOLDER, "--tuning", "full", "--batch-size", BATCH, "--keep", folder)
        ways.append(Side(name, (*launcher, *module[1:])))
    return ways


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "")
    measured: Rounds = {ONE: [], TWO: []}
    for number in range(given.rounds):
        for name, found in alternate(sides(number, QUICK_ROWS if given.quick else ROWS), 1).items():
            measured[name] += found
    conclude(
        "training nano in two processes: rows a second over those of one process with both cores", speed_ratio(measured, TWO, ONE), GOAL
    )


if __name__ == "__main__":
    main()

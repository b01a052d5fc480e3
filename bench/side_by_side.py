"""Two or more ways to do the same work, measured as alternating child processes.

A side is a command line in an environment of its own. Its process does the work once and prints, as its last line, one JSON object:
what was done, in how many seconds, and its peak memory. Whatever a machine does to one round (a warmer processor, another process) it does
to every side of it, so sides are compared round by round, and the median of the ratios is the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "bench" / "peers"
ROUNDS = 3

OWN_AFFAIRS = ("OMP_", "MKL_", "KMP_", "GOMP_", "MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")
"""Settings of the caller's shell that change speed: every side starts without them, as a user's would."""


@dataclass(frozen=True)
class Side:
    """One way to do the work."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside the caller's own; what a user of this side would set, and nothing that only helps it here."""


@dataclass(frozen=True)
class Measured:
    """What a side's process said of one round."""

    rows: float
    seconds: float
    peak_bytes: int
    more: Mapping[str, Any]

    @property
    def rows_a_second(self) -> float:
        return self.rows / self.seconds


Rounds = dict[str, list[Measured]]
"""Side's name -> its rounds, in order."""


def ours(module: str, *arguments: object) -> tuple[str, ...]:
    """The command of a module in bench/ours."""
    return (sys.executable, "-m", f"bench.ours.{module}", *map(str, arguments))


def peer(script: str, *arguments: object) -> tuple[str, ...]:
    """The command of a script in bench/peers, run by this Python."""
    return (sys.executable, str(PEERS / script), *map(str, arguments))


def alternate(sides: Sequence[Side], rounds: int = ROUNDS) -> Rounds:
    """Runs every side once a round; ends the process with a side's last words where it failed."""
    measured: Rounds = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            found = _run(side)
            measured[side.name].append(found)
            more = " ".join(f"{key} {value}" for key, value in found.more.items() if not isinstance(value, (dict, list)))
            print(
                f"round {number + 1}/{rounds}  {side.name}: {found.rows_a_second:.3g} rows/s "
                f"({found.rows:.0f} rows in {found.seconds:.1f} s), peak {found.peak_bytes / 1e9:.2f} GB  {more}",
                flush=True,
            )
    return measured


def speed_ratio(measured: Rounds, side: str, other: str) -> float:
    """How many times the rows a second of `other` `side` does: the median over rounds."""
    pairs = zip(measured[side], measured[other], strict=True)
    return statistics.median(one.rows_a_second / two.rows_a_second for one, two in pairs)


def median_peak(measured: Rounds, side: str) -> float:
    """Bytes."""
    return statistics.median(one.peak_bytes for one in measured[side])


def arguments(description: str, peers: Sequence[str] = (), *, dtype: bool = False) -> argparse.Namespace:
    """The options that every bench takes: `rounds`, `quick`, of `peers` those to measure against (default: all), and, where the other
    side computes in bfloat16, the `dtype` that it takes instead.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="as few rows as possible, one round: only shows that it runs")
    if dtype:
        parser.add_argument(
            "--dtype",
            choices=["bfloat16", "float32"],
            default="bfloat16",
            help="of the other side; float32 on a CPU without bfloat16 instructions, where it would stand still in bfloat16 and fenlei "
            "computes in float32 by itself",
        )
    if peers:
        parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(peers)}; default: all")
    given = parser.parse_intermixed_args()
    if given.quick:
        given.rounds = 1
    strange = [name for name in getattr(given, "peers", []) if name not in peers]
    if strange:
        parser.error(f"no such peer: {strange[0]}; there are {', '.join(peers)}")
    if peers and not given.peers:
        given.peers = list(peers)
    return given


def _run(side: Side) -> Measured:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN_AFFAIRS)}
    environment |= {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))), **side.environment}
    done = subprocess.run(side.command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side.name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.strip().split("\n")[-1])
    return Measured(found.pop("rows"), found.pop("seconds"), found.pop("peak_bytes"), found)

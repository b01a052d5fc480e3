"""Training that is killed again and again: python -m bench.kill_training [--quick].

50 times SIGKILL, 15 of them while a checkpoint is being written and the others at any moment, over trainings of nano that are gone on
with until they end. The figure: trainings whose weights are, bit for bit, those of the unbroken one, over all of them.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fenlei.data
from bench.runs import WORK, conclude
from bench.side_by_side import arguments, ours
from fenlei.artifact import MANIFEST, checkpoints, fingerprint

OPTIONS = (
    "model=nano",
    "tuning=full",
    "max_steps=60",
    "batch_size=16",
    "evals_per_epoch=4",
    "baseline=false",
    "device=cpu",
    "max_length=64",
)
KILLS, FORCED, A_TRAINING = 50, 15, 5
CHANGES_OF_A_CHECKPOINT = 30
"""About as many files are opened, renamed and removed while one checkpoint is written and an old one goes."""


def weights(run: Path) -> dict[str, str]:
    """Checksum of each weight file."""
    return {path.name: fingerprint(path) for path in sorted((run / "model").glob("*.safetensors"))}


def start(data: Path, out: Path, die_at: int = 0) -> subprocess.Popen[bytes]:
    """A process that trains, from where the one before it was killed."""
    command = [*ours("train_or_die", data, out, *OPTIONS, "--die-at", die_at)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(data: Path, out: Path, forced: bool, draw: random.Random, usual_seconds: float) -> bool:
    """Whether the process was killed before it came to its end."""
    process = start(data, out, draw.randint(1, 2 * CHANGES_OF_A_CHECKPOINT) if forced else 0)
    if not forced:
        try:
            process.wait(draw.uniform(0.2, 1.0) * usual_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait() == -9


def main() -> int:
    """1 where a training ended elsewhere; the last line is JSON."""
    given = arguments(__doc__ or "")
    data = Path(fenlei.data.__path__[0]) / "builtin" / "train.jsonl"
    folder = WORK / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    if start(data, folder / "whole").wait():
        sys.exit("the unbroken training failed")
    seconds = time.perf_counter() - began
    wanted = weights(folder / "whole")
    draw = random.Random(0)
    planned = [True] * FORCED + [False] * (KILLS - FORCED)
    draw.shuffle(planned)
    planned = [True, False] if given.quick else planned
    kills = forced_kills = trainings = equal = refused = 0
    while planned:
        out = folder / f"run{trainings}"
        trainings += 1
        for _ in range(A_TRAINING):
            if not planned or (out / MANIFEST).exists():
                break
            forced = planned.pop()
            if killed(data, out, forced, draw, seconds):
                kills, forced_kills = kills + 1, forced_kills + forced
                print(
                    f"  run{trainings - 1} killed{' in a checkpoint' * forced}; whole: {[path.name for path in checkpoints(out)]}",
                    flush=True,
                )
            else:
                planned.insert(0, forced)  # it came to its end before
        ended = (out / MANIFEST).exists() or start(data, out).wait() == 0
        refused += not ended
        equal += ended and weights(out) == wanted
        shutil.rmtree(out)
    conclude(
        "trainings killed and resumed that end in the unbroken weights",
        equal / trainings,
        1.0,
        kills=kills,
        while_writing_a_checkpoint=forced_kills,
        trainings=trainings,
        failed=refused,
    )
    return int(equal != trainings)


if __name__ == "__main__":
    sys.exit(main())

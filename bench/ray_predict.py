"""Bulk prediction on a local Ray of two workers, one of which is killed: python -m bench.ray_predict [--rows N] [--quick].

Rows with a broken one now and then, predicted by nano in one process, by two workers, and by two workers of which one gets SIGKILL in
the middle: into one file in order, and from a folder of files to a folder of parts. The figure: predictions on Ray that are, byte for
byte, those of the one process, over all of them. Rows a second count the start of Ray and of its workers too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fenlei.data
from bench.kill_predict import rows_file
from bench.runs import WORK, conclude, trained
from fenlei.inference.bulk import predict_file
from fenlei.inference.classifier import Classifier

ROWS, QUICK_ROWS, FILES = 40_000, 12_000, 8
WORKER = b"ray::MapWorker"
"""What the actors of Ray Data call their processes."""


def start(run: Path, source: Path, target: str, *more: str) -> subprocess.Popen[bytes]:
    """`fenlei predict`, as a user starts it."""
    command = [sys.executable, "-m", "fenlei", "predict", str(run), str(source), "--out", target, "--device", "cpu", "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def ended(process: subprocess.Popen[bytes]) -> float:
    """Rows a second, as the command itself counts them; ends the bench where it failed."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a prediction failed with {process.returncode}")
    told = json.loads(output)
    return float(told["rows"] / told["seconds"])


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers among the processes that a command has started, or they in turn."""
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile
    ours = {process.pid}
    while grown := {one for one, parent in parents.items() if parent in ours} - ours:
        ours |= grown
    return sorted(one for one in ours if names.get(one, b"").startswith(WORKER))


def killed_once(process: subprocess.Popen[bytes], begun: Path) -> int:
    """SIGKILLs one worker once `begun`, a sign of the first results, is there; the number of workers killed."""
    while process.poll() is None:
        workers = workers_of(process)
        if len(workers) > 1 and begun.exists():
            os.kill(workers[0], signal.SIGKILL)
            return 1
        time.sleep(0.05)
    return 0


def cut_up(source: Path, folder: Path) -> None:
    """The rows of a file as FILES files."""
    folder.mkdir()
    lines = source.read_bytes().splitlines(keepends=True)
    share = -(-len(lines) // FILES)
    for number in range(FILES):
        (folder / f"rows-{number}.jsonl").write_bytes(b"".join(lines[number * share : (number + 1) * share]))


def of_each_file(run: Path, files: Path, target: Path) -> list[bytes]:
    """Rows and rejected rows of the files of a folder, predicted here one after the other."""
    classifier = Classifier.load(run, device="cpu")
    for file in sorted(files.iterdir()):
        predict_file(classifier, file, target / file.name)
    return [joined(target, "rows-?.jsonl"), joined(target, "*.rejected.jsonl")]


def joined(folder: Path, names: str) -> bytes:
    """The files of a folder, one after the other by name."""
    return b"".join(file.read_bytes() for file in sorted(folder.glob(names)))


def main() -> int:
    """1 where a file was another; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    rows = given.rows or (QUICK_ROWS if given.quick else ROWS)
    news = Path(fenlei.data.__path__[0]) / "builtin"
    trained("startup_nano", news / "train.jsonl", news / "test.jsonl", model="nano", tuning="full", max_steps=1, baseline=False)
    run, folder = WORK / "startup_nano", WORK / "ray_predictions"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source, on_ray = folder / "in.jsonl", ("--engine", "ray", "--workers", "2")
    rows_file(source, rows, news / "train.jsonl")
    rate = {"plain": ended(start(run, source, str(folder / "plain.jsonl")))}
    rate["ray"] = ended(start(run, source, str(folder / "ray.jsonl"), *on_ray))
    process = start(run, source, str(folder / "killed.jsonl"), *on_ray)
    kills = killed_once(process, folder / "killed.jsonl.partial")
    rate["ray, a worker killed"] = ended(process)
    cut_up(source, folder / "in")
    process = start(run, folder / "in", f"{folder / 'parts'}/", *on_ray)
    kills += killed_once(process, folder / "parts" / "_done")
    rate["ray to parts, a worker killed"] = ended(process)
    for name, one in rate.items():
        print(f"{name:30} {one:8,.0f} rows/s", flush=True)
    wanted = [(folder / f"plain.jsonl{end}").read_bytes() for end in ("", ".rejected.jsonl")]
    found = [[(folder / f"{name}.jsonl{end}").read_bytes() for end in ("", ".rejected.jsonl")] for name in ("ray", "killed")]
    parts = [joined(folder / "parts", "part-*.jsonl"), (folder / "parts.rejected.jsonl").read_bytes()]
    counted = sum(content.count(b"\n") for content in wanted)
    if counted != rows:
        sys.exit(f"{rows} rows in, {counted} out")
    equal = sum(one == wanted for one in found) + (parts == of_each_file(run, folder / "in", folder / "of_each"))
    rounded = {name: round(one, 1) for name, one in rate.items()}
    conclude("predictions on Ray that are the single process's bytes", equal / 3, 1.0, kills=kills, rows=rows, rows_a_second=rounded)
    return int(equal != 3 or kills != 2)


if __name__ == "__main__":
    sys.exit(main())

"""Bulk prediction that is killed again and again: python -m bench.kill_predict [--quick].

20,000 rows with a broken one now and then, predicted by nano; 50 times SIGKILL at any moment, the same command again each time. The
figure: predictions whose files are, byte for byte, those of the unbroken one, over all of them.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import fenlei.data
from bench.runs import WORK, conclude, lines_of, trained
from bench.side_by_side import arguments

ROWS, QUICK_ROWS, BROKEN_EVERY = 20_000, 6_000, 997
KILLS, A_PREDICTION = 50, 5


def rows_file(path: Path, rows: int, source: Path) -> None:
    """`rows` lines: the built-in titles again and again, each with its number; some of them are no JSON."""
    titles = [json.loads(line)["title"] for line in lines_of(source)]
    with path.open("w", encoding="utf-8") as file:
        for number, title in enumerate(islice(cycle(titles), rows)):
            line = json.dumps({"id": number, "text": f"{title} {number}"}, ensure_ascii=False)
            file.write((line[:-5] if number % BROKEN_EVERY == BROKEN_EVERY - 1 else line) + "\n")


def start(run: Path, source: Path, target: Path) -> subprocess.Popen[bytes]:
    """`fenlei predict`, as a user starts it."""
    command = [sys.executable, "-m", "fenlei", "predict", str(run), str(source), "--out", str(target), "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def contents(target: Path) -> dict[str, bytes]:
    """What lies in the folder of the target."""
    return {path.name: path.read_bytes() for path in sorted(target.parent.iterdir())}


def main() -> int:
    """1 where a file was another; the last line is JSON."""
    given = arguments(__doc__ or "")
    news = Path(fenlei.data.__path__[0]) / "builtin"
    trained("startup_nano", news / "train.jsonl", news / "test.jsonl", model="nano", tuning="full", max_steps=1, baseline=False)
    run, folder = WORK / "startup_nano", WORK / "killed_predictions"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = folder / "in.jsonl"
    rows = QUICK_ROWS if given.quick else ROWS
    rows_file(source, rows, news / "train.jsonl")
    began = time.perf_counter()
    if start(run, source, folder / "whole" / "out.jsonl").wait():
        sys.exit("the unbroken prediction failed")
    seconds = time.perf_counter() - began
    wanted = contents(folder / "whole" / "out.jsonl")
    counted = sum(content.count(b"\n") for content in wanted.values())
    if counted != rows:
        sys.exit(f"{rows} rows in, {counted} out")
    draw = random.Random(0)
    kills_wanted = 2 if given.quick else KILLS
    kills = predictions = equal = windows_kept = 0
    while kills < kills_wanted:
        target = folder / f"out{predictions}" / "out.jsonl"
        predictions += 1
        for _ in range(A_PREDICTION):
            if kills == kills_wanted or target.exists():
                break
            process = start(run, source, target)
            try:
                process.wait(draw.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
            if process.wait() == -9:
                kills += 1
                journal = target.with_name("out.jsonl.journal")
                windows_kept += journal.exists()
        ended = target.exists() or start(run, source, target).wait() == 0
        equal += ended and contents(target) == wanted
        shutil.rmtree(target.parent)
    conclude(
        "predictions killed and started again that end in the unbroken bytes",
        equal / predictions,
        1.0,
        kills=kills,
        predictions=predictions,
        rows=rows,
        kills_with_windows_done=windows_kept,
    )
    return int(equal != predictions)


if __name__ == "__main__":
    sys.exit(main())

"""nano taught by the real Qwen beside nano alone: python -m bench.distill_titles [--rows N] [--pool N] [--teacher MODEL] [--epochs N]
[--selecting N] [--measuring N].

Both are given the same 6,000 labelled titles of thucnews10, the student 40,000 further ones without their labels. The first 2,000
rows of dev select and calibrate, all of it measures; with `--measuring N` the N rows behind those that select. Whatever is cut off is taken
up again.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from bench.runs import WORK, announced, conclude, given_options, head_of, name_of, once, real_model, rows_behind, run, shared, told
from fenlei.report.evaluation import evaluate_run
from fenlei.training.distill import REPORT, distill

GOAL = 0.5
SELECTING = 2000


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--pool", type=int, default=40_000)
    parser.add_argument("--teacher", help="default: the real model; `nano` to try the command")
    parser.add_argument("--selecting", type=int, default=SELECTING, help="first dev rows, which select and calibrate")
    parser.add_argument("--measuring", type=int, help="dev rows that measure")
    parser.add_argument("words", nargs="*", metavar="OPTION=VALUE", help="options of the teacher's training")
    parser.add_argument("--epochs", type=int, default=8, help="of both students: teachers are learned from for long")
    given = parser.parse_intermixed_args()
    data = shared() / "data" / "thucnews10"
    labelled, whole = head_of(data / "train.jsonl", given.rows), data / "dev.jsonl"
    selecting, dev = head_of(whole, given.selecting), rows_behind(whole, given.selecting, given.measuring)
    asked = given_options(given.words)
    name = name_of(f"distill_{given.rows}_{given.selecting}_{given.teacher or 'qwen'}", asked)
    accuracy, seconds = {}, {}
    teacher, seconds["teacher"] = run(
        f"{name}_teacher",
        labelled,
        dev,
        selecting=selecting,
        model=given.teacher or real_model(),
        tuning="lora",
        **{"epochs": 1, "evals_per_epoch": 2, **asked},
    )
    accuracy["teacher"] = teacher.metrics.accuracy
    plain, seconds["nano"] = run(f"{name}_plain_{given.epochs}", labelled, dev, selecting=selecting, model="nano", epochs=given.epochs)
    accuracy["nano"] = plain.metrics.accuracy
    student = WORK / f"{name}_student_{given.pool}_{given.epochs}"
    pool = _unlabelled(data / "train.jsonl", given.rows, given.pool)

    def teach(out: Path, resume: bool) -> None:
        distill(
            WORK / f"{name}_teacher", "nano", out=out, unlabeled=pool, resume=resume, epochs=given.epochs, progress=told, announce=announced
        )

    seconds["student"] = once(student.name, teach)
    accuracy["student"] = evaluate_run(student, dev).metrics.accuracy
    report = json.loads((student / REPORT).read_text(encoding="utf-8"))
    speed = {role: round(report[role]["rows_per_second"], 1) for role in ("teacher", "student")}
    gap = accuracy["teacher"] - accuracy["nano"]
    closed = (accuracy["student"] - accuracy["nano"]) / gap if gap > 0 else 0.0
    conclude(
        "gap between nano and its teacher that distilling closes", closed, GOAL, rows_per_second=speed,
        accuracy={one: round(value, 4) for one, value in accuracy.items()}, seconds={one: round(value) for one, value in seconds.items()},
    )  # fmt: skip


def _unlabelled(data: Path, after: int, rows: int) -> Path:
    """The texts of the `rows` lines of `data` behind the first `after`."""
    target = WORK / "data" / f"{data.parent.name}_texts_{after}_{rows}.jsonl"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with data.open(encoding="utf-8") as file:
            lines = [
                json.dumps({"text": json.loads(line)["text"]}, ensure_ascii=False) + "\n" for line in islice(file, after, after + rows)
            ]
        target.write_text("".join(lines), encoding="utf-8")
    return target


if __name__ == "__main__":
    main()

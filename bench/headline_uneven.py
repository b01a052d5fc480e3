"""A copy of the news titles whose largest class has a hundred times the rows of the smallest, with the proposed cure and without.

python -m bench.headline_uneven [CURE ...] [OPTION=VALUE ...] [--largest N] [--measuring N]   (CURE: values of --imbalance beside none;
default: logit-adjustment)

The training rows fall from class to class by the same factor; checkpoint and calibration come from rows set aside of these, and the figures
from all dev titles, of which each class has about a thousand. `model=nano tuning=full` does it in minutes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from bench.folds import difference, figures, gold_of, macro_f1, reported_answers
from bench.runs import WORK, conclude, given_options, lines_of, name_of, real_model, rows_behind, run, shared

LARGEST, GOAL = 2000, 0.02
RATIO = 100
"""Rows of the largest class beside those of the smallest."""
CURE = "logit-adjustment"


def uneven_rows(largest: int) -> Path:
    """The first rows of each class, as many as it is to have; classes in the order of the alphabet."""
    data = shared() / "data" / "thucnews10" / "train.jsonl"
    target = WORK / "data" / f"thucnews10_uneven_{largest}.jsonl"
    lines = [(json.loads(line)["label"], line) for line in lines_of(data)]
    classes = sorted({label for label, _ in lines})
    share = {label: round(largest * RATIO ** (-at / (len(classes) - 1))) for at, label in enumerate(classes)}
    taken: Counter[str] = Counter()
    chosen = []
    for label, line in lines:
        if taken[label] < share[label]:
            taken[label] += 1
            chosen.append(line + "\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(chosen), encoding="utf-8")
    return target


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="CURE|OPTION=VALUE")
    parser.add_argument("--largest", type=int, default=LARGEST, help="rows of the largest class")
    parser.add_argument("--measuring", type=int, help="dev rows that measure; default: all")
    given = parser.parse_intermixed_args()
    cures = [word for word in given.words if "=" not in word] or [CURE]
    asked: dict[str, Any] = given_options([word for word in given.words if "=" in word])
    options = {"model": asked["model"] if "model" in asked else real_model(), "tuning": "lora", "epochs": 3, **asked}
    train = uneven_rows(given.largest)
    dev = rows_behind(shared() / "data" / "thucnews10" / "dev.jsonl", 0, given.measuring)
    gold = gold_of(dev)
    answers: dict[str, list[str]] = {}
    for cure in ("none", *cures):
        name = name_of(f"thucnews_uneven_{given.largest}", {**asked, "imbalance": cure})
        _, seconds = run(name, train, dev, selecting=None, imbalance=cure, **options)
        answers[cure] = reported_answers(name)
        print(f"{name}: {figures(gold, answers[cure])}, {seconds:.0f} s", flush=True)
    gains = {cure: difference(gold, answers[cure], answers["none"], macro_f1) for cure in cures}
    conclude(
        f"thucnews10 at {RATIO}:1, {cures[0]} over none, points of macro F1", gains[cures[0]]["points"], GOAL,
        figures={cure: figures(gold, given) for cure, given in answers.items()}, gains=gains, rows=len(gold),
        training_rows=len(lines_of(train)),
    )  # fmt: skip


if __name__ == "__main__":
    main()

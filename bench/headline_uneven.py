"""A copy of the news titles whose largest class has a hundred times the rows of the smallest, with the proposed cure and without.

python -m bench.headline_uneven [CURE ...] [OPTION=VALUE ...]   (CURE: values of --imbalance beside none; default: logit-adjustment)

The training rows fall from class to class by the same factor; checkpoint and calibration come from rows set aside of these, and the figures
from all dev titles, of which each class has about a thousand. `model=nano tuning=full` does it in minutes.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench.folds import difference, figures, gold_of, macro_f1, reported_answers
from bench.runs import WORK, conclude, given_options, lines_of, name_of, real_model, run, shared

LARGEST, SMALLEST, GOAL = 2000, 20, 0.02
CURE = "logit-adjustment"


def uneven_rows() -> Path:
    """The first rows of each class, as many as it is to have; classes in the order of the alphabet."""
    data = shared() / "data" / "thucnews10" / "train.jsonl"
    target = WORK / "data" / f"thucnews10_uneven_{LARGEST}_{SMALLEST}.jsonl"
    lines = [(json.loads(line)["label"], line) for line in lines_of(data)]
    classes = sorted({label for label, _ in lines})
    share = {label: round(LARGEST * (SMALLEST / LARGEST) ** (at / (len(classes) - 1))) for at, label in enumerate(classes)}
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
    cures = [word for word in sys.argv[1:] if "=" not in word] or [CURE]
    asked: dict[str, Any] = given_options([word for word in sys.argv[1:] if "=" in word])
    options = {"model": asked["model"] if "model" in asked else real_model(), "tuning": "lora", "epochs": 3, **asked}
    dev = shared() / "data" / "thucnews10" / "dev.jsonl"
    gold = gold_of(dev)
    answers: dict[str, list[str]] = {}
    for cure in ("none", *cures):
        name = name_of("thucnews_uneven", {**asked, "imbalance": cure})
        _, seconds = run(name, uneven_rows(), dev, selecting=None, imbalance=cure, **options)
        answers[cure] = reported_answers(name)
        print(f"{name}: {figures(gold, answers[cure])}, {seconds:.0f} s", flush=True)
    gains = {cure: difference(gold, answers[cure], answers["none"], macro_f1) for cure in cures}
    conclude(
        f"thucnews10 at {LARGEST // SMALLEST}:1, {cures[0]} over none, points of macro F1", gains[cures[0]]["points"], GOAL,
        figures={cure: figures(gold, given) for cure, given in answers.items()}, gains=gains, rows=len(gold),
    )  # fmt: skip


if __name__ == "__main__":
    main()

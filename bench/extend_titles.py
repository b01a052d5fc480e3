"""New classes beside training again on all: python -m bench.extend_titles [two] [three] [OPTION=VALUE ...] [--each N] [--selecting N]
[--measuring N] [--trained OPTION=VALUE ...] [--model M].

thucnews10, 1,000 rows a class. `two`: trained on eight classes, two are added at once; `three`: trained on seven, three are added one after
the other. Both are held against one training on all ten: accuracy on rows of the classes known at first, and seconds. The first 1,000 dev
rows select and calibrate, the 4,000 behind them measure; where fewer select, those behind the first 1,000 still do. An option of
fenlei.extend tries something else than its defaults.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.runs import WORK, announced, conclude, given_options, name_of, once, real_model, shared, told, trained, was_cut_off
from fenlei.data.readers import read_examples
from fenlei.inference.classifier import Classifier
from fenlei.training.extend import REPORT, extend

BEHIND, COST = 0.01, 0.25
SELECTING, MEASURING = 1000, 4000


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="PART|OPTION=VALUE")
    parser.add_argument("--each", type=int, default=1000, help="rows of a class")
    parser.add_argument("--selecting", type=int, default=SELECTING, help="first dev rows, which select and calibrate")
    parser.add_argument("--measuring", type=int, default=MEASURING, help="dev rows that measure")
    parser.add_argument(
        "--trained", nargs="+", default=[], metavar="OPTION=VALUE", help="options of the trainings that are extended or replaced"
    )
    parser.add_argument("--model", help="default: the real model; `nano` to try the command")
    given = parser.parse_intermixed_args()
    parts = [word for word in given.words if word in ("two", "three")] or ["two", "three"]
    options = given_options([word for word in given.words if "=" in word])
    model, base = given.model or real_model(), f"extend_{given.each}_{given.model or 'qwen'}"
    alike = given_options(given.trained)
    base = name_of(base, alike)
    names = _class_names()
    whole = f"{base}_all"
    seconds = trained(whole, _train(names, given.each), _dev(names, given.selecting), model=model, **alike)
    figures: dict[str, dict[str, Any]] = {}
    for part in parts:
        cut_off = was_cut_off(whole)
        first = names[:8] if part == "two" else names[:7]
        old = f"{base}_{len(first)}"
        trained(old, _train(first, given.each), _dev(first, given.selecting), model=model, **alike)
        known, took, shares = list(first), [], []
        for added in [names[8:]] if part == "two" else [[name] for name in names[7:]]:
            run, replay = WORK / old, _train(known, given.each)
            old = name_of(f"{base}_{len(first)}_to_{len(known) + len(added)}", options)
            took.append(_extended(old, run, _train(added, given.each), replay, _dev([*known, *added], given.selecting), options))
            shares.append(_share_in_rows(WORK / old))
            cut_off = cut_off or was_cut_off(old)
            known += added
        right = {name: _accuracy(WORK / name, first, given.measuring, max(SELECTING, given.selecting)) for name in (whole, old)}
        figures[part] = {
            "known": round(right[old][0], 4),
            "known_retrained": round(right[whole][0], 4),
            "new": round(right[old][1], 4),
            "new_retrained": round(right[whole][1], 4),
            "behind": round(right[whole][0] - right[old][0], 4),
            "cost": round(max(shares) if cut_off else max(took) / seconds, 4),
            "cost_in": "rows through the network" if cut_off else "seconds",
        }
        print(f"{part}: {json.dumps(figures[part])}", flush=True)
    worst = max(max(one["behind"] / BEHIND, one["cost"] / COST) for one in figures.values())
    goals = {"behind": BEHIND, "cost": COST}
    conclude(
        "extending beside retraining, the worst of its goals",
        worst,
        1.0,
        at_most=True,
        goals=goals,
        seconds=round(seconds),
        figures=figures,
    )


def _extended(name: str, run: Path, new: Path, replay: Path, dev: Path, options: dict[str, Any]) -> float:
    def begin(out: Path, resume: bool) -> None:
        extend(run, new, replay=replay, out=out, resume=resume, dev=str(dev), progress=told, announce=announced, **options)

    return once(name, begin)


def _share_in_rows(run: Path) -> float:
    """Its cost over that of retraining by rows that go through the network: seconds of runs that were cut off say nothing."""
    return float(json.loads((run / REPORT).read_text(encoding="utf-8"))["cost"]["share_of_retraining"])


def _class_names() -> list[str]:
    return sorted({str(row.label) for row in read_examples(shared() / "data" / "thucnews10" / "dev.jsonl")})


def _train(names: Sequence[str], each: int) -> Path:
    """The first `each` training rows of each class."""
    return _of_classes("train", names, f"{each}_each", each=each)


def _dev(names: Sequence[str], selecting: int) -> Path:
    """Those of the first dev rows that are of these classes."""
    return _of_classes("dev", names, f"{selecting}_first", most=selecting)


def _of_classes(part: str, names: Sequence[str], suffix: str, *, each: int | None = None, most: int | None = None) -> Path:
    target = WORK / "data" / f"thucnews10_{part}_{'-'.join(names)}_{suffix}.jsonl"
    if not target.exists():
        taken: Counter[str] = Counter()
        lines = []
        with (shared() / "data" / "thucnews10" / f"{part}.jsonl").open(encoding="utf-8") as file:
            for line in islice(file, most):
                label = json.loads(line)["label"]
                taken[label] += 1
                if label in names and (each is None or taken[label] <= each):
                    lines.append(line)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(lines), encoding="utf-8")
    return target


def _accuracy(run: Path, known: Sequence[str], rows: int, begin: int) -> tuple[float, float]:
    """On dev rows from `begin` on, of the classes known at first and of the others."""
    found = list(islice(read_examples(shared() / "data" / "thucnews10" / "dev.jsonl"), begin, begin + rows))
    answers = Classifier.load(run).predict([row.text for row in found])
    right = np.array([one.label == row.label for one, row in zip(answers, found, strict=True)])
    old = np.array([row.label in known for row in found])
    return float(right[old].mean()), float(right[~old].mean())


if __name__ == "__main__":
    main()

"""Long documents with the real Qwen2.5-0.5B: windows with attention over a frozen backbone, beside truncation and TF-IDF, in five folds.

python -m bench.headline_long fudan20|sogou10_long [FOLD ...] [OPTION=VALUE ...] [--documents N] [--without-lora]

A frozen backbone reads every window once over all folds, and keeps its states on disk (about an hour and a half for a set, then minutes);
a fold that is cut off is taken up again. OPTION=VALUE changes the frozen runs (epochs=40, long=mean, layers=12, int8=true,
model=nano), `--documents` has folds of N documents alone, where a machine is too slow for all. The figures are those of the folds done.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench.folds import (
    FOLDS,
    accuracy,
    baseline_answers,
    difference,
    figures,
    fold_files,
    frozen_answers,
    gold_of,
    macro_f1,
    reported_answers,
)
from bench.runs import conclude_all, given_options, name_of, real_model, run, trained

FROZEN: dict[str, Any] = {"tuning": "frozen", "prompt": "zh", "max_length": 512}
WINDOWS = {**FROZEN, "long": "windows"}
LORA: dict[str, Any] = {"tuning": "lora", "max_length": 1024, "long": "truncate", "epochs": 2, "evals_per_epoch": 2}

SETS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "fudan20": ("fudan20", {"windows": WINDOWS, "frozen_512": {**FROZEN, "long": "truncate"}}),
    "sogou10_long": ("sogou", {"windows": WINDOWS, "lora": LORA}),
}
"""For each set: the name of its files, and the runs of a fold."""
GOAL = 0.03
"""Points of macro F1 over TF-IDF."""


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=SETS)
    parser.add_argument("words", nargs="*", metavar="FOLD|OPTION=VALUE")
    parser.add_argument("--documents", type=int, help="default: all")
    parser.add_argument("--without-lora", action="store_true", help="the frozen runs alone")
    given = parser.parse_intermixed_args()
    folds = [int(word) for word in given.words if word.isdigit()] or list(range(FOLDS))
    asked_options = given_options([word for word in given.words if "=" in word])
    short, runs = SETS[given.data]
    if given.documents is not None:
        short = f"{short}_{given.documents}"
    if given.without_lora:
        runs = {kind: options for kind, options in runs.items() if options["tuning"] == "frozen"}
    gold: list[str] = []
    answers: dict[str, list[str]] = {name: [] for name in (*runs, "TF-IDF")}
    for fold in folds:
        train, asked = fold_files(given.data, short, fold, given.documents)
        gold += gold_of(asked)
        for kind, options in runs.items():
            name = _fold_run(f"{short}_fold{fold}_{kind}", train, asked, options, asked_options)
            if options["tuning"] == "frozen":
                answers[kind] += frozen_answers(name, asked, int8=bool(asked_options.get("int8")))
            else:
                answers[kind] += reported_answers(name)
            if kind == "windows":
                answers["TF-IDF"] += baseline_answers(name, asked)
        print(f"folds to {fold}: " + ", ".join(f"{kind} {figures(gold, told)}" for kind, told in answers.items()), flush=True)
    above = {
        kind: {
            "macro_f1": difference(gold, answers["windows"], told, macro_f1),
            "accuracy": difference(gold, answers["windows"], told, accuracy),
        }
        for kind, told in answers.items()
        if kind != "windows"
    }
    scores = {kind: figures(gold, told) for kind, told in answers.items()}
    conclude_all(f"{given.data}, frozen windows", goals(above, scores), scores=scores, windows_over=above, rows=len(gold), folds=folds)


def goals(above: dict[str, Any], scores: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """What windows reach, each with its goal: points over TF-IDF, and the macro F1 of truncation, where that is a run of the set."""
    found = {"points of macro F1 over TF-IDF": (above["TF-IDF"]["macro_f1"]["points"], GOAL)}
    if "frozen_512" in scores:
        found["macro F1, that of truncation the goal"] = (scores["windows"]["macro_f1"], scores["frozen_512"]["macro_f1"])
    return found


def _fold_run(name: str, train: Any, asked: Any, options: dict[str, Any], asked_options: dict[str, Any]) -> str:
    """Its name, once it is trained (and, where the backbone learns, evaluated)."""
    if options["tuning"] == "frozen":
        name = name_of(name, asked_options)
        chosen = {"model": asked_options["model"] if "model" in asked_options else real_model()}
        seconds = trained(name, train, None, **{**options, **asked_options, **chosen})
    else:
        _, seconds = run(name, train, asked, selecting=None, model=real_model(), **options)
    print(f"{name}: {seconds:.0f} s", flush=True)
    return name


if __name__ == "__main__":
    main()

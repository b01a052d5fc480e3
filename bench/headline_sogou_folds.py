"""Qwen2.5-0.5B, LoRA, on whole news articles (at most 1,024 tokens) beside TF-IDF, in five folds over train and dev together.

python -m bench.headline_sogou_folds [FOLD ...] [OPTION=VALUE ...] [--documents N]

Every row is classified once, by a run that has not seen it; both classifiers answer the same rows, so that their difference is paired. A
run selects and calibrates on rows set aside from its own part. A fold that is cut off is taken up again; the figures are those of the folds
done; `--documents` has folds of N documents alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bench.folds import FOLDS, SEED, baseline_answers, fold_files, gold_of, reported_answers
from bench.runs import conclude, given_options, name_of, real_model, run

GOAL, EPOCHS = 0.03, 2
RESAMPLINGS = 10_000


def right_answers(name: str, asked: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whether the run, and its baseline, were right on each row."""
    gold = np.array(gold_of(asked))
    return gold == np.array(reported_answers(name)), gold == np.array(baseline_answers(name, asked))


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % of the mean's bootstrap over rows."""
    generator = np.random.default_rng(SEED)
    means = [generator.choice(differences, len(differences)).mean() for _ in range(RESAMPLINGS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="FOLD|OPTION=VALUE")
    parser.add_argument("--documents", type=int, help="default: all")
    given = parser.parse_intermixed_args()
    folds = [int(word) for word in given.words if "=" not in word] or list(range(FOLDS))
    asked_options = given_options([word for word in given.words if "=" in word])
    short = "sogou" if given.documents is None else f"sogou_{given.documents}"
    options = {"tuning": "lora", "max_length": 1024, "long": "truncate", "epochs": EPOCHS, "evals_per_epoch": 2, **asked_options}
    ours, baseline = [], []
    for fold in folds:
        train, asked = fold_files("sogou10_long", short, fold, given.documents)
        name = name_of(f"{short}_fold{fold}_lora", asked_options)
        _, seconds = run(name, train, asked, selecting=None, model=real_model(), **options)
        mine, other = right_answers(name, asked)
        ours.append(mine)
        baseline.append(other)
        print(f"{name}: accuracy {mine.mean():.4f}, TF-IDF {other.mean():.4f}, {len(mine)} rows, {seconds:.0f} s", flush=True)
    differences = np.concatenate(ours).astype(float) - np.concatenate(baseline).astype(float)
    low, high = interval(differences)
    accuracy = {"lora": round(float(np.concatenate(ours).mean()), 4), "TF-IDF": round(float(np.concatenate(baseline).mean()), 4)}
    conclude(
        "sogou10_long, LoRA over TF-IDF, points of accuracy", float(differences.mean()), GOAL, accuracy=accuracy,
        interval=[round(low, 4), round(high, 4)], rows=len(differences), folds=folds,
    )  # fmt: skip


if __name__ == "__main__":
    main()

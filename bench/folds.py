"""Five folds over the train and dev rows of a set together: every row is answered once, by a run that has not seen it, and all classifiers
answer the same rows, so that their differences are paired.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from bench.runs import WORK, lines_of, shared
from fenlei.data.readers import read_examples
from fenlei.inference.classifier import Classifier
from fenlei.inference.loading import load_run
from fenlei.inference.trust import load_trust
from fenlei.models.baseline import Baseline
from fenlei.models.head import HeadMethod
from fenlei.training.vectors import score_frozen

FOLDS, SEED = 5, 0
RESAMPLINGS = 2000

Figure = Callable[[np.ndarray, np.ndarray], float]
"""Gold labels and answers, int64 (rows,), to a figure."""


def fold_files(data_set: str, short: str, fold: int, documents: int | None = None) -> tuple[Path, Path]:
    """The rows a fold trains on and those it is asked, of train and dev together; each class in proportion. `short` names the files.

    `documents`: the folds are of so many rows alone.
    """
    data = shared() / "data" / data_set
    lines = [line for name in ("train", "dev") for line in lines_of(data / f"{name}.jsonl")]
    labels = [json.loads(line)["label"] for line in lines]
    if documents is not None:
        lines, _, labels, _ = train_test_split(lines, labels, train_size=documents, stratify=labels, random_state=SEED)
    parts = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(lines, labels))[fold]
    files = tuple(WORK / "data" / f"{short}_fold{fold}_{name}.jsonl" for name in ("train", "asked"))
    for file, part in zip(files, parts, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines[row] + "\n" for row in part), encoding="utf-8")
    return files[0], files[1]


def gold_of(asked: Path) -> list[str]:
    """The labels of the rows asked."""
    return [str(one.label) for one in read_examples(asked)]


def reported_answers(name: str) -> list[str]:
    """What a run that was evaluated has answered."""
    return [json.loads(line)["prediction"] for line in lines_of(WORK / name / "report" / "predictions.jsonl")]


def frozen_answers(name: str, asked: Path, *, int8: bool = False) -> list[str]:
    """What a run with a frozen backbone answers, by the cached states of its rows: over all folds each is read once.

    `int8`: those states are of a run trained in int8.
    """
    run = load_run(WORK / name, int8=int8)
    assert isinstance(run.method, HeadMethod)
    encoded = run.encoder.encode([one.text for one in read_examples(asked)])
    scores = score_frozen(run.method, Path(run.manifest["base_model"]["folder"]), encoded, len(run.labels))
    return [one.label for one in Classifier(run, load_trust(WORK / name, run.manifest)).answer(scores)]


def baseline_answers(name: str, asked: Path) -> list[str]:
    """What TF-IDF, fitted on the run's training rows, answers."""
    labels = json.loads((WORK / name / "fenlei.json").read_text(encoding="utf-8"))["labels"]
    best = Baseline.load(WORK / name / "baseline").logits([one.text for one in read_examples(asked)]).argmax(axis=1)
    return [labels[at] for at in best]


def accuracy(gold: np.ndarray, answers: np.ndarray) -> float:
    """The share of right answers."""
    return float((gold == answers).mean())


def macro_f1(gold: np.ndarray, answers: np.ndarray) -> float:
    """The mean of the classes' F1."""
    classes = int(max(gold.max(), answers.max())) + 1
    right = np.bincount(gold[gold == answers], minlength=classes)
    both = np.bincount(gold, minlength=classes) + np.bincount(answers, minlength=classes)
    return float((2 * right / np.maximum(both, 1))[both > 0].mean())


def difference(gold: list[str], first: list[str], second: list[str], figure: Figure) -> dict[str, float]:
    """How much better `first` is than `second`, with the 95 % interval of a paired bootstrap over rows."""
    names = sorted({*gold, *first, *second})
    own, one, other = (np.array([names.index(label) for label in labels]) for labels in (gold, first, second))
    generator = np.random.default_rng(SEED)
    drawn = (generator.integers(0, len(own), len(own)) for _ in range(RESAMPLINGS))
    found = [figure(own[rows], one[rows]) - figure(own[rows], other[rows]) for rows in drawn]
    low, high = np.percentile(found, [2.5, 97.5])
    return {"points": round(figure(own, one) - figure(own, other), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def figures(gold: list[str], answers: list[str]) -> dict[str, float]:
    """Accuracy and macro F1."""
    names = sorted({*gold, *answers})
    own, given = (np.array([names.index(label) for label in labels]) for labels in (gold, answers))
    return {"accuracy": round(accuracy(own, given), 4), "macro_f1": round(macro_f1(own, given), 4)}

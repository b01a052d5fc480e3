"""Long documents by a frozen backbone whose head is solved and no more: windows, the first 512 tokens, and TF-IDF, in five folds.

python -m bench.solved_long fudan20|sogou10_long [windows] [truncate] [OPTION=VALUE ...] [--documents N]

What `headline_long` measures of runs, without what makes a run of it (gradient steps, selecting and calibrating rows): the backbone reads
every document once, the head is ridge regression on the states of four folds, windows weighing alike. It is taken up where it was cut off.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from bench.folds import FOLDS, accuracy, difference, figures, fold_files, macro_f1
from bench.headline_long import GOAL, SETS, WINDOWS
from bench.runs import WORK, conclude, given_options, real_model
from fenlei.config import RunConfig
from fenlei.data.readers import read_examples
from fenlei.inference.loading import encode_examples
from fenlei.models.baseline import Baseline
from fenlei.models.head import HeadMethod
from fenlei.training.setup import prepare
from fenlei.training.solved_head import solved_weight
from fenlei.training.vectors import cached_vectors, joined_states

WAYS = ("windows", "truncate")


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=SETS)
    parser.add_argument("words", nargs="*", metavar="WAY|OPTION=VALUE")
    parser.add_argument("--documents", type=int, help="default: all")
    given = parser.parse_intermixed_args()
    ways = [word for word in given.words if word in WAYS] or list(WAYS)
    options = given_options([word for word in given.words if "=" in word])
    short = SETS[given.data][0] if given.documents is None else f"{SETS[given.data][0]}_{given.documents}"
    folds = [fold_files(given.data, short, fold, given.documents) for fold in range(FOLDS)]
    rows = [row for _, asked in folds for row in read_examples(asked)]
    asked_by = np.concatenate([np.full(len(list(read_examples(asked))), fold) for fold, (_, asked) in enumerate(folds)])
    gold = [str(row.label) for row in rows]
    names = sorted(set(gold))
    ids = np.array([names.index(name) for name in gold])
    answers: dict[str, list[str]] = {}
    for way in ways:
        states = _states(rows, WORK / "data" / f"{short}_fold0_train.jsonl", {**WINDOWS, "long": way, **options})
        answers[way] = [names[at] for at in _answered(states, ids, asked_by, len(names))]
        print(f"{way}: {figures(gold, answers[way])}", flush=True)
    answers["TF-IDF"] = [names[at] for at in _baseline([row.text for row in rows], ids, asked_by, len(names))]
    first, *others = answers
    above = {
        other: {figure.__name__: difference(gold, answers[first], answers[other], figure) for figure in (macro_f1, accuracy)}
        for other in others
    }
    conclude(
        f"{given.data}, a solved head over frozen {first}, over TF-IDF, points of macro F1", above["TF-IDF"]["macro_f1"]["points"], GOAL,
        figures={way: figures(gold, told) for way, told in answers.items()}, over=above, rows=len(rows),
    )  # fmt: skip


def _states(rows: list[Any], train: Path, options: dict[str, Any]) -> np.ndarray:
    """What the head of a run over `train` would read of each row, float32 (rows, hidden)."""
    setup = prepare(RunConfig.from_options({"data": str(train), "model": real_model(), "dev_ratio": 0.05, **options}))
    assert isinstance(setup.method, HeadMethod)
    encoded = encode_examples(setup.encoder, rows)
    return joined_states(setup.method, cached_vectors(setup.method, setup.base, encoded), encoded, np.arange(len(rows)))


def _answered(states: np.ndarray, ids: np.ndarray, asked_by: np.ndarray, labels: int) -> np.ndarray:
    answers = np.zeros(len(ids), dtype=np.int64)
    for fold in range(FOLDS):
        asked = asked_by == fold
        targets = np.eye(labels, dtype=bool)[ids[~asked]]
        answers[asked] = (states[asked] @ solved_weight(states[~asked], targets, np.ones(len(targets))).T).argmax(axis=1)
    return answers


def _baseline(texts: list[str], ids: np.ndarray, asked_by: np.ndarray, labels: int) -> np.ndarray:
    answers = np.zeros(len(ids), dtype=np.int64)
    for fold in range(FOLDS):
        asked = asked_by == fold
        fitted = Baseline.fit([text for text, out in zip(texts, asked, strict=True) if not out], ids[~asked], labels)
        answers[asked] = fitted.logits([text for text, out in zip(texts, asked, strict=True) if out]).argmax(axis=1)
    return answers


if __name__ == "__main__":
    main()

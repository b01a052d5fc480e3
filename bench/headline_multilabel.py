"""Event types of news sentences, any number a row, beside TF-IDF.

python -m bench.headline_multilabel [nano] [qwen] [OPTION=VALUE ...] [--rows N]

Both classifiers train on the same rows of `train`, a tenth of which selects and calibrates, and answer all of `dev`, so that their
difference is paired. A run that is cut off is taken up again; an option of fenlei.train tries something else, in a run of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from bench.runs import WORK, conclude, given_options, head_of, lines_of, name_of, real_model, run, shared
from fenlei.artifact import read_manifest
from fenlei.data.labelling import Labelling
from fenlei.data.readers import read_examples
from fenlei.evaluation.answers import MultiLabelAnswers
from fenlei.inference.baseline import baseline_answers
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline

GOAL, DEV_RATIO = 0.02, 0.1
RESAMPLINGS, SEED = 2_000, 0


def answers_on(name: str, dev: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of the rows, those that the run gave and those of its baseline: bool (rows, labels) each."""
    manifest = read_manifest(WORK / name)
    labelling, labels = Labelling.from_json(manifest), LabelSet(tuple(manifest["labels"]))
    examples = list(read_examples(dev, labelling=labelling))
    told = [json.loads(line) for line in lines_of(WORK / name / "report" / "predictions.jsonl")]
    ours = np.array([[label in row["prediction"] for label in labels] for row in told])
    theirs = baseline_answers(Baseline.load(WORK / name / "baseline"), [one.text for one in examples], labelling, labels)
    assert isinstance(theirs, MultiLabelAnswers)
    return labelling.gold(examples, labels), ours, theirs.chosen


def micro_f1(gold: np.ndarray, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of rows that count `weights` times, (draws, rows): float64 (draws,)."""
    both, either = (gold & given).sum(axis=1), gold.sum(axis=1) + given.sum(axis=1)
    return np.asarray(2 * (weights @ both) / (weights @ either))


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="nano|qwen|OPTION=VALUE")
    parser.add_argument("--rows", type=int, help="Train on the first N rows alone.")
    given = parser.parse_intermixed_args()
    models = [word for word in given.words if word in ("nano", "qwen")] or ["nano", "qwen"]
    asked = given_options([word for word in given.words if "=" in word])
    data = shared() / "data" / "duee65_multilabel"
    train, dev = data / "train.jsonl", data / "dev.jsonl"
    train = train if given.rows is None else head_of(train, given.rows)
    options = {"dev_ratio": DEV_RATIO, "evals_per_epoch": 2, **asked}
    gains, figures = {}, {}
    for model in models:
        name = name_of(f"duee65_{model}_{given.rows or 'all'}", asked)
        evaluation, seconds = run(name, train, dev, selecting=None, model="nano" if model == "nano" else real_model(), **options)
        gold, ours, theirs = answers_on(name, dev)
        drawn = np.random.default_rng(SEED).multinomial(len(gold), np.full(len(gold), 1 / len(gold)), size=RESAMPLINGS)
        low, high = np.percentile(micro_f1(gold, ours, drawn) - micro_f1(gold, theirs, drawn), [2.5, 97.5])
        every = np.ones((1, len(gold)))
        figures[model] = {"model": float(micro_f1(gold, ours, every)[0]), "TF-IDF": float(micro_f1(gold, theirs, every)[0])}
        gains[model] = figures[model]["model"] - figures[model]["TF-IDF"]
        plain = ", ".join(f"{key} {value:.4f}" for key, value in figures[model].items())
        print(f"{name}: micro F1 {plain}, difference {low:.4f} to {high:.4f}, {seconds:.0f} s", flush=True)
        print(
            "  " + json.dumps({key: value for key, value in evaluation.metrics.to_json().items() if isinstance(value, float)}), flush=True
        )
    best = max(gains, key=lambda model: gains[model])
    rounded = {model: {key: round(value, 4) for key, value in one.items()} for model, one in figures.items()}
    conclude(f"duee65_multilabel, {best} over TF-IDF, micro F1", gains[best], GOAL, micro_f1=rounded)


if __name__ == "__main__":
    main()

"""Texts from outside the label set, told from those inside: python -m bench.novelty_clinc [MODEL [TUNING [EPOCHS [CLASSES]]]].

Trained on clinc150_en without its out-of-scope rows; the novelty score is chosen on train's out-of-scope rows and reported on dev's. The
model defaults to the real one, tuned by LoRA; CLASSES, for a quick look, takes only that many.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.runs import WORK, conclude, lines_of, real_model, run, shared
from fenlei.evaluation.calibration import probabilities
from fenlei.evaluation.novelty import ClassGaussians, auroc, energy
from fenlei.inference.classifier import Classifier
from fenlei.inference.scoring import Scores, score

OUTSIDE = "oos"
GOAL = 0.95
EPOCHS = 3.0


def main() -> None:
    """Prints the figures; the last line is JSON."""
    given = sys.argv[1:]
    model = given[0] if given else real_model()
    tuning = given[1] if len(given) > 1 else "lora"
    epochs = float(given[2]) if len(given) > 2 else EPOCHS
    most = int(given[3]) if len(given) > 3 else None
    data = shared() / "data" / "clinc150_en"
    train, train_outside = parted(data / "train.jsonl", most)
    dev, dev_outside = parted(data / "dev.jsonl", most)
    name = f"clinc_{Path(model).name}_{tuning}_{epochs:g}" + (f"_{most}" if most else "")
    evaluation, seconds = run(name, train, dev, model=model, tuning=tuning, epochs=epochs, out_of_scope=str(train_outside))
    print(f"in-scope accuracy {evaluation.metrics.accuracy:.4f} on {evaluation.metrics.rows:,} rows, {seconds:.0f} s")
    classifier = Classifier.load(WORK / name)
    rule = classifier.trust.novelty
    assert rule is not None
    known, outside = (scores_of(classifier, texts_of(path)) for path in (dev, dev_outside))
    reached = auroc(rule.raw(known), rule.raw(outside))
    plain = auroc(*(1 - probabilities(one.logits, classifier.temperature).max(axis=1) for one in (known, outside)))
    print(
        f"chosen on train's {OUTSIDE} rows: {rule.score}; AUROC on dev's {len(outside.logits)}: {reached:.4f}; max-probability {plain:.4f}"
    )
    print(f"  energy {auroc(energy(known.logits), energy(outside.logits)):.4f}")
    if known.pooled is not None and outside.pooled is not None:
        gaussians = gaussians_of(classifier, train)
        print(f"  mahalanobis {auroc(gaussians.distances(known.pooled), gaussians.distances(outside.pooled)):.4f}")
    conclude(
        f"novelty on clinc150_en, {Path(model).name}, {tuning}", reached, GOAL,
        score=rule.score, max_probability=round(plain, 4), accuracy=round(evaluation.metrics.accuracy, 4),
    )  # fmt: skip


def parted(source: Path, most: int | None) -> tuple[Path, Path]:
    """The rows inside the label set (the first `most` labels' alone) and those outside, as two files."""
    rows = [json.loads(line) for line in lines_of(source)]
    labels = sorted({row["label"] for row in rows} - {OUTSIDE})[:most]
    inside, outside = (WORK / "data" / f"clinc_{source.stem}_{part}{most or ''}.jsonl" for part in ("inside", "outside"))
    inside.parent.mkdir(parents=True, exist_ok=True)
    write(inside, [row for row in rows if row["label"] in labels])
    write(outside, [row for row in rows if row["label"] == OUTSIDE])
    return inside, outside


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def texts_of(path: Path) -> list[str]:
    """The texts of a file that `parted` wrote."""
    return [json.loads(line)["text"] for line in lines_of(path)]


def scores_of(classifier: Classifier, texts: Sequence[str]) -> Scores:
    """With states, whatever the run itself needs."""
    loaded = classifier._run
    return score(loaded.method, loaded.encoder.encode(texts), len(classifier.labels), keep_states=True)


def gaussians_of(classifier: Classifier, train: Path) -> ClassGaussians:
    """The run's own where it has them, else of as many training rows as it would take."""
    rule = classifier.trust.novelty
    if rule is not None and rule.gaussians is not None:
        return rule.gaussians
    rows = [json.loads(line) for line in lines_of(train)]
    chosen = np.random.default_rng(0).permutation(len(rows))[:5000]
    states = scores_of(classifier, [rows[at]["text"] for at in chosen]).pooled
    assert states is not None
    return ClassGaussians.fit(states, np.array([classifier.labels.index(rows[at]["label"]) for at in chosen]))


if __name__ == "__main__":
    main()

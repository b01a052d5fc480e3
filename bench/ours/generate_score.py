"""fenlei's side of bench.generate_scoring: every label's probability for every title, zero-shot. Loading is not counted."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.ours.said import say
from fenlei import Classifier
from fenlei.models.allocator import keep_freed_memory


def main() -> None:
    """DATA MODEL LABELS [DEVICE]: prints the measured line."""
    data, model, labels, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), (*sys.argv[4:], "cpu")[0]
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").split("\n") if line]
    keep_freed_memory()
    classifier = Classifier.zero_shot(model, labels, device=device, prior_correction=False)
    classifier.predict([row["text"] for row in rows[:2]])
    began = time.perf_counter()
    answers = classifier.predict([row["text"] for row in rows])
    seconds = time.perf_counter() - began
    right = sum(answer.label == row["label"] for answer, row in zip(answers, rows, strict=True))
    say(len(rows), seconds, device=device, accuracy=right / len(rows))


if __name__ == "__main__":
    main()

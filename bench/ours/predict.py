"""fenlei's side of the prediction benches: Classifier.load and predict, as a user calls them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bench.ours.said import say
from fenlei import Classifier
from fenlei.data.readers import read_examples
from fenlei.models.allocator import keep_freed_memory

WARM_UP = 32


def main() -> None:
    """Classifies all texts of a file; prints the measured line, with every answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    examples = list(read_examples(given.data))
    texts = [example.text for example in examples]
    keep_freed_memory()  # as `fenlei predict` does
    classifier = Classifier.load(given.run, device=given.device, int8=given.int8)
    classifier.predict(texts[:WARM_UP])
    began = time.perf_counter()
    answers = [one.label for one in classifier.predict(texts)]
    seconds = time.perf_counter() - began
    right = sum(answer == example.label for answer, example in zip(answers, examples, strict=True))
    say(len(texts), seconds, device=given.device, accuracy=right / len(texts), answers=answers)


if __name__ == "__main__":
    main()

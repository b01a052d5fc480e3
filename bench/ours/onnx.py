"""ONNX Runtime over an exported folder: tokenised, batched and scored as `fenlei export` does when it compares."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bench.ours.predict import WARM_UP
from bench.ours.said import say
from fenlei.artifact import read_json
from fenlei.data.readers import read_examples
from fenlei.export.onnx_folder import TOLD, OnnxScorer
from fenlei.models.backbone import load_tokenizer
from fenlei.text.prompts import TextEncoder


def main() -> None:
    """Classifies all texts of a file; prints the measured line, with every answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    examples = list(read_examples(given.data))
    texts = [example.text for example in examples]
    told, tokenizer, scorer = read_json(given.folder / TOLD), load_tokenizer(given.folder), OnnxScorer(given.folder)
    encoder = TextEncoder(tokenizer, told["prompt"], told["max_length"])
    scorer.logits(encoder.encode(texts[:WARM_UP]), int(tokenizer.pad_token_id))
    began = time.perf_counter()
    logits = scorer.logits(encoder.encode(texts), int(tokenizer.pad_token_id))
    answers = [told["labels"][best] for best in logits.argmax(1).tolist()]
    seconds = time.perf_counter() - began
    right = sum(answer == example.label for answer, example in zip(answers, examples, strict=True))
    say(len(texts), seconds, accuracy=right / len(texts), answers=answers)


if __name__ == "__main__":
    main()

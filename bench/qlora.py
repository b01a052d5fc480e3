"""QLoRA on a real CUDA device: trained, saved, loaded, asked: python -m bench.qlora [--real FOLDER] [--out FILE].

A few steps on the titles, and the same with LoRA on the whole weights: seconds, peak memory, what the loaded run answers, and how far it is
from the same adapters over the base model as it is, on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.runs import conclude, even_head_of, head_of, shared
from fenlei import Classifier, train
from fenlei.models.qlora import computes_four_bit

TRAIN_ROWS, DEV_ROWS, TEXTS, STEPS = 640, 64, 48, 20
GOAL = 1.0
"""Of LoRA's peak memory, at most."""


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", default="half", help="a folder with config and tokenizer, and weights or not")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not computes_four_bit(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        sys.exit("no CUDA device, or no bitsandbytes: nothing computes in 4 bits here")
    with tempfile.TemporaryDirectory() as folder:
        model = _model(given.real, Path(folder))
        found = {tuning: _trained(tuning, model, Path(folder) / tuning) for tuning in ("qlora", "lora")}
        found["qlora"] |= _loaded(Path(folder) / "qlora")
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    smaller = found["qlora"]["peak_gb"] / found["lora"]["peak_gb"]
    conclude("QLoRA's peak memory over LoRA's", smaller, GOAL, at_most=True, measured=found)


def _model(source: str, folder: Path) -> str:
    from bench.ours import gpu_models

    sys.argv = ["gpu_models", source, str(folder)]
    gpu_models.main()
    return str(folder / "causal")


def _trained(tuning: str, model: str, out: Path) -> dict[str, Any]:
    torch.cuda.reset_peak_memory_stats()
    data, began = shared() / "data" / "thucnews10", time.perf_counter()
    result = train(
        even_head_of(data / "train.jsonl", TRAIN_ROWS), dev=str(head_of(data / "dev.jsonl", DEV_ROWS)), out=out, model=model, tuning=tuning,
        max_steps=STEPS, batch_size=32, long="truncate", device="cuda", baseline=False,
    )  # fmt: skip
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    shares = {"trainable": result.trainable, "parameters": result.parameters, "accuracy": result.metrics.accuracy}
    return {"seconds": time.perf_counter() - began, "peak_gb": peak / 1e9, **shares, "notes": result.notes}


def _loaded(run: Path) -> dict[str, Any]:
    """How far the run in 4 bits is from itself, loaded again, and from the same adapters over whole weights."""
    texts = [json.loads(line)["text"] for line in head_of(shared() / "data" / "thucnews10" / "dev.jsonl", TEXTS).open(encoding="utf-8")]
    first, second = (Classifier.load(run, device="cuda").predict_proba(texts) for _ in range(2))
    alone = np.concatenate([Classifier.load(run, device="cuda").predict_proba([text]) for text in texts[:1]])
    whole = Classifier.load(run, device="cpu").predict_proba(texts)
    return {
        "loaded_twice_apart": float(np.abs(first - second).max()),
        "one_and_many_apart": float(np.abs(alone - first[:1]).max()),
        "whole_weights_apart": float(np.abs(whole - first).max()),
        "same_label_as_whole_weights": float((whole.argmax(axis=1) == first.argmax(axis=1)).mean()),
    }


if __name__ == "__main__":
    main()

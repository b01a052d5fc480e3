"""transformers.pipeline("text-classification") on a stock folder, in bfloat16 unless told otherwise, as its documentation shows it.

Nothing of fenlei is imported.
"""

import argparse
import json
import time

import torch
from transformers import pipeline

WARM_UP = 32


def main():
    """Classifies all texts of a file; prints the measured line, with every answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    with open(given.data, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["text"] for row in rows]
    classify = pipeline(
        "text-classification", model=given.model, dtype=getattr(torch, given.dtype), batch_size=given.batch_size, device=given.device
    )
    settings = {"truncation": True, "max_length": given.max_length}
    classify(texts[:WARM_UP], **settings)
    began = time.perf_counter()
    answers = [one["label"] for one in classify(texts, **settings)]
    seconds = time.perf_counter() - began
    right = sum(answer == row["label"] for answer, row in zip(answers, rows, strict=True))
    if given.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        with open("/proc/self/status", encoding="utf-8") as status:
            peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    said = {"rows": len(texts), "seconds": seconds, "peak_bytes": peak, "accuracy": right / len(texts), "answers": answers}
    print(json.dumps(said, ensure_ascii=False))


if __name__ == "__main__":
    main()

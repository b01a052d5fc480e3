"""The matrix-product ceiling of this machine at Qwen2.5-0.5B's shapes, by number format: python -m bench.ceiling."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import suppress

import torch

ROWS, HIDDEN, INTERMEDIATE = 1792, 896, 4864
ROUNDS, PRODUCTS = 7, 10


def teraflops(dtype: torch.dtype) -> float:
    """Median rate of a (ROWS, HIDDEN) by (HIDDEN, INTERMEDIATE) product."""
    left, right = torch.randn(ROWS, HIDDEN).to(dtype), torch.randn(HIDDEN, INTERMEDIATE).to(dtype)
    rates = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            left @ right
        rates.append(2 * ROWS * HIDDEN * INTERMEDIATE * PRODUCTS / (time.perf_counter() - began) / 1e12)
    return statistics.median(rates[1:])


def main() -> None:
    """Prints the rates; the last line is JSON."""
    found = {"float32": teraflops(torch.float32), "bfloat16": teraflops(torch.bfloat16)}
    with suppress(AttributeError):  # older PyTorch cannot be told so
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        found["float32 by bfloat16 products"] = teraflops(torch.float32)
    for name, rate in found.items():
        print(f"{name}: {rate:.2f} TFLOP/s")
    print(
        json.dumps({"name": "matrix-product ceiling", "ratio": round(found["bfloat16"] / found["float32"], 2), "goal": None, "met": None})
    )


if __name__ == "__main__":
    main()

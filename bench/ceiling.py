"""The matrix-product ceiling of this machine at Qwen2.5-0.5B's shapes, by number format: python -m bench.ceiling."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from fenlei.models.quantized import Int8Rows, Int8Weight

ROWS, HIDDEN, INTERMEDIATE = 1792, 896, 4864
ROUNDS, PRODUCTS = 7, 10
SLOW = 1.0
"""Seconds of one product from which on one has to do: without instructions for a format PyTorch takes minutes for all of them."""


def teraflops(product: Callable[[], object]) -> float:
    """Median rate of a (ROWS, HIDDEN) by (HIDDEN, INTERMEDIATE) product."""
    first = _seconds(product, 1)
    found = first if first > SLOW else statistics.median(_seconds(product, PRODUCTS) for _ in range(ROUNDS))
    return 2 * ROWS * HIDDEN * INTERMEDIATE / found / 1e12


def _seconds(product: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        product()
    return (time.perf_counter() - began) / times


def main() -> None:
    """Prints the rates; the last line is JSON."""
    left, right = torch.randn(ROWS, HIDDEN), torch.randn(HIDDEN, INTERMEDIATE)
    short = left.bfloat16(), right.bfloat16()
    found = {"float32": teraflops(lambda: left @ right), "bfloat16": teraflops(lambda: short[0] @ short[1])}
    with suppress(RuntimeError, AttributeError):  # processors without oneDNN's integer products
        weight, rows = Int8Weight(right.T), Int8Rows.of(left)
        found["8-bit integers"] = teraflops(lambda: weight.product(rows))
        found["8-bit integers, rounding included"] = teraflops(lambda: weight.product(Int8Rows.of(left)))
    with suppress(AttributeError):  # older PyTorch cannot be told so
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        found["float32 by bfloat16 products"] = teraflops(lambda: left @ right)
    for name, rate in found.items():
        print(f"{name}: {rate:.3g} TFLOP/s")
    print(
        json.dumps({"name": "matrix-product ceiling", "ratio": round(found["bfloat16"] / found["float32"], 2), "goal": None, "met": None})
    )


if __name__ == "__main__":
    main()

"""The matrix-product ceiling: a model's linears one after the other, into memory that is reused, in the number format that fenlei computes
such a model in on this CPU. `rows` are TFLOP.
"""

from __future__ import annotations

import argparse
import time

import torch

from bench.ours.said import say
from bench.shapes import shapes_of
from fenlei.models.devices import pick_precision

TOKENS, PASSES = 1792, 3


def main() -> None:
    """Prints the measured line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    linears = shapes_of(parser.parse_args().model).linears
    precision = pick_precision(torch.device("cpu"), sum(a * b for a, b in linears))
    dtype = precision.autocast or precision.weights
    weights = {shape: torch.randn(shape[::-1]).to(dtype) for shape in set(linears)}
    inputs = {width: torch.randn(TOKENS, width).to(dtype) for width in {a for a, _ in linears}}
    outputs = {width: torch.empty(TOKENS, width, dtype=dtype) for width in {b for _, b in linears}}
    began = 0.0
    for number in range(PASSES + 1):  # the first only warms up
        if number == 1:
            began = time.perf_counter()
        for a, b in linears:
            torch.mm(inputs[a], weights[a, b].T, out=outputs[b])
    seconds = time.perf_counter() - began
    say(PASSES * 2 * TOKENS * sum(a * b for a, b in linears) / 1e12, seconds)


if __name__ == "__main__":
    main()

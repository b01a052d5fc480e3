"""One training of a head over a frozen backbone, with no vectors cached: the seconds of the whole training."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from bench.ours.said import say
from fenlei import train


def main() -> None:
    """Trains `epochs` times over a file; prints the measured line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    given = parser.parse_args()
    rows = sum(1 for _ in given.data.open(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        began = time.perf_counter()
        result = train(
            given.data, dev=str(given.dev), out=Path(folder) / "run", model=given.model, tuning="frozen", epochs=given.epochs,
            device="cpu", baseline=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    say(rows, seconds, accuracy=result.metrics.accuracy)


if __name__ == "__main__":
    main()

"""Bulk prediction of a file, watched: the moment and the memory at every window of rows."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from bench.ours.said import say
from fenlei import Classifier
from fenlei.inference.bulk import predict_file
from fenlei.models.allocator import keep_freed_memory

PAGE = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Rows done, seconds and resident bytes, at each call."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seen: list[tuple[int, float, int]] = []

    def __call__(self, rows: int) -> None:
        resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * PAGE
        self.seen.append((rows, time.perf_counter() - self.began, resident))


def main() -> None:
    """Predicts the rows of a file into another; prints the measured line, with what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    keep_freed_memory()  # as `fenlei predict` does
    classifier = Classifier.load(given.run, device="cpu")
    watch = Watch()
    result = predict_file(classifier, given.source, given.target, progress=watch)
    say(result.rows, result.seconds, seen=watch.seen)


if __name__ == "__main__":
    main()

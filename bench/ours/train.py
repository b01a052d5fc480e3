"""fenlei's side of the training benches: fenlei.train with its defaults, timed from the end of the first step to the end of the last."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from bench.ours.said import say
from fenlei import train
from fenlei.data.readers import read_examples
from fenlei.models.backbone import load_tokenizer
from fenlei.text.batches import TrainingBatches
from fenlei.text.prompts import TextEncoder
from fenlei.training.progress import Progress

SEED = 42


class AllStepsDone(Exception):
    """What comes after the steps is not asked for."""


class StepClock:
    """The moments at which optimiser steps ended; evaluations are told as well, and are no steps."""

    def __init__(self, device: str, *, alone: bool) -> None:
        """`alone`: AllStepsDone ends the training with its last step."""
        self.ends: list[float] = []
        self.loss: float | None = None
        self._on_cuda, self._alone = device == "cuda", alone

    def __call__(self, progress: Progress) -> None:
        if progress.metrics is None:
            if self._on_cuda:
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())
        self.loss = progress.loss if progress.loss is not None else self.loss
        if self._alone and progress.step == progress.steps:
            raise AllStepsDone


def timed_rows(data: Path, model: str, batch_size: int, max_length: int, *, alike: bool) -> tuple[float, float]:
    """Rows and tokens of all steps but the first, in one epoch.

    The first step may be a short or a long one, all the more where its rows are `alike`: rows are counted as tokens over the mean length,
    else leaving out a step of short rows would make the rest look slow, and one of long rows fast.
    """
    encoder = TextEncoder(load_tokenizer(Path(model)), None, max_length)
    lengths = encoder.encode([example.text for example in read_examples(data)]).lengths
    first = next(iter(TrainingBatches(lengths, batch_size, SEED, alike=alike)))
    tokens = float(lengths.sum() - lengths[first].sum())
    return tokens / float(lengths.mean()), tokens


def main() -> None:
    """Trains on all rows of a file, once; prints the measured line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tuning", default="lora")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps-alone", action="store_true", help="end with the last step: nothing is measured, saved or loaded back")
    parser.add_argument("--keep", type=Path, help="a folder for the run, which then stays")
    given = parser.parse_args()
    rows, tokens = timed_rows(given.data, given.model, given.batch_size, given.max_length, alike=given.device != "cpu")
    notes: list[str] = []
    clock = StepClock(given.device, alone=given.steps_alone)
    with tempfile.TemporaryDirectory() as folder, suppress(AllStepsDone):
        train(
            given.data, dev=str(given.dev), out=given.keep or Path(folder) / "run", model=given.model, tuning=given.tuning, epochs=1,
            batch_size=given.batch_size, max_length=given.max_length, long="truncate", int8=given.int8, seed=SEED,
            device=given.device, baseline=False, progress=clock, announce=notes.append,
        )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes: the first one tells
    seconds = clock.ends[-1] - clock.ends[0]
    say(rows, seconds, device=given.device, loss=clock.loss, tokens=tokens, steps=len(clock.ends) - 1, notes=notes)


if __name__ == "__main__":
    main()

"""fenlei's side of bench.generate_training: LoRA on the generate method, timed from the end of the first step to the end of the last."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench.ours.said import say
from fenlei import train
from fenlei.data.readers import read_examples
from fenlei.models.backbone import load_tokenizer
from fenlei.text.batches import TrainingBatches
from fenlei.text.tokens import plain_ids
from fenlei.training.progress import Progress

SEED = 42


def main() -> None:
    """Trains one epoch on all rows of a file; prints the measured line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--objective", default="labels")
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    ends: list[float] = []
    losses: list[float | None] = []

    def clock(progress: Progress) -> None:
        if progress.metrics is None:
            ends.append(time.perf_counter())
        losses.append(progress.loss)

    with tempfile.TemporaryDirectory() as folder:
        train(
            given.data, dev=str(given.dev), out=Path(folder) / "run", model=given.model, method="generate", tuning="lora",
            objective=given.objective, epochs=1, batch_size=given.batch_size, text_column="text", label_column="label", seed=SEED,
            device="cpu", baseline=False, progress=clock,
        )  # fmt: skip
    say(_timed_rows(given.data, given.model, given.batch_size), ends[-1] - ends[0], steps=len(ends) - 1, loss=losses[-1])


def _timed_rows(data: Path, model: str, batch_size: int) -> float:
    """Rows of all steps but the first, as tokens over the mean length: steps hold rows of like length, and the first may be a short one."""
    import numpy as np

    tokenizer = load_tokenizer(Path(model))
    lengths = np.array([len(ids) for ids in plain_ids(tokenizer, [example.text for example in read_examples(data)])])
    first = next(iter(TrainingBatches(lengths, batch_size, SEED, alike=True)))
    return float(lengths.sum() - lengths[first].sum()) / float(lengths.mean())


if __name__ == "__main__":
    main()

"""How much of what is computed is wanted: python -m bench.useful_work [share] [rate] [--rounds N] [--quick].

share: real tokens among those that go through the network, padding included, in our training and prediction batches of both sets, as a GPU
gets them: up to 16,384 tokens at once. On a CPU decoders see no padding at all (tests/test_packing.py).
rate: the model's own FLOP a second, in LoRA training and in prediction of titles, over what the same machine's matrix products reach in the
same call at the model's shapes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bench.prediction import titles_run
from bench.runs import conclude_all, head_of, model_folder, shared
from bench.shapes import Shapes, shapes_of
from bench.side_by_side import Measured, Side, alternate, arguments, ours
from bench.training import DEV_ROWS
from fenlei.config.model import DEFAULT_MAX_LENGTH
from fenlei.data.readers import read_examples
from fenlei.inference.bulk import WINDOW_ROWS
from fenlei.models.backbone import load_tokenizer
from fenlei.models.devices import GPU_BATCH_TOKENS
from fenlei.text.batches import TrainingBatches, by_token_budget
from fenlei.text.prompts import TextEncoder

SHARE_GOAL, TRAIN_AIM, PREDICT_AIM = 0.95, 0.35, 0.55
BATCH_SIZE, TRAIN_ROWS, PREDICT_ROWS, QUICK_ROWS = 32, 448, 1024, 96


def lengths_of(data: Path, model: str) -> np.ndarray:
    """Tokens of every text, as fenlei cuts it."""
    return TextEncoder(load_tokenizer(Path(model)), None, DEFAULT_MAX_LENGTH).encode([one.text for one in read_examples(data)]).lengths


def real_share(lengths: np.ndarray, batches: Iterable[Sequence[int]], budget: int) -> float:
    """Real tokens over all that are computed where `batches` go through the network in groups of at most `budget` tokens."""
    groups = [group for batch in batches for group in by_token_budget(lengths, batch, budget)]
    return float(lengths.sum()) / sum(len(group) * int(lengths[group].max()) for group in groups)


def shares(dataset: str, model: str, quick: bool) -> dict[str, tuple[float, float]]:
    """Of training over the train rows and prediction of the dev rows, with the goal."""
    data = shared() / "data" / dataset
    train, dev = (lengths_of(head_of(path, QUICK_ROWS) if quick else path, model) for path in (data / "train.jsonl", data / "dev.jsonl"))
    windows = [range(first, min(first + WINDOW_ROWS, len(dev))) for first in range(0, len(dev), WINDOW_ROWS)]
    return {
        f"{dataset}, training": (real_share(train, TrainingBatches(train, BATCH_SIZE, 0, alike=True), GPU_BATCH_TOKENS), SHARE_GOAL),
        f"{dataset}, prediction": (real_share(dev, windows, GPU_BATCH_TOKENS), SHARE_GOAL),
    }


def rates(model: str, rounds: int, quick: bool) -> dict[str, tuple[float, float]]:
    """The model's FLOP rate in LoRA training and in prediction, over the ceiling of the same round, with the aim."""
    data = shared() / "data" / "thucnews10"
    train, asked = (
        head_of(data / name, QUICK_ROWS if quick else rows) for name, rows in (("train.jsonl", TRAIN_ROWS), ("dev.jsonl", PREDICT_ROWS))
    )
    sides = [
        Side("ceiling", ours("ceiling", "--model", model)),
        Side("training", ours("train", train, head_of(data / "dev.jsonl", DEV_ROWS), "--model", model)),
        Side("prediction", ours("predict", titles_run(quick=quick), asked)),
    ]
    measured, shapes = alternate(sides, rounds), shapes_of(model)
    ceilings = [one.rows_a_second for one in measured["ceiling"]]

    def over_ceiling(side: str, lengths: np.ndarray, kind: str) -> float:
        pairs = zip(measured[side], ceilings, strict=True)
        return statistics.median(teraflops(one, shapes, lengths, kind) / ceiling for one, ceiling in pairs)

    print(f"  ceiling {statistics.median(ceilings):.2f} TFLOP/s")
    return {
        "FLOP rate, training": (over_ceiling("training", lengths_of(train, model), "lora"), TRAIN_AIM),
        "FLOP rate, prediction": (over_ceiling("prediction", lengths_of(asked, model), "predict"), PREDICT_AIM),
    }


def teraflops(one: Measured, shapes: Shapes, lengths: np.ndarray, kind: str) -> float:
    """The model's own TFLOP/s of a side that handled `one.rows` rows of such lengths."""
    tokens, squares = one.rows * float(lengths.mean()), one.rows * float((lengths.astype(np.float64) ** 2).mean())
    return shapes.flop(tokens, squares, kind) / one.seconds / 1e12


def main() -> None:
    """Prints every figure; the last line is JSON, of the one furthest below its goal."""
    given = arguments(__doc__ or "", ("share", "rate"))
    model, found = model_folder(), {}
    if "share" in given.peers:
        found |= shares("thucnews10", model, given.quick) | shares("sogou10_long", model, given.quick)
    if "rate" in given.peers:
        found |= rates(model, given.rounds, given.quick)
    for name, (value, goal) in found.items():
        print(f"  {name}: {value:.4f} (goal {goal})")
    conclude_all("useful work", found)


if __name__ == "__main__":
    main()

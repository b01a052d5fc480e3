"""The run that the prediction benches ask, its stock twin, and the comparison with transformers.pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.runs import WORK, conclude, head_of, model_folder, shared, trained
from bench.side_by_side import Rounds, Side, alternate, ours, peer, speed_ratio
from fenlei.data.readers import read_examples
from fenlei.export.merged import export_merged

OURS, PIPELINE = "fenlei", "pipeline"
TRAINED_ON, DEV_ROWS, QUICK_ROWS, PARITY_TEXTS = 2000, 2000, 96, 64


def titles_run(*, quick: bool) -> Path:
    """A LoRA run on the first titles, trained once."""
    data, model = shared() / "data" / "thucnews10", model_folder()
    rows, dev = (QUICK_ROWS, QUICK_ROWS) if quick else (TRAINED_ON, DEV_ROWS)
    name = f"quick_{Path(model).parent.name}_{Path(model).name}" if quick else f"qwen_titles_{rows}"
    trained(
        name, head_of(data / "train.jsonl", rows), head_of(data / "dev.jsonl", dev), model=model, tuning="lora", epochs=1, long="truncate"
    )
    return WORK / name


def stock_twin(run: Path, data: Path) -> Path:
    """`run` as a stock folder, exported once, its parity shown on the first texts of `data`."""
    target = run.with_name(f"{run.name}_merged")
    if not target.exists():
        export_merged(run, target, texts=[example.text for example in read_examples(head_of(data, PARITY_TEXTS))])
    return target


def agreement(measured: Rounds, side: str, other: str) -> float:
    """Share of rows on which both gave the same label, in the first round."""
    one, two = measured[side][0].more["answers"], measured[other][0].more["answers"]
    return sum(a == b for a, b in zip(one, two, strict=True)) / len(one)


def against_pipeline(what: str, dataset: str, given: argparse.Namespace, *, rows: int, goal: float, batch: int = 32) -> None:
    """Rows a second of Classifier.predict over those of the pipeline, on the first dev rows of `dataset`."""
    dev = shared() / "data" / dataset / "dev.jsonl"
    run = titles_run(quick=given.quick)
    asked = head_of(dev, min(QUICK_ROWS, rows) if given.quick else rows)
    sides = [
        Side(OURS, ours("predict", run, asked)),
        Side(PIPELINE, peer("pipeline.py", stock_twin(run, dev), asked, "--batch-size", batch, "--dtype", given.dtype)),
    ]
    measured = alternate(sides, given.rounds)
    ratio = speed_ratio(measured, OURS, PIPELINE)
    same = round(agreement(measured, OURS, PIPELINE), 4)
    conclude(f"prediction, {what}: times the rows a second of transformers.pipeline", ratio, goal, same_label=same)

"""What a run would do, shown before it does it: rows, lengths, inputs as the model will see them, memory and time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fenlei.config import RunConfig
from fenlei.models.devices import fitting
from fenlei.text.batches import batch_of, by_token_budget
from fenlei.training.frozen import states_are_kept
from fenlei.training.process_memory import peak_bytes
from fenlei.training.setup import SMALLER, Setup, prepare

SHOWN_INPUTS = 3
TRIED_BATCHES = 3
ADAM_BYTES = 8
"""Two float32 moments a learning weight."""


@dataclass(frozen=True)
class DryRun:
    """A run that was planned and not started."""

    labels: dict[str, int]
    """Training rows of each label."""
    lengths: dict[str, int]
    """Tokens an input: median, p95, longest."""
    texts_cut: int
    tokens_cut: int
    inputs: tuple[str, ...]
    """The first inputs, decoded from the ids that the model would get."""
    trainable: int
    parameters: int
    steps: int
    memory_bytes: int
    """Peak of a few real steps, plus what the optimiser will add."""
    seconds: float
    """Of training, from the pace of a few real steps."""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.labels.items())
        shown = "\n".join(f"  {text!r}" for text in self.inputs)
        return "\n".join(
            [
                *self.notes,
                f"training rows: {counts}",
                "tokens an input: " + ", ".join(f"{name} {value:,}" for name, value in self.lengths.items()),
                f"cut: {self.texts_cut:,} texts, {self.tokens_cut:,} tokens",
                f"the first inputs:\n{shown}",
                f"{self.steps:,} optimiser steps, about {_duration(self.seconds)} on this machine; "
                f"memory about {self.memory_bytes / 1e9:.1f} GB",
                "nothing was trained and nothing written",
            ]
        )


def dry_run(data: str | Path | None = None, *, model: str | None = None, config: RunConfig | None = None, **options: Any) -> DryRun:
    """Prepares the run as `train` would, tries a few steps, and throws them away. The same errors as `train`."""
    named = {key: str(value) for key, value in (("data", data), ("model", model)) if value is not None}
    setup = prepare((config or RunConfig()).overridden({**named, **options}))
    lengths = setup.train.lengths
    learns = setup.config.model.tuning != "none"
    with fitting(setup.device, SMALLER, "the training"):
        tokens_a_second = _try(setup) if learns else 1.0
    counts = Counter(label for example in setup.dataset.train for label in example.all_labels)
    return DryRun(
        labels={name: counts[name] for name in setup.dataset.labels},
        lengths={"median": int(np.median(lengths)), "p95": int(np.percentile(lengths, 95)), "longest": int(lengths.max())},
        texts_cut=int((setup.train.tokens_cut > 0).sum()),
        tokens_cut=int(setup.train.tokens_cut.sum()),
        inputs=tuple(str(setup.tokenizer.decode(setup.train.prompt(row))) for row in range(min(SHOWN_INPUTS, len(setup.train)))),
        trainable=setup.trainable,
        parameters=setup.parameters,
        steps=setup.steps if learns else 0,
        memory_bytes=_peak_memory(setup.device) + ADAM_BYTES * setup.trainable,
        seconds=_rows_read(setup) * float(lengths.mean()) / tokens_a_second if learns else 0.0,
        notes=setup.notes,
    )


def _rows_read(setup: Setup) -> int:
    """Rows that go through the backbone in all: once each where it is frozen, however many epochs there are."""
    return len(setup.train) if states_are_kept(setup.method, setup, setup.train) else setup.steps * setup.batch_size


def _try(setup: Setup) -> float:
    """Tokens a second of forward and backward, over the longest rows and some of usual length."""
    lengths = setup.train.lengths
    setup.method.train()  # activations are recomputed, and adapters dropped out, in training alone
    order = np.argsort(lengths, kind="stable")
    longest = order[-setup.batch_size :]
    usual = order[len(order) // 2 :][: TRIED_BATCHES * setup.batch_size]
    _forward_backward(setup, longest.tolist())
    _wait_for(setup.device)
    began = time.perf_counter()
    _forward_backward(setup, usual.tolist())
    _wait_for(setup.device)
    return float(lengths[usual].sum()) / (time.perf_counter() - began)


def _wait_for(device: torch.device) -> None:
    """Until a GPU has computed what it was given: passes are only launched there."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def _forward_backward(setup: Setup, rows: list[int]) -> None:
    gold, loss, budget = setup.lessons.targets, setup.lessons.loss, setup.batch_tokens
    for group in by_token_budget(setup.train.lengths, rows, budget):
        with torch.autocast(setup.device.type, setup.autocast or torch.bfloat16, enabled=setup.autocast is not None):
            logits = setup.method(batch_of(setup.train, group, setup.method.pad_id, budget)).logits
        loss(logits, gold[group].to(logits.device)).backward()


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_bytes()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"

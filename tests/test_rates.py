"""The attention over windows beside a solved head learns at ten times the head's rate; nothing else does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_jsonl
from safetensors.torch import load_file
from torch import nn

from fenlei import train
from fenlei.training.fit import TrainingInterrupted
from fenlei.training.progress import Progress
from fenlei.training.rates import ATTENTION_RATE, with_own_rate

RATE = 1e-3
OPTIONS: dict[str, Any] = {"tuning": "frozen", "long": "windows", "max_length": 32, "device": "cpu", "baseline": False}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """What tells the class of a document stands in one window of several."""
    path = tmp_path / "documents.jsonl"
    rows = [
        {"text": "天气很好。" * (at % 5) + f"{word}第{at}。" * 4 + "大家都来了。" * (at % 7), "label": word}
        for word in ("足球", "股票", "电影")
        for at in range(12)
    ]
    return write_jsonl(path, rows)


def learned(run: Path, file: str) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / file)


def moved(documents: Path, model: Path, folder: Path, **options: Any) -> tuple[float, float]:
    """By how much one step moves the head and what scores windows (at first zeros): of AdamW the rate, whatever the gradient."""
    steps = {"max_steps": 1, "warmup_ratio": 0.0, "weight_decay": 0.0, **OPTIONS, **options}
    train(documents, model=str(model), out=folder / "still", learning_rate=1e-12, **steps)
    train(documents, model=str(model), out=folder / "run", learning_rate=RATE, **steps)
    still, run = (learned(folder / name, "head.safetensors") for name in ("still", "run"))
    head = max(float((run[name] - still[name]).abs().max()) for name in run)
    return head, float(learned(folder / "run", "windows.safetensors")["score.weight"].abs().max())


def test_the_attention_moves_ten_times_as_far_as_a_solved_head(documents: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    head, attention = moved(documents, tiny_qwen, tmp_path)
    assert head == pytest.approx(RATE, rel=0.01)
    assert attention == pytest.approx(ATTENTION_RATE * RATE, rel=0.01)


def test_beside_a_head_that_begins_at_random_it_moves_as_far(documents: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    head, attention = moved(documents, tiny_qwen, tmp_path, head="mlp")
    assert attention == pytest.approx(head, rel=0.01)


def test_a_run_that_was_stopped_ends_in_the_same(documents: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    steps = {**OPTIONS, "max_steps": 40, "batch_size": 4, "evals_per_epoch": 2}

    def stop(now: Progress) -> None:
        if now.step == 5 and now.metrics is None:
            os.kill(os.getpid(), signal.SIGINT)

    train(documents, model=str(tiny_qwen), out=tmp_path / "whole", **steps)
    with pytest.raises(TrainingInterrupted):
        train(documents, model=str(tiny_qwen), out=tmp_path / "cut", progress=stop, **steps)
    train(out=tmp_path / "cut", resume=True)
    for file in ("head.safetensors", "windows.safetensors"):
        whole, cut = learned(tmp_path / "whole", file), learned(tmp_path / "cut", file)
        assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_groups_keep_what_they_are_told() -> None:
    part, rest = nn.Linear(2, 2), nn.Linear(2, 2)
    decays = {"params": [rest.weight, part.weight], "lr": 0.1, "weight_decay": 0.5}
    not_decays = {"params": [part.bias], "lr": 0.1, "weight_decay": 0.0}
    groups = with_own_rate([decays, not_decays], part, 10.0)
    assert [([id(one) for one in group["params"]], group["lr"], group["weight_decay"]) for group in groups] == [
        ([id(rest.weight)], 0.1, 0.5),
        ([id(part.weight)], 1.0, 0.5),
        ([id(part.bias)], 1.0, 0.0),
    ]

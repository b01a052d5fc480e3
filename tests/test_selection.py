"""The checkpoint that a training keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fenlei import train
from fenlei.artifact import read_manifest
from fenlei.training.progress import Progress
from fenlei.training.selection import kept_step


def measured(*figures: float) -> list[dict[str, float]]:
    """A log with an evaluation every ten steps, lines of losses between."""
    log: list[dict[str, float]] = []
    for number, figure in enumerate(figures, 1):
        log += [{"loss": 1.0, "step": 10 * number - 5}, {"eval_selection": figure, "step": 10 * number}]
    return log


def test_of_checkpoints_within_one_standard_error_the_latest_is_kept() -> None:
    assert kept_step(measured(0.5, 0.91, 0.9, 0.89), 100) == 40  # one standard error of 0.91 on 100 rows is 0.029
    assert kept_step(measured(0.5, 0.91, 0.9, 0.89), 10_000) == 20  # and 0.003 on 10,000


def test_an_earlier_one_that_is_better_by_more_is_kept() -> None:
    assert kept_step(measured(0.9, 0.95, 0.9, 0.9), 400) == 20  # 0.011


def test_what_passed_for_the_best_before_does_not_once_a_higher_one_came() -> None:
    assert kept_step(measured(0.80, 0.79, 0.95, 0.80), 100) == 30


def test_right_throughout_is_no_division_and_no_root_of_a_negative_number() -> None:
    assert kept_step(measured(0.9, 1.0, 1.0, 0.999), 50) == 30
    assert kept_step(measured(1.0 + 1e-9), 50) == 10  # the loss breaks ties in what selects


def test_without_an_evaluation_nothing_is_kept_yet() -> None:
    assert kept_step([{"loss": 1.0, "step": 5}], 100) is None


@pytest.mark.usefixtures("exact")  # which step is the best hangs on what a processor computes in
def test_the_run_has_the_weights_of_the_step_it_names(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    out, stored = tmp_path / "run", {}

    def keep(_: Progress) -> None:
        for file in (out / "checkpoints").glob("checkpoint-*/trainable.safetensors"):
            stored[int(file.parent.name.split("-")[1])] = load_file(file)

    options = {"max_steps": 20, "batch_size": 8, "device": "cpu", "baseline": False, "max_length": 48}
    train(toy_file, model=str(tiny_qwen), out=out, progress=keep, tuning="full", learning_rate=1.0, **options)  # it gets worse
    named = read_manifest(out)["best_step"]
    assert named < max(stored)
    (saved,) = (load_file(file) for file in (out / "model").glob("*.safetensors"))
    assert all(torch.equal(*pair) for pair in zip(saved.values(), stored[named].values(), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(saved.values(), stored[max(stored)].values(), strict=True))

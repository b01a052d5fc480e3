"""Trainings that are hit inside a step, told to stop, or killed while a checkpoint is written."""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TOY_NEWS
from processes import ended, split
from runs import weights_of
from torch import nn
from transformers import Trainer

from fenlei.artifact import checkpoints
from fenlei.cli.main import main
from fenlei.errors import ArtifactError, ModelError
from fenlei.inference.classifier import Classifier
from fenlei.models.devices import is_out_of_memory
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod
from fenlei.training.dry_run import dry_run
from fenlei.training.fit import TrainingInterrupted, train
from fenlei.training.objectives import choose_loss
from fenlei.training.progress import Progress
from fenlei.training.ranks import Ranks
from fenlei.training.setbacks import Setbacks
from fenlei.training.trainer import RowTrainer

OPTIONS: dict[str, Any] = {
    "max_steps": 14, "batch_size": 8, "learning_rate": 0.01, "tuning": "frozen", "device": "cpu", "baseline": False, "dev_ratio": 0.2,
    "evals_per_epoch": 2,
}  # fmt: skip


def full(*given: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def same(a: Path, b: Path) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def with_loss(monkeypatch: pytest.MonkeyPatch, spoilt: Any) -> None:
    """`spoilt` is told the number of each step and the loss, and gives the loss that the trainer sees."""
    calls = iter(range(1, 10_000))
    monkeypatch.setattr(
        "fenlei.training.setup.choose_loss",
        lambda *given, **named: lambda logits, gold: spoilt(next(calls), choose_loss(*given, **named)(logits, gold)),
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_whose_loss_is_no_number_is_named_and_left_out(
    bad: float, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    told: list[str] = []

    def watch(now: Progress) -> None:
        if now.metrics is None:
            trainer = next(one for one in trainers if one is not None)
            seen.append(torch.cat([p.detach().flatten().clone() for p in trainer._method.parameters() if p.requires_grad]))

    trainers: list[RowTrainer] = []
    real = RowTrainer.__init__
    monkeypatch.setattr(RowTrainer, "__init__", lambda self, *a, **k: (trainers.append(self), real(self, *a, **k))[1])
    with_loss(monkeypatch, lambda step, loss: loss * bad if step in (3, 4, 7, 10) else loss)
    result = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", progress=watch, announce=told.append, **OPTIONS)
    moved = [not torch.equal(before, after) for before, after in pairwise(seen)]  # moved[0]: in step 2
    assert [step for step, did in enumerate(moved, start=2) if not did] == [3, 4, 7, 10]
    skipped = [note for note in told if "left out" in note]
    assert [note.split(":")[0] for note in skipped] == ["step 3", "step 4", "step 7", "step 10"]
    assert all(f"{toy_file}:" in note for note in skipped)
    assert set(skipped) <= set(result.notes)
    assert all(value.isfinite().all() for value in weights_of(tmp_path / "run").values())
    told_of_it = (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")  # step 10 is one of those that are logged
    json.loads(told_of_it, parse_constant=lambda found: pytest.fail(f"{found} is no JSON"))


def test_three_such_steps_in_a_row_are_an_error(tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_loss(monkeypatch, lambda step, loss: loss * float("nan") if step >= 9 else loss)
    with pytest.raises(ModelError, match=r"step 11: .* not a number, 3 steps in a row \(rows .*toy_news\.jsonl:\d+.*--lr"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **OPTIONS)
    assert checkpoints(tmp_path / "run"), "the one before it is there to go on from"


def test_in_float16_the_loss_tells_a_broken_step_from_gradients_that_were_scaled_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaler sees to these by itself; of a loss that is no number it knows nothing."""
    told: list[str] = []
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda self, model, grad_norm=None: torch.tensor(float("nan")))
    trainer, network = object.__new__(RowTrainer), nn.Linear(1, 1)
    vars(trainer).update(
        args=SimpleNamespace(fp16=True), state=SimpleNamespace(global_step=6), _spread=None, _ranks=Ranks(), _step_rows=[5],
        _step_loss=torch.tensor(0.5), _setbacks=Setbacks(lambda row: f"rows.jsonl:{row}", told.append),
    )  # fmt: skip
    assert [trainer._get_grad_norm(network) for _ in range(4)] == [None] * 4
    assert told == []
    trainer._step_loss = torch.tensor(float("nan"))
    assert [trainer._get_grad_norm(network) for _ in range(2)] == [None] * 2
    assert told == ["step 7: left out, the loss or its gradient is not a number (rows rows.jsonl:5)"] * 2
    with pytest.raises(ModelError, match=r"3 steps in a row .*--device cpu to see whether float16 is too small"):
        trainer._get_grad_norm(network)


@pytest.mark.usefixtures("exact")
def test_out_of_memory_halves_the_tokens_at_once_and_the_weights_stay(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS, "tuning": "full", "learning_rate": 0.001, "max_steps": 3, "batch_tokens": 200}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)
    real = RowTrainer._logits
    tokens: list[int] = []

    def tight(self: RowTrainer, model: Any, rows: list[int]) -> torch.Tensor:
        size = len(rows) * max(self._lengths[row] for row in rows)
        if size > 100 and len(tokens) > 1:  # in the middle of a step: what was added up of it must go
            raise torch.OutOfMemoryError("CUDA out of memory")
        tokens.append(size)
        return real(self, model, rows)

    def never(self: RowTrainer, model: Any, rows: list[int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    told: list[str] = []
    monkeypatch.setattr(RowTrainer, "_logits", tight)
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "halved", announce=told.append, **options)
    assert [note for note in told if "out of memory" in note] == [
        "out of memory: batch_tokens halved, 200 to 100; the weights do not depend on it"
    ]
    whole, halved = weights_of(tmp_path / "whole"), weights_of(tmp_path / "halved")
    apart = torch.cat([(whole[key] - halved[key]).abs().flatten() for key in whole])
    assert (apart > 1e-5).float().mean() < 0.01
    monkeypatch.setattr(RowTrainer, "_logits", never)
    with pytest.raises(ModelError, match=r"out of memory with batch_tokens 50; give fewer --batch-tokens"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "never", **{**options, "batch_tokens": 100})


@pytest.mark.parametrize(("where", "options"), [("setup.place", {}), ("memory.measure_footprint", {"memory": "6GB"})])
def test_a_network_that_does_not_fit_names_the_ways_out(
    where: str, options: dict[str, Any], tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"fenlei.training.{where}", full)
    with pytest.raises(ModelError, match=r"does not fit the memory of device cpu .*qlora, --gradient-checkpointing"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **{**OPTIONS, "tuning": "lora", **options})


@pytest.mark.parametrize(
    ("where", "raises"),
    [("torch.optim.AdamW.step", full), ("fenlei.training.fit.evaluation_of", lambda setup, ranks: full)],
    ids=["the optimiser", "an evaluation"],
)
def test_so_does_a_training_that_does_not_fit_outside_its_passes(
    where: str, raises: Any, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, raises)
    with pytest.raises(ModelError, match=r"the training does not fit the memory of device cpu .*take --tuning lora"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **OPTIONS)


def test_so_does_a_dry_run(tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenlei.training.dry_run._forward_backward", full)
    with pytest.raises(ModelError, match=r"the training does not fit the memory of device cpu .*take --tuning lora"):
        dry_run(toy_file, model=str(tiny_qwen), device="cpu")


@pytest.fixture(scope="module")
def finished(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TOY_NEWS, model=str(tiny_qwen), out=tmp_path_factory.mktemp("finished") / "run", **{**OPTIONS, "max_steps": 1}).out


def test_so_does_a_run_that_does_not_fit(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadMethod, "to", full)
    with pytest.raises(ModelError, match=r"does not fit the memory .*--device cpu"):
        Classifier.load(finished, device="cpu")


def test_so_does_a_model_that_nobody_trained(tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GenerateMethod, "to", full)
    with pytest.raises(ModelError, match=r"does not fit the memory .*--device cpu"):
        Classifier.zero_shot(str(tiny_qwen), ["体育", "财经"], device="cpu")


def test_so_does_a_text_that_does_not_fit_and_what_is_done_is_kept(
    finished: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward, begun = HeadMethod.forward, tmp_path / "out.jsonl.partial"
    monkeypatch.setattr("fenlei.inference.bulk.WINDOW_ROWS", 40)
    monkeypatch.setattr(HeadMethod, "forward", lambda self, batch: full() if begun.exists() else forward(self, batch))
    command = ["predict", str(finished), str(toy_file), "--out", str(tmp_path / "out.jsonl"), "--device", "cpu"]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "a pass of prediction does not fit the memory of device cpu (CUDA out of memory); free some of it, take --device cpu" in told
    assert "What is done is kept" in told
    monkeypatch.setattr(HeadMethod, "forward", forward)
    assert main(command) == 0
    assert "going on after the 40 rows" in capsys.readouterr().err


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as huge:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(huge.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_sigterm_leaves_a_checkpoint_that_ends_in_the_same_weights(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **OPTIONS)

    def terminate(now: Progress) -> None:
        if now.step == 5 and now.metrics is None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match="--resume"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "cut", progress=terminate, **OPTIONS)
    train(out=tmp_path / "cut", resume=True)
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_folder_that_takes_no_files_is_said(tiny_qwen: Path, toy_file: Path) -> None:
    with pytest.raises(ArtifactError, match=r"/proc/fenlei.*could not be saved .*choose another folder"):
        train(toy_file, model=str(tiny_qwen), out="/proc/fenlei/run", **OPTIONS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is split")
def test_killed_at_any_write_of_a_checkpoint_and_resumed_it_ends_in_the_same_weights(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path
) -> None:
    """SIGKILL, for real, at every so many files that are opened, cut off, renamed or removed while checkpoints are written."""
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **OPTIONS)
    events = _changes_below_checkpoints(toy_file, tiny_qwen, tmp_path / "counted", at=0)
    assert events > 20
    killed = 0
    for at in range(2, events, max(1, events // 8)):
        run = tmp_path / f"at{at}"
        assert _changes_below_checkpoints(toy_file, tiny_qwen, run, at=at) == -signal.SIGKILL
        killed += 1
        resume = bool(checkpoints(run))
        train(out=run, resume=True) if resume else train(toy_file, model=str(tiny_qwen), out=run, **OPTIONS)
        assert same(tmp_path / "whole", run), at
    assert killed >= 8


def _changes_below_checkpoints(data: Path, model: Path, out: Path, at: int) -> int:
    """Trains in a process of its own that dies at the `at`-th change below checkpoints/: how many there were, or minus the signal."""
    count = out.with_name(out.name + ".count")

    def work() -> None:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from bench.ours.train_or_die import die_at

        changes = die_at(at)
        train(data, model=str(model), out=out, **OPTIONS)
        count.write_text(str(changes()))

    code = ended(split(work))
    return code or int(count.read_text())

"""One training in two processes: the same steps as in one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import ended, in_one, in_two, split, stopped_and_resumed, trained_alone
from runs import logits
from torch import distributed

from fenlei.errors import ConfigError
from fenlei.training import ranks
from fenlei.training.fit import train
from fenlei.training.ranks import Ranks
from fenlei.training.trainer import RowTrainer

OPTIONS: dict[str, Any] = {
    "max_steps": 14, "batch_size": 9, "batch_tokens": 60, "learning_rate": 0.003, "device": "cpu", "baseline": False, "dev_ratio": 0.3,
}  # fmt: skip


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=40), world=st.integers(1, 5))
def test_shares_are_all_rows_once_and_balanced(lengths: list[int], world: int) -> None:
    shares = [Ranks(rank, world).share(range(len(lengths)), np.array(lengths)) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == list(range(len(lengths)))
    tokens = [sum(lengths[row] for row in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are split"), pytest.mark.usefixtures("exact")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run of a training in one process, by its model and options."""
    return trained_alone(tmp_path_factory.mktemp("alone"), **OPTIONS)


@pytest.mark.parametrize(
    "options",
    [
        {"tuning": "full"},
        {"tuning": "lora"},
        {"tuning": "frozen"},
        {"method": "generate", "tuning": "lora", "batch_tokens": 120},  # its rows hold the labels too
    ],
)
def test_two_processes_end_where_one_does(
    options: dict[str, Any], alone: Callable[..., Path], tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    single = alone(tiny_qwen, **options)

    def work(rank: int) -> None:
        taken: list[int] = []
        several: list[bool] = []
        real = RowTrainer._groups

        def note(self: RowTrainer, rows: list[int]) -> Any:
            own, turns = real(self, rows)
            taken.extend(row for group in own for row in group)
            several.append(turns > 1)
            return own, turns

        RowTrainer._groups = note  # type: ignore[method-assign]
        result = train(toy_file, model=str(tiny_qwen), out=tmp_path / "two", **{**OPTIONS, **options})
        (tmp_path / f"{rank}.json").write_text(json.dumps({"taken": taken, "several": any(several), "metrics": result.metrics.to_json()}))

    in_two(work)
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert said[0]["metrics"] == said[1]["metrics"]
    assert said[0]["several"], "steps of one pass each sum up nothing"
    rows = json.loads((tmp_path / "two" / "fenlei.json").read_text())["data"]["rows"]["train"]
    taken = said[0]["taken"] + said[1]["taken"]
    counts = np.bincount(taken, minlength=rows)
    epochs = 14 / -(-rows // 9)
    assert set(counts) <= {int(np.floor(epochs)), int(np.ceil(epochs))}, "each row once an epoch"
    one, two = logits(single, toy_rows), logits(tmp_path / "two", toy_rows)
    assert np.abs(one - two).max() < 0.02 * np.abs(one).max()
    assert (one.argmax(axis=1) == two.argmax(axis=1)).mean() > 0.97
    figures = [json.loads((run / "metrics.json").read_text())["history"] for run in (single, tmp_path / "two")]
    first, second = ([entry["eval_loss"] for entry in history if "eval_loss" in entry] for history in figures)
    np.testing.assert_allclose(first, second, rtol=2e-3)


@pytest.mark.parametrize("two_first", [True, False])
def test_a_checkpoint_resumes_in_another_number_of_processes(
    two_first: bool, alone: Callable[..., Path], tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    beginning, going_on = (in_two, in_one) if two_first else (in_one, in_two)
    stopped_and_resumed(toy_file, tmp_path / "run", {**OPTIONS, "tuning": "full", "model": str(tiny_qwen)}, beginning, going_on)
    one, run = logits(alone(tiny_qwen, tuning="full"), toy_rows), logits(tmp_path / "run", toy_rows)
    assert np.abs(one - run).max() < 0.02 * np.abs(one).max()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_a_text_never_reaches_holds_two_processes_up_at_no_step(
    tuning: str, composite: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    options = {**OPTIONS, "max_steps": 3, "tuning": tuning}
    in_two(lambda rank: train(toy_file, model=str(composite), out=tmp_path / "run", **options))
    assert np.isfinite(logits(tmp_path / "run", toy_rows)).all()


def test_a_launcher_s_number_format_changes_nothing(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[RowTrainer] = []
    real = RowTrainer.__init__
    monkeypatch.setattr(RowTrainer, "__init__", lambda self, *a, **k: (trainers.append(self), real(self, *a, **k))[1])
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **{**OPTIONS, "max_steps": 1, "tuning": "lora"})
    (trainer,) = trainers
    assert trainer.accelerator.mixed_precision == "no"
    assert "forward" not in vars(trainer._method), "it is not wrapped"


def test_several_processes_do_not_share_an_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "pick_device", lambda device: (torch.device("mps"), "the fastest one here"))
    with pytest.raises(ConfigError, match="give --device cpu, or start one process"):
        ranks.join("auto")


def test_each_process_takes_the_npu_of_its_rank() -> None:
    def work() -> None:
        torch.utils.rename_privateuse1_backend("npu")  # as torch_npu does, and for good: so in a process of its own
        os.environ.update(RANK="1", LOCAL_RANK="1", WORLD_SIZE="2")
        taken: list[torch.device] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks, "pick_device", lambda device: (torch.device("npu"), "as asked"))
            patch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(set_device=taken.append))
            for name, value in {"is_initialized": True, "get_rank": 1, "get_world_size": 2}.items():
                patch.setattr(distributed, name, lambda value=value: value)
            assert ranks.join("npu") == Ranks(1, 2, torch.device("npu:1"))
        assert taken == [torch.device("npu:1")]

    assert ended(split(work)) == 0

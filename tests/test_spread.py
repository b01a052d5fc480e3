"""One training in two processes that spread the weights among them (FSDP): the same steps as in one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_one, in_two, stopped_and_resumed, trained_alone
from runs import logits
from torch.distributed.tensor import DTensor

from fenlei.errors import ConfigError
from fenlei.models.devices import Precision
from fenlei.training.fit import train
from fenlei.training.trainer import RowTrainer

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are split"), pytest.mark.usefixtures("exact")]

OPTIONS: dict[str, Any] = {
    "max_steps": 9, "batch_size": 9, "batch_tokens": 60, "learning_rate": 0.003, "device": "cpu", "baseline": False, "dev_ratio": 0.3,
}  # fmt: skip
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run of a training in one process, by its model and options."""
    return trained_alone(tmp_path_factory.mktemp("alone"), **OPTIONS)


@pytest.fixture(scope="module")
def still_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout: what is dropped depends on the number of processes."""
    folder = shutil.copytree(tiny_bert, tmp_path_factory.mktemp("still") / "bert")
    config = json.loads((folder / "config.json").read_text())
    still = {name: 0.0 for name in config if name.endswith("dropout_prob")}
    (folder / "config.json").write_text(json.dumps({**config, **still}))
    return folder


def options_of(method: str, tuning: str) -> dict[str, Any]:
    """With room for a few rows a pass, and not for all of a step: those of the generate method hold the labels too."""
    return {"method": method, "tuning": tuning, "batch_tokens": 120 if method == "generate" else 60}


def history(run: Path, name: str) -> list[float]:
    return [entry[name] for entry in json.loads((run / "metrics.json").read_text())["history"] if name in entry]


def spread(work: Callable[[int], object]) -> None:
    """In two processes, after whose forward passes each has the half of what learns, give or take what rows cannot be cut."""

    def checked(rank: int) -> None:
        real = RowTrainer.save_model

        def save_model(self: RowTrainer, *args: Any, **options: Any) -> None:
            real(self, *args, **options)
            parts = [p for p in self._method.parameters() if p.requires_grad]
            assert all(isinstance(part, DTensor) for part in parts)
            share = sum(part.to_local().numel() for part in parts) / sum(part.numel() for part in parts)  # type: ignore[attr-defined]
            assert 0.4 < share < 0.6

        turns: list[int] = []
        groups = RowTrainer._groups

        def noted(self: RowTrainer, rows: list[int]) -> Any:
            found = groups(self, rows)
            turns.append(found[1])
            return found

        RowTrainer.save_model, RowTrainer._groups = save_model, noted  # type: ignore[method-assign]
        work(rank)
        assert max(turns) > 1, "steps of one pass each sum up nothing"

    in_two(checked, **FSDP)


@pytest.mark.parametrize(
    ("model", "method", "tuning"),
    [
        ("tiny_qwen", "head", "full"),
        ("tiny_qwen", "head", "lora"),
        ("tiny_qwen", "generate", "full"),
        ("tiny_qwen", "generate", "lora"),
        ("still_bert", "head", "full"),
    ],
)
def test_two_processes_with_spread_weights_end_where_one_does(
    model: str,
    method: str,
    tuning: str,
    alone: Callable[..., Path],
    toy_file: Path,
    toy_rows: list[dict[str, str]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    base: Path = request.getfixturevalue(model)
    options = options_of(method, tuning)
    single = alone(base, **options)
    spread(lambda rank: train(toy_file, model=str(base), out=tmp_path / "two", **{**OPTIONS, **options}))
    one, two = logits(single, toy_rows), logits(tmp_path / "two", toy_rows)
    assert np.abs(one - two).max() < 0.001 * np.abs(one).max()
    assert (one.argmax(axis=1) == two.argmax(axis=1)).all()
    for figure in ("grad_norm", "eval_loss"):
        np.testing.assert_allclose(history(single, figure), history(tmp_path / "two", figure), rtol=1e-3)


def test_adapters_in_float32_on_a_network_in_bfloat16(
    tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Precision(torch.bfloat16, torch.bfloat16, "as on GPUs")
    monkeypatch.setattr("fenlei.training.setup.pick_precision", lambda device, parameters: half)
    options = {**OPTIONS, "tuning": "lora", "gradient_checkpointing": True}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "one", **options)
    spread(lambda rank: train(toy_file, model=str(tiny_qwen), out=tmp_path / "two", **options))
    one, two = logits(tmp_path / "one", toy_rows), logits(tmp_path / "two", toy_rows)
    assert np.abs(one - two).max() < 0.1 * np.abs(one).max()
    np.testing.assert_allclose(history(tmp_path / "one", "eval_loss"), history(tmp_path / "two", "eval_loss"), rtol=0.05)


@pytest.mark.parametrize("method", ["head", "generate"])
@pytest.mark.parametrize("two_first", [True, False])
def test_a_checkpoint_resumes_spread_or_not(
    method: str,
    two_first: bool,
    alone: Callable[..., Path],
    tiny_qwen: Path,
    toy_file: Path,
    toy_rows: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    options = options_of(method, "full" if method == "head" else "lora")
    beginning, going_on = (spread, in_one) if two_first else (in_one, spread)
    stopped_and_resumed(toy_file, tmp_path / "run", {**OPTIONS, **options, "model": str(tiny_qwen)}, beginning, going_on)
    one, run = logits(alone(tiny_qwen, **options), toy_rows), logits(tmp_path / "run", toy_rows)
    assert np.abs(one - run).max() < 0.001 * np.abs(one).max()


REFUSED: list[tuple[dict[str, str], dict[str, Any], str]] = [  # those of the environment first: before there is a process group
    ({"FSDP_VERSION": "1"}, {}, "fsdp_version: 2"),
    ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, "FSDP_CPU_RAM_EFFICIENT_LOADING"),
    ({"FSDP_OFFLOAD_PARAMS": "true"}, {}, "fsdp_offload_params is not supported"),
    ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "gradient-checkpointing"),
    ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {}, "mixed_precision"),
    ({}, {"tuning": "frozen"}, "tuning 'frozen'"),
    ({}, {"long": "windows"}, "long 'windows'"),
    ({}, {"method": "generate", "prior_correction": True}, "prior_correction"),
    ({}, {"int8": True, "memory": "6GB"}, "int8, memory"),
]


def test_what_spread_weights_cannot_do_is_said_before_anything_is_written(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        for environment, options, said in REFUSED:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                with pytest.raises(ConfigError, match=said):
                    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **{**OPTIONS, "tuning": "lora", **options})
            assert rank or not (tmp_path / "run").exists(), said  # the other may look while this one holds its lock there

    in_two(work, **FSDP)


@pytest.mark.parametrize("asked", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_one_process_has_nobody_to_spread_weights_over(
    asked: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {asked: "true", "FSDP_VERSION": "2", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="one process spreads nothing: give --num_processes 2"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("by", "kept"), [("FSDP", False), (None, True)])
def test_copies_of_borrowed_weights_are_not_kept(by: str | None, kept: bool) -> None:
    """They would be there in full to the end of the forward pass, though activations are computed again block by block."""
    trainer: Any = object.__new__(RowTrainer)
    vars(trainer).update(args=SimpleNamespace(device=torch.device("cpu")), _compute_in=torch.bfloat16, _spread=by)
    with trainer._autocast():
        assert torch.is_autocast_cache_enabled() is kept

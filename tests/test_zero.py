"""One training in two processes that spread the weights among them with DeepSpeed: where that extra is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import in_two
from runs import logits

from fenlei.errors import ConfigError
from fenlei.training.fit import TrainingInterrupted, train
from fenlei.training.progress import Progress
from fenlei.training.zero import check_configuration

OPTIONS: dict[str, Any] = {
    "max_steps": 14, "batch_size": 9, "batch_tokens": 60, "learning_rate": 0.003, "device": "cpu", "baseline": False, "dev_ratio": 0.3,
}  # fmt: skip
EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture
def with_deepspeed() -> Callable[[Callable[[int], object], int], None]:
    """Runs in two processes with the configuration of this stage that is shipped."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("the extra deepspeed is not installed")

    def run(work: Callable[[int], object], stage: int) -> None:
        def quiet(rank: int) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # DeepSpeed's own
                work(rank)

        file = str(EXAMPLES / f"deepspeed_zero{stage}.json")
        in_two(quiet, ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_DEEPSPEED_CONFIG_FILE=file, DS_ACCELERATOR="cpu")

    return run


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(("stage", "method"), [(2, "head"), (2, "generate"), (3, "head")])
def test_two_processes_with_deepspeed_end_where_one_does_and_resume_as_one(
    stage: int,
    method: str,
    tuning: str,
    with_deepspeed: Callable[[Callable[[int], object], int], None],
    tiny_qwen: Path,
    toy_file: Path,
    toy_rows: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    options = {**OPTIONS, "method": method, "tuning": tuning}

    def stop(now: Progress) -> None:
        if now.step == 6 and now.metrics is None:
            os.kill(os.getpid(), 15)

    def begin(out: str) -> None:
        with pytest.raises(TrainingInterrupted):
            train(toy_file, model=str(tiny_qwen), out=tmp_path / out, progress=stop, **options)

    train(toy_file, model=str(tiny_qwen), out=tmp_path / "one", **options)
    with_deepspeed(lambda rank: train(toy_file, model=str(tiny_qwen), out=tmp_path / "two", **options), stage)
    with_deepspeed(lambda rank: begin("two-one"), stage)
    train(out=tmp_path / "two-one", resume=True)
    begin("one-two")
    with_deepspeed(lambda rank: train(out=tmp_path / "one-two", resume=True), stage)
    one = logits(tmp_path / "one", toy_rows)
    for other in ("two", "two-one", "one-two"):
        assert np.abs(one - logits(tmp_path / other, toy_rows)).max() < 0.001 * np.abs(one).max(), other


@pytest.mark.parametrize(
    ("given", "method", "said"),
    [
        (None, "head", "deepspeed_zero2.json"),
        ({"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW"}}, "head", "leave optimizer out"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, "head", "leave offload_param out"),
        ({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}, "head", "leave bf16 out"),
        ({"zero_optimization": {"stage": 2}, "gradient_accumulation_steps": 8}, "head", "set gradient_accumulation_steps .*batch-tokens"),
        ({"zero_optimization": {"stage": 2}, "gradient_clipping": 0.5, "train_batch_size": 1}, "head", "train_batch_size, grad"),
        ({"zero_optimization": {"stage": 1}}, "head", "stage 2 or 3"),
        ({"zero_optimization": {"stage": 3}}, "generate", "ZeRO 2 or FSDP"),
    ],
)
def test_what_deepspeed_is_not_to_do_is_said(
    given: dict[str, Any] | None, method: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    if given is not None:
        file = tmp_path / "deepspeed.json"
        file.write_text(json.dumps(given))
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    with pytest.raises(ConfigError, match=said):
        check_configuration(method)


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"fenlei\[deepspeed\]"):
        check_configuration("head")

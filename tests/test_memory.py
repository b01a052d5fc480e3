"""The memory that a training is allowed is what it is planned for, and what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import ended, split

from fenlei import ConfigError, RunConfig, train
from fenlei.config import bytes_of
from fenlei.models.head import HeadMethod
from fenlei.training.memory import Footprint, _kept_by_autograd, gpu_batch_tokens, measure_footprint
from fenlei.training.setup import Setup, prepare

sizes = st.integers(0, 10**10)


def set_up(model: Path, data: Path, **options: Any) -> Setup:
    return prepare(RunConfig.from_options({"data": str(data), "model": str(model), "device": "cpu", "max_length": 48, **options}))


@given(resident=sizes, fixed=sizes, a_token=st.integers(1, 10**7), prediction=sizes, limit=sizes)
def test_the_budget_fits_and_no_larger_one_does(resident: int, fixed: int, a_token: int, prediction: int, limit: int) -> None:
    footprint = Footprint(resident, fixed, a_token, prediction)
    tokens = footprint.tokens_within(limit)
    if tokens:
        assert footprint.peak(tokens) <= limit
    if footprint.peak(0) <= limit:
        assert footprint.peak(tokens + 2) > limit


@pytest.mark.parametrize(
    ("text", "size"),
    [("6GB", 6 * 10**9), ("6 gb", 6 * 10**9), ("1.5GiB", 3 * 2**29), ("800MB", 8 * 10**8), ("2G", 2 * 10**9)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "6", "-1GB", "0GB", "six GB", "1e3MB", "6GBs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="memory must be a size such as 6GB"):
        RunConfig.from_options({"memory": text})


def test_what_generates_is_not_planned_for(tiny_qwen: Path, toy_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory: not planned for the generate method yet; use --batch-tokens"):
        set_up(tiny_qwen, toy_file, memory="6GB", method="generate", max_length=200)


def test_a_roomy_limit_changes_nothing(tiny_qwen: Path, toy_file: Path) -> None:
    options = set_up(tiny_qwen, toy_file, memory="900GB", batch_tokens=777).config.optimization
    assert (options.batch_tokens, options.gradient_checkpointing) == (777, False)


def test_a_limit_below_the_process_is_refused_with_what_it_takes(tiny_qwen: Path, toy_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory 1MB: this training takes about \d+\.\d GB even with activations recomputed"):
        set_up(tiny_qwen, toy_file, memory="1MB")


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_bert"])
def test_what_autograd_keeps_is_foreseen(model: str, tuning: str, toy_file: Path, request: pytest.FixtureRequest) -> None:
    """In the format of most machines, be this one of them or not: the part for tensors that pass by goes with its width."""
    setup = set_up(request.getfixturevalue(model), toy_file, tuning=tuning)
    foreseen = measure_footprint(setup.method, 200, torch.bfloat16)
    for length in (20, 60, 120, 160, 200):
        kept = _kept_by_autograd(setup.method, length, torch.bfloat16)
        assert 0 < kept <= foreseen.fixed + foreseen.a_token * length
    # Not far above what is kept at the length where a token takes most, either.
    most = max(_kept_by_autograd(setup.method, length, torch.bfloat16) / length for length in (128, 200))
    assert foreseen.a_token <= 1.3 * most


def test_recomputing_activations_keeps_less(tiny_qwen: Path, toy_file: Path) -> None:
    plain = measure_footprint(set_up(tiny_qwen, toy_file).method, 40, None)
    recomputed = measure_footprint(set_up(tiny_qwen, toy_file, gradient_checkpointing=True).method, 40, None)
    assert recomputed.a_token < plain.a_token


@pytest.mark.parametrize(("tokens", "recomputed"), [(600, False), (300, True)])
def test_a_tight_limit_shrinks_the_budget_and_only_then_recomputes(
    tokens: int, recomputed: bool, tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process itself and a usual evaluation take a hundred times what a tiny network's training does: left out here.
    monkeypatch.setattr("fenlei.training.memory._resident", lambda device: 0)
    monkeypatch.setattr("fenlei.training.memory.tokens_at_once", lambda device: 64)
    setup = set_up(tiny_qwen, toy_file)
    limit = measure_footprint(setup.method, int(setup.train.lengths.max()), setup.autocast).peak(tokens)
    options = set_up(tiny_qwen, toy_file, memory=f"{limit / 1e3:.3f}KB").config.optimization
    assert options.gradient_checkpointing is recomputed
    assert tokens - 1 <= options.batch_tokens < (2 * tokens if not recomputed else 4096)


@pytest.mark.parametrize(("free", "expected"), [(10**12, 16_384), (1_000_000, 512)], ids=["roomy", "tight"])
def test_on_a_gpu_its_free_memory_says_how_many_tokens(
    free: int, expected: int, tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up(tiny_qwen, toy_file)
    assert setup.batch_tokens == 4096
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 10**12))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 0)
    monkeypatch.setattr("fenlei.training.memory._resident", lambda device: 0)
    choice = gpu_batch_tokens(setup.method, setup.train.longest_input, setup.autocast)  # type: ignore[arg-type]
    assert choice.value == expected
    assert str(choice).startswith(f"batch_tokens {expected}: tokens at once, {free / 1e9:.0f} GB of GPU memory hold ")


def test_on_a_gpu_the_saved_network_takes_the_place_of_the_trained_one(
    tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is given back before; in main memory the files of the saved one lie beside."""
    setup = set_up(tiny_qwen, toy_file)
    monkeypatch.setattr("fenlei.training.memory._kept_by_autograd", lambda method, tokens, autocast: 100 * tokens)
    monkeypatch.setattr("fenlei.training.memory._resident", lambda device: 0)
    monkeypatch.setattr("fenlei.training.memory.tokens_at_once", lambda device: 64)
    on_cpu = measure_footprint(setup.method, 40, None)  # type: ignore[arg-type]
    monkeypatch.setattr(HeadMethod, "device", torch.device("cuda"))
    on_gpu = measure_footprint(setup.method, 40, None)  # type: ignore[arg-type]
    weights = sum(weight.numel() * weight.element_size() for weight in setup.method.parameters())
    assert on_cpu.prediction - on_gpu.prediction == weights


TRAIN_NANO = """
import json, resource, sys
from pathlib import Path
import fenlei.training.fit
from fenlei import train

resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
limit = resident + 480_000_000
result = train(sys.argv[1], model="nano", tuning="full", out=sys.argv[2], memory=f"{limit / 1e6:.3f}MB", max_steps=2, batch_size=32,
               max_length=200, prompt="{text}" + "新闻标题分类" * 20, device="cpu", baseline=False)
status = Path("/proc/self/status").read_text()
peak = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
print(json.dumps({"limit": limit, "peak": peak, "notes": result.notes}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.timeout(300)
def test_a_training_stays_below_what_it_is_allowed(toy_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAIN_NANO, str(toy_file), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    (note,) = (note for note in found["notes"] if "allowed" in note)
    assert note.startswith("batch_tokens ")
    assert not note.startswith("batch_tokens 4096"), "allow less: all of the usual budget fits, and nothing is shown"
    assert found["peak"] <= found["limit"]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_limit_that_takes_recomputing_trains(
    tuning: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fenlei.training.memory._resident", lambda device: 0)
    monkeypatch.setattr("fenlei.training.memory.tokens_at_once", lambda device: 64)
    options = {"tuning": tuning, "max_steps": 2, "batch_size": 8, "device": "cpu", "baseline": False}
    setup = set_up(tiny_qwen, toy_file, tuning=tuning)
    limit = measure_footprint(setup.method, int(setup.train.lengths.max()), setup.autocast).peak(300)  # type: ignore[arg-type]
    result = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", memory=f"{limit / 1e3:.3f}KB", **options)
    assert any("activations recomputed" in note for note in result.notes)
    asked = train(toy_file, model=str(tiny_qwen), out=tmp_path / "asked", gradient_checkpointing=True, **options)
    assert result.metrics.log_loss == pytest.approx(asked.metrics.log_loss, rel=1e-5)


def test_what_trains_is_imported_where_there_is_nothing_of_unix() -> None:
    """As on Windows: modules of the standard library that are not there at all. And what draws is not waited for."""

    def work() -> None:
        import peft  # noqa: F401 - may import such modules itself, as torch and transformers have

        for name in [name for name in sys.modules if name.partition(".")[0] in ("fenlei", "matplotlib")]:
            del sys.modules[name]
        sys.modules.update(dict.fromkeys(("resource", "fcntl", "termios", "pwd", "grp")))  # type: ignore[arg-type]
        from fenlei.training import distill, dry_run, extend, fit, tune  # noqa: F401
        from fenlei.training.process_memory import resident_bytes

        assert resident_bytes() > 10_000_000
        assert "matplotlib" not in sys.modules

    assert ended(split(work)) == 0

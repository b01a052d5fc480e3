"""Adapters over a backbone in 4 bits. bitsandbytes computes on CPUs too, slowly: that is how it is tested where there is no CUDA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_jsonl
from extending import NEW, weather
from families import FAMILIES, Family, save_family
from transformers.quantizers.quantizers_utils import should_convert_module

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.config import RunConfig
from fenlei.errors import ConfigError
from fenlei.export.merged import export_merged
from fenlei.labels import LabelSet
from fenlei.models.backbone import in_head, load_network
from fenlei.training.extend import extend
from fenlei.training.setup import EXPERTS_NOTE, prepare

QUICK: dict[str, Any] = {"max_steps": 4, "batch_size": 8, "device": "cpu", "baseline": False, "tuning": "qlora", "learning_rate": 0.01}


@pytest.fixture
def wide_enough(tmp_path: Path, toy_rows: list[dict[str, str]]) -> Path:
    """A model whose linears have whole blocks of 64 weights, as bitsandbytes' CPU code asks."""
    family = next(one for one in FAMILIES if one.name == "Qwen3")
    shape = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 32, "num_key_value_heads": 2}
    return save_family(replace(family, config=shape), tmp_path / "base", [row["text"] for row in toy_rows])


def test_without_cuda_it_says_so_before_anything_is_loaded(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a CUDA device and bitsandbytes, and device cpu is none; use --tuning lora"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["head", "generate"])
def test_backbone_in_4_bits_head_in_float32_and_a_run_that_loads_anywhere(
    method: str, wide_enough: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    seen: list[torch.nn.Module] = []

    def four_bit_here(device: torch.device) -> bool:
        return True

    with monkeypatch.context() as patch:
        patch.setattr("fenlei.models.qlora.computes_four_bit", four_bit_here)
        patch.setattr("fenlei.inference.loading.computes_four_bit", four_bit_here)
        train(toy_file, model=str(wide_enough), out=tmp_path / "run", method=method, **{**QUICK, "max_length": 200})
        texts = [row["text"] for row in toy_rows[:8]]
        classifier = Classifier.load(tmp_path / "run", device="cpu")
        seen += [module for module in classifier._run.method.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
        as_trained = classifier.predict_proba(texts)
    assert len(seen) == 14
    assert classifier.describe()["parameters"]["all"] > 30_000
    if method == "head":
        heads = [weight for name, weight in classifier._run.method.named_parameters() if "score" in name]
        assert heads
        assert all(weight.dtype == torch.float32 for weight in heads)
    elsewhere = Classifier.load(tmp_path / "run", device="cpu").predict_proba(texts)
    np.testing.assert_allclose(elsewhere, as_trained, atol=0.05)
    assert not np.array_equal(elsewhere, as_trained)
    assert export_merged(tmp_path / "run", tmp_path / "stock", texts=texts).agreement == 1.0


def test_an_extension_is_refused_with_what_can_be_done_and_that_can_be_done(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """The run is one of LoRA that says it is one of QLoRA: without CUDA both load the same."""
    run = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **{**QUICK, "tuning": "lora"}).out
    write_manifest(run, {**read_manifest(run), "tuning": "qlora"})
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(config.replace("tuning: lora", "tuning: qlora"), encoding="utf-8")
    new = write_jsonl(tmp_path / "new.jsonl", weather())
    options: dict[str, Any] = {"replay": toy_file, "out": tmp_path / "out", "device": "cpu", "max_steps": 1}
    with pytest.raises(ConfigError, match=r"over weights in 4 bits, .*train again on all rows, .*tuning='lora'"):
        extend(run, new, **options)
    assert not (tmp_path / "out").exists()
    assert extend(run, new, tuning="lora", **options).training.labels[-1] == NEW
    assert read_manifest(tmp_path / "out")["tuning"] == "lora"


@pytest.mark.parametrize("family", [one for one in FAMILIES if not one.decoder], ids=lambda family: family.name)
def test_all_of_an_encoder_but_its_head_is_kept_in_4_bits(family: Family, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """By the names that transformers is told, and by its own rule for them."""
    told: list[str] = []

    def quantised(heads: list[str] | None) -> dict[str, Any]:
        told.extend(heads or [])
        return {}

    base = save_family(family, tmp_path / "base", [row["text"] for row in toy_rows])
    network = load_network(base, LabelSet(("a", "b")), 0, layers=None, dtype=torch.float32, quantised=quantised)
    linears = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    in_heads = {name for name in linears if in_head(network, f"{name}.weight")}
    assert in_heads
    assert {name for name in linears if not should_convert_module(name, told)} == in_heads


@pytest.mark.parametrize(("name", "told"), [("Qwen3 MoE", 1), ("Qwen3", 0)])
def test_of_experts_it_is_said_that_they_stay_as_they_are(
    name: str, told: int, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fenlei.training.setup.check_four_bit", lambda device: None)
    monkeypatch.setattr("fenlei.training.building.four_bit", lambda device, dtype, heads: {})
    base = save_family(next(one for one in FAMILIES if one.name == name), tmp_path / "base", [row["text"] for row in toy_rows])
    options = {"data": str(toy_file), "model": str(base), "tuning": "qlora", "device": "cpu", "max_length": 48}
    assert prepare(RunConfig.from_options(options)).notes.count(EXPERTS_NOTE) == told

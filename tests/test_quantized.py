"""Prediction in 8-bit integers: close to the network it stands for, and each row for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fenlei import Classifier, ConfigError, train
from fenlei.inference.loading import load_run
from fenlei.models.quantized import Int8Linear, quantize_linears

TEXTS = ["央行下调存款准备金率", "国足客场三比零取胜", "新款手机今日发布", "楼市", "高考分数线公布，多地上调，考生可在网上查询" * 3]

pytestmark = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this CPU has no VNNI")


@pytest.fixture(params=["full", "lora", "frozen"])
def run(request: pytest.FixtureRequest, tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> Path:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning=request.param, max_steps=4, device="cpu", baseline=False)
    return tmp_path / "run"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_is_off_by_no_more_than_rounding(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 40, bias=bias), torch.randn(3, 7, 96)
    x[0, 0] *= 300  # a decoder's first token: it must not coarsen the others
    exact, given = linear(x), Int8Linear(linear)(x.to(dtype)).float()
    assert given.shape == exact.shape
    off = (given - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert off.max() < 0.03


def test_zeros_stay_zeros() -> None:
    linear = nn.Linear(8, 4)
    torch.testing.assert_close(Int8Linear(linear)(torch.zeros(2, 8)), linear.bias.detach().expand(2, 4))


def test_the_answers_are_those_of_the_run(run: Path) -> None:
    exact, given = Classifier.load(run, device="cpu").logits(TEXTS).logits, Classifier.load(run, int8=True).logits(TEXTS).logits
    assert not np.array_equal(exact, given)
    assert np.abs(exact - given).max() < 0.1 * np.abs(exact).max()


def test_a_row_does_not_depend_on_the_rows_beside_it(run: Path) -> None:
    classifier = Classifier.load(run, int8=True)
    together = classifier.logits(TEXTS).logits
    alone = np.concatenate([classifier.logits([text]).logits for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-3 * np.abs(together).max())


def test_every_linear_of_the_backbone_and_no_other(run: Path) -> None:
    network: Any = load_run(run, int8=True).method.stock
    kinds = {name: type(module) for name, module in network.named_modules() if isinstance(module, (nn.Linear, Int8Linear))}
    assert sum(kind is Int8Linear for kind in kinds.values()) == 14  # two layers of q, k, v, o, gate, up and down
    assert [name for name, kind in kinds.items() if kind is nn.Linear] == ["score"]
    assert network.score.weight.dtype == torch.float32
    assert network.model.rotary_emb.inv_freq.dtype == torch.float32


def test_an_encoder_keeps_its_own_head(tiny_bert: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_bert), out=tmp_path / "run", tuning="full", max_steps=4, device="cpu", baseline=False)
    exact, given = (Classifier.load(tmp_path / "run", device="cpu", int8=int8).logits(TEXTS).logits for int8 in (False, True))
    assert np.abs(exact - given).max() < 0.1 * np.abs(exact).max()
    network: Any = load_run(tmp_path / "run", int8=True).method.stock
    assert type(network.bert.pooler.dense) is nn.Linear


def test_a_cpu_without_vnni_is_told_so(monkeypatch: pytest.MonkeyPatch, tiny_qwen: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(ConfigError, match="int8 prediction needs a CPU with VNNI"):
        quantize_linears(AutoModelForSequenceClassification.from_pretrained(tiny_qwen))

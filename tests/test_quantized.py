"""Prediction in 8-bit integers: close to the network it stands for, and each row for itself."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_NEWS
from tiny_models import SHAPE
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from fenlei import Classifier, ConfigError, train
from fenlei.config import ModelConfig, RunConfig
from fenlei.inference.loading import load_run
from fenlei.labels import LabelSet
from fenlei.models.backbone import load_network
from fenlei.models.head import HeadMethod
from fenlei.models.lora import add_lora
from fenlei.models.quantized import InputOnce, Int8Linear, Int8Rows, quantize_below_adapters, quantize_linears
from fenlei.text.batches import Batch
from fenlei.training.setup import prepare
from fenlei.training.vectors import cached_vectors

TEXTS = ["央行下调存款准备金率", "国足客场三比零取胜", "新款手机今日发布", "楼市", "高考分数线公布，多地上调，考生可在网上查询" * 3]

pytestmark = pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="this CPU has no AVX2")


@pytest.fixture(scope="module", params=["full", "lora", "frozen"])
def run(request: pytest.FixtureRequest, tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized") / "run"
    return train(TOY_NEWS, model=str(tiny_qwen), out=out, tuning=request.param, max_steps=4, device="cpu", baseline=False).out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_is_off_by_no_more_than_rounding(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 40, bias=bias), torch.randn(3, 7, 96)
    x[0, 0] *= 300  # a decoder's first token: it must not coarsen the others
    exact, given = linear(x), Int8Linear(linear, InputOnce())(x.to(dtype)).float()
    assert given.shape == exact.shape
    off = (given - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert off.max() < 0.03


def test_zeros_stay_zeros() -> None:
    linear = nn.Linear(8, 4)
    torch.testing.assert_close(Int8Linear(linear, InputOnce())(torch.zeros(2, 8)), linear.bias.detach().expand(2, 4))


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


@pytest.mark.parametrize("vnni", [True, False])
def test_the_largest_sums_do_not_overflow(monkeypatch: pytest.MonkeyPatch, vnni: bool) -> None:
    if vnni and not torch.cpu._is_vnni_supported():
        pytest.skip("this CPU has no VNNI")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    linear = nn.Linear(96, 64, bias=False)
    nn.init.ones_(linear.weight)
    torch.testing.assert_close(Int8Linear(linear, InputOnce())(torch.ones(5, 96)), torch.full((5, 64), 96.0))
    torch.testing.assert_close(Int8Linear(linear, InputOnce())(-torch.ones(5, 96)), torch.full((5, 64), -96.0))


def test_another_processor_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch, tiny_qwen: Path) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ConfigError, match=r"int8 needs an x86 CPU.*leave int8 out, or give --no-int8 \(from Python int8=False\) to extend"):
        quantize_linears(AutoModelForSequenceClassification.from_pretrained(tiny_qwen))


def test_what_several_linears_read_is_quantised_once_and_again_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Int8Rows] = []
    exact = Int8Rows.of
    monkeypatch.setattr(Int8Rows, "of", lambda x: made.append(exact(x)) or made[-1])
    torch.manual_seed(0)
    quantize, x = InputOnce(), torch.randn(2, 5, 16)
    one, two = (Int8Linear(nn.Linear(16, 8), quantize) for _ in range(2))
    before = one(x)
    two(x)
    assert len(made) == 1
    x.mul_(2).add_(1)
    torch.testing.assert_close(one(x), Int8Linear.forward(one, x.clone()))
    assert not torch.equal(one(x), before)
    with torch.inference_mode():
        y = torch.randn(2, 5, 16)
        first = one(y).clone()
        y.neg_()
        assert not torch.equal(one(y), first)


@pytest.mark.parametrize("rows", [3, 1024, 2050])
def test_rows_in_parts_are_rows_together(rows: int) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(24, 8), torch.randn(rows, 24)
    exact, given = linear(x), Int8Linear(linear, InputOnce())(x)
    assert (given - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_below_adapters_are_close_to_the_exact_ones(tiny_qwen: Path, dtype: torch.dtype) -> None:
    def gradients(int8: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = load_network(tiny_qwen, LabelSet(("a", "b", "c")), 1, layers=None, dtype=dtype)
        adapted = add_lora(network, ModelConfig(lora_rank=4))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        if int8:
            assert quantize_below_adapters(adapted) == 14
        method = HeadMethod(adapted, pad_id=1)
        logits = method(Batch(torch.randint(5, 90, (4, 12)), torch.ones(4, 12, dtype=torch.long))).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        return {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}

    exact, given = gradients(int8=False), gradients(int8=True)
    assert given.keys() == exact.keys()
    assert len(given) == 14 * 2 + 1
    for name, gradient in given.items():
        assert (gradient - exact[name]).norm() < 0.1 * exact[name].norm(), name


def test_training_in_int8_moves_the_adapters_and_ends_as_any_run(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    for int8 in (True, False):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / str(int8), tuning="lora", int8=int8, max_steps=6, device="cpu", baseline=False)
    one, other = (Classifier.load(tmp_path / str(int8), device="cpu").logits(TEXTS).logits for int8 in (True, False))
    assert not np.array_equal(one, other)
    assert np.abs(one - other).max() < 0.2 * np.abs(other).max()
    with pytest.raises(ConfigError, match="int8 is for tuning 'lora' and 'frozen'"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "full", tuning="full", int8=True, device="cpu")


def test_a_frozen_backbone_is_read_in_int8_and_its_states_are_never_taken_for_exact_ones(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options: dict[str, Any] = {"model": str(tiny_qwen), "tuning": "frozen", "epochs": 3, "device": "cpu", "baseline": False}
    setups = {int8: prepare(RunConfig.from_options({"data": str(toy_file), **options, "int8": int8})) for int8 in (False, True)}
    exact, near = (cached_vectors(setup.method, setup.base, setup.train) for setup in setups.values())
    assert not np.array_equal(exact, near)
    assert np.linalg.norm(exact - near) < 0.05 * np.linalg.norm(exact)
    for int8 in setups:
        train(toy_file, out=tmp_path / str(int8), int8=int8, **options)
    one, other = (Classifier.load(tmp_path / str(int8), device="cpu").logits(TEXTS).logits for int8 in (True, False))
    assert not np.array_equal(one, other)
    assert np.abs(one - other).max() < 0.1 * np.abs(other).max()
    # What a run answers in int8 is read from the states that it learned from.
    run = load_run(tmp_path / "True", int8=True)
    monkeypatch.setattr(HeadMethod, "pool", lambda *_: pytest.fail("the backbone ran again"))
    np.testing.assert_array_equal(cached_vectors(run.method, setups[True].base, setups[True].train), near)


def test_what_was_quantised_is_not_kept_for_the_backward_pass(tiny_qwen: Path) -> None:
    """The gradient needs the weights alone: the inputs of every layer would be held until the graph is freed."""
    network = load_network(tiny_qwen, LabelSet(("a", "b", "c")), 1, layers=None, dtype=torch.float32)
    adapted = add_lora(network, ModelConfig(lora_rank=4))
    quantize_below_adapters(adapted)
    logits = HeadMethod(adapted, pad_id=1)(Batch(torch.randint(5, 90, (4, 12)), torch.ones(4, 12, dtype=torch.long))).logits
    gc.collect()
    assert sum(type(one) is Int8Rows for one in gc.get_objects()) <= 1  # the latest, which the next linear may read
    logits.sum().backward()


def test_a_model_without_plain_linears_says_so(tiny_qwen: Path) -> None:
    network = load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32)
    with pytest.raises(ConfigError, match="no linear layers that could be put into 8 bits; leave int8 out"):
        quantize_below_adapters(network)  # no adapters are there


def test_dropout_before_the_adapters_does_not_keep_the_weights_from_8_bits(tiny_qwen: Path) -> None:
    network = load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32)
    assert quantize_below_adapters(add_lora(network, ModelConfig(lora_rank=4, lora_dropout=0.1))) == 14


WEIGHTS_ASKED_FOR: dict[str, dict[str, Any]] = {
    "mt5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "jamba": {
        **SHAPE, "num_key_value_heads": 1, "num_experts": 1, "num_experts_per_tok": 1,
        "attn_layer_period": 2, "attn_layer_offset": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), WEIGHTS_ASKED_FOR.items())
def test_architectures_that_ask_linears_for_their_weights_are_answered(kind: str, shape: dict[str, Any]) -> None:
    """T5 asks in which format they are, and Mamba's kin multiply with one of them by themselves."""
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, vocab_size=100, num_labels=3, **shape)).eval()
    ids = torch.randint(5, 90, (2, 8))
    ids[:, -1] = 1  # T5's head reads the state of the token that ends a text
    with torch.inference_mode():
        exact = network(input_ids=ids).logits
        assert quantize_linears(network) > 0
        given = network(input_ids=ids).logits
    assert not torch.equal(given, exact)
    assert (given - exact).norm() < 0.1 * exact.norm()

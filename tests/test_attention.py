"""Attention over short rows is transformers' own, outputs and gradients, and stays out of what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SHAPE
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from fenlei.models import attention
from fenlei.models.attention import speed_up_short_rows
from fenlei.models.head import HeadMethod
from fenlei.text.batches import Batch

LENGTHS = [9, 5, 1, 7]


def states_and_gradients(network: PreTrainedModel, *, masked: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of the real tokens of four rows, padded on the right."""
    torch.manual_seed(0)
    ids = torch.randint(5, 90, (4, max(LENGTHS)))
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    states = network.eval()(input_ids=ids, attention_mask=real.long() if masked else None).last_hidden_state[real]
    states.sin().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return states.detach(), gradients


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("base", ["tiny_qwen", "tiny_llama", "tiny_bert"])
def test_it_is_transformers_own(base: str, masked: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    network = AutoModel.from_pretrained(request.getfixturevalue(base))
    assert network.config._attn_implementation == "sdpa"
    stock, stock_gradients = states_and_gradients(network, masked=masked)
    speed_up_short_rows(network)
    calls = []
    with monkeypatch.context() as patch:  # proof that the short way was gone
        patch.setattr(attention, "sdpa_attention_forward", lambda *given, **named: calls.append(1))
        short, gradients = states_and_gradients(network, masked=masked)
    assert not calls
    torch.testing.assert_close(short, stock, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == stock_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, stock_gradients[name], atol=1e-5, rtol=1e-4, msg=name)


MIXED = {"vocab_size": 100, "num_key_value_heads": 2, "kv_channels": 16, "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize("packs", [True, False], ids=["packed if it can be", "padded"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("doge", {"vocab_size": 100, "num_key_value_heads": 1}),
        ("jetmoe", {**MIXED, "head_dim": 16}),
        ("qwen3", {"vocab_size": 100, "num_key_value_heads": 1, "head_dim": 16, "is_causal": False}),
    ],
    ids=["adds numbers to its mask", "views what it is given", "looks both ways"],
)
def test_architectures_that_ask_more_of_attention_are_read_as_their_own(
    kind: str, more: dict[str, Any], packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows together give what transformers says of each alone."""
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **{**SHAPE, **more})).eval()
    for name, weight in network.named_parameters():
        if name.endswith(".A"):  # zero at first, and with it what Doge would add
            torch.nn.init.normal_(weight)
    ids, mask = torch.randint(5, 90, (4, max(LENGTHS))), (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    with torch.inference_mode():
        alone = [network.base_model(ids[row : row + 1, :length]).last_hidden_state[0, -1] for row, length in enumerate(LENGTHS)]
        speed_up_short_rows(network)
        if not packs:
            monkeypatch.setattr(HeadMethod, "packs", lambda self, longest: False)
        together = HeadMethod(network, pad_id=5).pool(Batch(ids, mask))
    assert network.config._attn_implementation == attention.NAME
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_a_window_of_0_is_none_as_qwen2_moe_says_it() -> None:
    config = AutoConfig.for_model("qwen2_moe")
    assert not config.use_sliding_window
    config._attn_implementation = attention.NAME
    assert attention.is_plainly_causal(config, 9)


def test_what_comes_back_needs_no_copy() -> None:
    query = torch.randn(2, 4, 7, 8)
    states, _ = attention.attention(torch.nn.Module(), query, query, query, None)
    assert states.is_contiguous(), "as transformers' own, which JetMoE and AFMoE take for granted"


def test_long_rows_go_the_stock_way(tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = AutoModel.from_pretrained(tiny_qwen)
    stock, _ = states_and_gradients(network, masked=False)
    speed_up_short_rows(network)
    monkeypatch.setattr(attention, "LONGEST_ROW", 8)
    long, _ = states_and_gradients(network, masked=False)
    assert torch.equal(long, stock)


def test_bfloat16_is_as_near_to_float32_as_the_stock_way(tiny_qwen: Path) -> None:
    """Scores rounded to bfloat16 would not be."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 40, 16) * 3 for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    exact, _ = attention.attention(module, query, key, value, None)
    rounded = [tensor.bfloat16() for tensor in (query, key, value)]
    ours = attention.attention(module, *rounded, None)[0].float()
    stock = attention.sdpa_attention_forward(module, *rounded, None)[0].float()
    assert (ours - exact).abs().mean() <= 1.1 * (stock - exact).abs().mean()


def test_a_row_that_may_look_nowhere_is_finite() -> None:
    query = torch.randn(1, 2, 3, 4, requires_grad=True)
    states, _ = attention.attention(torch.nn.Module(), query, query, query, torch.zeros(1, 1, 3, 3, dtype=torch.bool))
    states.sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_the_folder_stays_stock(tiny_qwen: Path, tmp_path: Path) -> None:
    network = AutoModel.from_pretrained(tiny_qwen)
    speed_up_short_rows(network)
    network.save_pretrained(tmp_path)
    assert attention.NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"

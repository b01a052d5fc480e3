"""The head method: what it pools, in which precision, and that a text's answer is its own."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from fenlei.config import ModelConfig
from fenlei.errors import ConfigError
from fenlei.inference.scoring import score
from fenlei.labels import LabelSet
from fenlei.models.backbone import _keep_layers, load_network, load_tokenizer
from fenlei.models.head import HeadMethod, MlpHead, freeze_backbone, install_head, parameter_counts
from fenlei.models.lora import add_lora
from fenlei.text.batches import collate
from fenlei.text.prompts import TextEncoder

LABELS = LabelSet(("体育", "财经", "科技"))
TEXTS = ["国足取胜", "央行下调利率，市场应声而动", "新", "望远镜拍到遥远星系的第一缕光，论文今日发表", "股市"]


def build(folder: Path, dtype: torch.dtype = torch.float32, layers: int | None = None) -> tuple[HeadMethod, TextEncoder]:
    tokenizer = load_tokenizer(folder)
    pad = int(tokenizer.pad_token_id)
    torch.manual_seed(1)
    network = load_network(folder, LABELS, pad, layers=layers, dtype=dtype)
    return HeadMethod(network, pad).eval(), TextEncoder(tokenizer, None, 64)


@pytest.fixture(params=["tiny_qwen", "tiny_llama", "tiny_bert"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_batch_of_one_equals_batch_of_many_and_shuffled(folder: Path) -> None:
    method, encoder = build(folder)
    together = score(method, encoder.encode(TEXTS), 3).logits
    alone = np.concatenate([score(method, encoder.encode([text]), 3).logits for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = [3, 0, 4, 2, 1]
    shuffled = score(method, encoder.encode([TEXTS[at] for at in order]), 3, batch_tokens=30).logits
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)


def test_a_text_that_ends_in_the_pad_token_is_pooled_there(tiny_qwen: Path) -> None:
    """Stock models look for the last id that is not the pad id, and would read the token before."""
    method, encoder = build(tiny_qwen)
    ends_in_pad = TEXTS[0] + "<|pad|>"
    alone = score(method, encoder.encode([ends_in_pad]), 3).logits
    without = score(method, encoder.encode([TEXTS[0]]), 3).logits
    beside = score(method, encoder.encode([ends_in_pad, TEXTS[3]]), 3).logits[:1]
    assert np.abs(alone - without).max() > 1e-4
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_decoder_logits_are_the_stock_models(tiny_qwen: Path) -> None:
    method, encoder = build(tiny_qwen)
    batch = collate(encoder.encode(TEXTS), range(len(TEXTS)), method.pad_id)
    stock = method.stock(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(method(batch).logits, stock, atol=1e-5, rtol=1e-5)


def test_the_head_reads_a_state_a_row(tiny_qwen: Path) -> None:
    """Not one of every position, as the stock model's does."""
    method, encoder = build(tiny_qwen)
    read: list[tuple[int, ...]] = []
    method.stock.score.register_forward_hook(lambda _, given, __: read.append(tuple(given[0].shape)))  # type: ignore[union-attr]
    method(collate(encoder.encode(TEXTS), range(len(TEXTS)), method.pad_id))
    assert read == [(len(TEXTS), method.stock.config.hidden_size)]


def test_head_and_logits_are_float32_over_a_bfloat16_backbone(folder: Path) -> None:
    method, encoder = build(folder, torch.bfloat16)
    batch = collate(encoder.encode(TEXTS), range(len(TEXTS)), method.pad_id)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(batch)
    assert output.logits.dtype == torch.float32
    head = next(module for name, module in method.stock.named_children() if name in ("score", "classifier"))
    assert next(head.parameters()).dtype == torch.float32
    assert not torch.equal(output.logits, output.logits.bfloat16().float()), "the head was computed in bfloat16"


def test_frozen_trains_the_head_alone(folder: Path) -> None:
    method, encoder = build(folder)
    freeze_backbone(method.stock)
    method(collate(encoder.encode(TEXTS), range(len(TEXTS)), method.pad_id)).logits.sum().backward()
    learned = {name for name, p in method.named_parameters() if p.grad is not None}
    assert learned
    assert all(any(part in name for part in ("score", "classifier", "pooler")) for name in learned)


def test_lora_leaves_the_base_alone_and_counts_its_share(tiny_qwen: Path) -> None:
    method, _ = build(tiny_qwen)
    everything = parameter_counts(method)[1]
    adapted = HeadMethod(add_lora(method.stock, ModelConfig(lora_rank=2)), method.pad_id)
    trainable, total = parameter_counts(adapted)
    assert 0 < trainable < 0.5 * everything
    assert total > everything
    assert all("lora_" in name or "score" in name for name, p in adapted.named_parameters() if p.requires_grad)


def test_layers_keeps_the_lower_blocks(tiny_qwen: Path) -> None:
    whole, _ = build(tiny_qwen)
    lower, _ = build(tiny_qwen, layers=1)
    assert len(lower.stock.base_model.layers) == 1
    assert torch.equal(lower.stock.base_model.layers[0].mlp.up_proj.weight, whole.stock.base_model.layers[0].mlp.up_proj.weight)
    with pytest.raises(ConfigError, match="has only 2"):
        build(tiny_qwen, layers=3)


@pytest.mark.parametrize("kind", ["falcon_h1", "exaone_moe"])
def test_what_a_configuration_says_of_each_layer_is_cut_with_them(kind: str, tmp_path: Path) -> None:
    """Falcon-H1 derives it from their number, and lets nobody set it; EXAONE MoE says it of attention and of MLPs, and counts both."""
    config = AutoConfig.for_model(kind)
    _keep_layers(config, 1)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 1


def test_a_token_that_the_model_has_no_row_for_is_an_unknown_word(folder: Path) -> None:
    """Some tokenizers know more than their model, and a text may spell such a token: the rows beside it are to live."""
    method, _ = build(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens("<new>", special_tokens=True)
    encoder = TextEncoder(tokenizer, None, 64)
    encoded = encoder.encode([f"{TEXTS[0]}<new>", TEXTS[3]])
    assert encoded.ids.max() >= method.stock.config.vocab_size
    logits = score(method, encoded, 3).logits
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[1:], score(method, encoder.encode([TEXTS[3]]), 3).logits, atol=1e-5)


def test_mlp_head_fits_decoders_only(tiny_qwen: Path, tiny_bert: Path) -> None:
    method, encoder = build(tiny_qwen)
    install_head(method.stock, MlpHead(32, 3))
    assert score(method, encoder.encode(TEXTS), 3).logits.shape == (5, 3)
    with pytest.raises(ConfigError, match="keeps its own head"):
        install_head(build(tiny_bert)[0].stock, MlpHead(32, 3))


def test_states_from_main_memory_are_classified_outside_the_autocast_of_the_heads_own_device(
    tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that are kept of a frozen backbone: on a GPU without bfloat16 the head would learn in float16, and answer in float32."""
    method, _ = build(tiny_qwen)
    method.to("meta")
    asked: list[str] = []

    def autocast(device: str, **named: Any) -> AbstractContextManager[None]:
        asked.append(device)
        return nullcontext()

    monkeypatch.setattr(torch, "autocast", autocast)
    method.classify(torch.zeros(2, method.stock.config.hidden_size))
    assert asked == ["meta"]

"""The fused LoRA linear is PEFT's, outputs and gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SHAPE
from transformers import AutoConfig

from fenlei.config import ModelConfig
from fenlei.labels import LabelSet
from fenlei.models.architectures import classifier_class
from fenlei.models.backbone import load_network
from fenlei.models.head import HeadMethod
from fenlei.models.lora import add_lora, load_lora
from fenlei.models.lora_linear import LoraLinear, PlainProduct, fold_adapters, fuse_lora, plain_lora_linears
from fenlei.text.batches import Batch


def test_gradients_are_right() -> None:
    x, weight, bias, down, up = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 7), (3, 7), (3,), (2, 7), (3, 2)))
    for tensor in (x, down, up):
        tensor.requires_grad_()
    base = PlainProduct(weight, bias)
    assert torch.autograd.gradcheck(lambda *learned: LoraLinear.apply(learned[0], None, base, *learned[1:], 1.7), (x, down, up))
    dropped = (x.detach() * (torch.rand(5, 7) > 0.3)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *learned: LoraLinear.apply(learned[0], learned[1], base, *learned[2:], 1.7), (x, dropped, down, up)
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("base", ["tiny_qwen", "tiny_llama", "tiny_bert"])
def test_fused_equals_peft(base: str, dropout: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Path = request.getfixturevalue(base)

    def logits_and_gradients(fused: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with monkeypatch.context() as patch:
            if not fused:
                patch.setattr("fenlei.models.lora.fuse_lora", lambda network: 0)
            torch.manual_seed(0)
            network = load_network(folder, LabelSet(("a", "b", "c")), 1, layers=None, dtype=torch.float32)
            adapted = add_lora(network, ModelConfig(lora_rank=4, lora_alpha=12, lora_dropout=dropout))
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:  # B starts at zero, where half of the gradients vanish
                torch.nn.init.normal_(parameter, std=0.1)
        adapted.eval()
        for name, module in adapted.named_modules():
            if "lora_dropout" in name:  # that of the adapters alone: the same numbers are drawn in both ways
                module.train()
        logits = adapted(input_ids=torch.randint(5, 90, (4, 9)), attention_mask=torch.ones(4, 9, dtype=torch.long)).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        return logits.detach(), {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}

    ours, our_gradients = logits_and_gradients(fused=True)
    theirs, their_gradients = logits_and_gradients(fused=False)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-5, rtol=1e-4, msg=name)


def test_what_is_fused_and_what_is_not(tiny_qwen: Path) -> None:
    def fused(**options: object) -> int:
        network = load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32)
        return fuse_lora(add_lora(network, ModelConfig(**options)))  # type: ignore[arg-type]

    assert fused() == 2 * 7
    assert fused(lora_targets="q_proj,v_proj") == 2 * 2
    assert fused(lora_dropout=0.1) == 2 * 7


def test_float32_adapters_learn_over_a_bfloat16_backbone(tiny_qwen: Path) -> None:
    network = load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.bfloat16)
    adapted = add_lora(network, ModelConfig(lora_rank=2))
    method = HeadMethod(adapted, pad_id=1)
    method(Batch(torch.randint(5, 90, (2, 6)), torch.ones(2, 6, dtype=torch.long))).logits.sum().backward()
    learned = {name: p for name, p in adapted.named_parameters() if "lora_B" in name}
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in learned.values())
    assert any(p.grad.abs().max() > 0 for p in learned.values())


@pytest.mark.parametrize(("dtype", "size", "folded"), [(torch.float32, 0.1, 14), (torch.bfloat16, 0.1, 14), (torch.bfloat16, 1e-3, 0)])
def test_adapters_are_folded_where_the_weights_can_hold_them(tiny_qwen: Path, dtype: torch.dtype, size: float, folded: int) -> None:
    torch.manual_seed(0)
    adapted = add_lora(load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=dtype), ModelConfig(lora_rank=2))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=size)
    batch = Batch(torch.randint(5, 90, (2, 6)), torch.ones(2, 6, dtype=torch.long))
    with torch.no_grad():
        before = HeadMethod(adapted, pad_id=1)(batch).logits
        assert fold_adapters(adapted) == folded
        after = HeadMethod(adapted, pad_id=1)(batch).logits
    assert len(list(plain_lora_linears(adapted))) == 14 - folded
    torch.testing.assert_close(after, before, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)


def test_adapters_are_put_in_and_loaded_without_a_word(tiny_qwen: Path, tmp_path: Path) -> None:
    """PEFT's use of names that transformers has deprecated is nothing to tell people of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted: Any = add_lora(
            load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32), ModelConfig(lora_rank=2)
        )
    adapted.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_lora(load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32), tmp_path)


def test_what_fused_kernels_of_mamba_read_by_themselves_is_left_alone() -> None:
    """PEFT refuses an adapter there, even where nobody has named that linear."""
    shape = {**SHAPE, "num_key_value_heads": 1, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_state": 8}
    config = AutoConfig.for_model("falcon_h1", vocab_size=100, **shape)
    adapted = add_lora(classifier_class(config)._from_config(config), ModelConfig(lora_rank=2))
    names = {name.rpartition(".")[2] for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    assert {"in_proj", "q_proj"} <= names
    assert "out_proj" not in names

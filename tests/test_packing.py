"""Packed rows are padded rows, without the padding: states, gradients, and what is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fenlei import train
from fenlei.config import ModelConfig
from fenlei.labels import LabelSet
from fenlei.models.attention import LONGEST_ROW
from fenlei.models.backbone import checkpoint_activations, load_network
from fenlei.models.head import HeadMethod
from fenlei.models.lora import add_lora
from fenlei.models.packing import Packing
from fenlei.text.batches import Batch

LENGTHS = torch.tensor([9, 5, 1, 7])


def batch_of(lengths: torch.Tensor, seed: int = 0) -> Batch:
    """Random ids, padded on the right with a token that occurs in rows as well."""
    torch.manual_seed(seed)
    mask = (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long()
    return Batch(torch.randint(2, 90, mask.shape) * mask + (1 - mask) * 5, mask)


def method_of(base: Path, *, lora: bool = False) -> HeadMethod:
    torch.manual_seed(1)
    network = load_network(base, LabelSet(("a", "b", "c")), 1, layers=None, dtype=torch.float32)
    return HeadMethod(add_lora(network, ModelConfig(tuning="lora")) if lora else network, pad_id=5)


def logits_and_gradients(method: HeadMethod, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    method.zero_grad()
    logits = method(batch).logits
    logits.sin().sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_there_and_back() -> None:
    packing = Packing.of(batch_of(LENGTHS).attention_mask)
    states = torch.randn(int(LENGTHS.sum()), 3)
    assert torch.equal(packing.packed(packing.padded(states)), states)
    assert packing.positions.tolist() == [at for length in LENGTHS.tolist() for at in range(length)]
    assert packing.last.tolist() == [8, 13, 14, 21]


@pytest.mark.parametrize("longest", [9, LONGEST_ROW + 20], ids=["short", "long"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("base", ["tiny_qwen", "tiny_llama"])
def test_packed_is_padded(base: str, lora: bool, longest: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = method_of(request.getfixturevalue(base), lora=lora), batch_of(torch.tensor([longest, 5, 1, 7]))
    packed, gradients = logits_and_gradients(method, batch)
    monkeypatch.setattr(HeadMethod, "packs", lambda self, longest: False)
    padded, stock = logits_and_gradients(method, batch)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == stock.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, stock[name], atol=1e-5, rtol=1e-4, msg=name)


def test_nothing_is_computed_of_padding(tiny_qwen: Path) -> None:
    method, seen = method_of(tiny_qwen), []
    method.stock.model.layers[0].mlp.register_forward_hook(lambda module, given, out: seen.append(out.shape[:2].numel()))  # type: ignore[attr-defined]
    method(batch_of(LENGTHS))
    assert seen == [int(LENGTHS.sum())]


def test_who_cannot_be_packed_is_padded(tiny_qwen: Path, tiny_bert: Path) -> None:
    assert not method_of(tiny_bert).packs(9)
    method = method_of(tiny_qwen)
    method.stock.config.sliding_window = 8
    assert method.packs(8)
    assert not method.packs(9)


def test_activations_computed_anew_are_of_padded_rows(tiny_qwen: Path) -> None:
    network = load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32)
    checkpoint_activations(network, torch.device("cpu"))
    method = HeadMethod(network, pad_id=5)
    assert method.eval().packs(9)
    assert not method.train().packs(9)
    _, gradients = logits_and_gradients(method, batch_of(LENGTHS))
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_steps_are_made_for_where_a_network_will_run(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is spread over GPUs still lies in main memory when the order of rows is settled."""
    method = method_of(tiny_qwen)
    assert method.packs(9, torch.device("cpu"))
    assert not method.packs(9, torch.device("cuda"))
    asked: list[torch.device | None] = []
    real = HeadMethod.packs

    def watched(self: HeadMethod, longest: int, device: torch.device | None = None) -> bool:
        asked.append(device)
        return real(self, longest, device)

    monkeypatch.setattr(HeadMethod, "packs", watched)
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", max_steps=1, device="cpu", baseline=False)
    assert torch.device("cpu") in asked

"""The last block's MLP runs where a state is read, and nothing of the answer or its gradients changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fenlei.labels import LabelSet
from fenlei.models.backbone import checkpoint_activations, load_network
from fenlei.models.head import HeadMethod
from fenlei.models.last_block import only_read_at
from fenlei.text.batches import Batch

IDS = torch.randint(5, 90, (4, 9), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(9) < torch.tensor([[9], [4], [1], [7]])).long()


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("base", ["tiny_qwen", "tiny_llama"])
def test_logits_and_gradients_are_those_of_the_whole_block(
    base: str, packs: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadMethod, "packs", lambda self, longest: packs)
    folder: Path = request.getfixturevalue(base)

    def answers(spared: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[torch.Size]]:
        torch.manual_seed(0)
        method = HeadMethod(load_network(folder, LabelSet(("a", "b", "c")), 1, layers=None, dtype=torch.float32), pad_id=1)
        last = method.stock.model.layers[-1].mlp  # type: ignore[attr-defined]
        seen: list[torch.Size] = []
        last.down_proj.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[:2]))
        if not spared:
            last.forward = last._whole
        logits = method(Batch(IDS, MASK)).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        return logits.detach(), {name: p.grad for name, p in method.named_parameters() if p.grad is not None}, seen

    logits, gradients, seen = answers(spared=True)
    whole_logits, whole_gradients, whole_seen = answers(spared=False)
    assert seen == [torch.Size((4, 1))]
    assert whole_seen == [torch.Size((1, 21) if packs else (4, 9))]
    torch.testing.assert_close(logits, whole_logits, atol=1e-6, rtol=1e-5)
    assert gradients.keys() == whole_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, whole_gradients[name], atol=1e-6, rtol=1e-4, msg=name)


def test_who_does_not_say_what_is_read_gets_every_state(tiny_qwen: Path) -> None:
    network = load_network(tiny_qwen, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32)
    stock = network.base_model(input_ids=IDS).last_hidden_state
    HeadMethod(network, pad_id=1)
    torch.testing.assert_close(network.base_model(input_ids=IDS).last_hidden_state, stock)
    rows, last = torch.arange(4), MASK.sum(dim=1) - 1
    with only_read_at((rows, last), IDS.shape):
        spared = network.base_model(input_ids=IDS).last_hidden_state
    assert not torch.allclose(spared, stock)
    torch.testing.assert_close(spared[rows, last], stock[rows, last])


@pytest.mark.parametrize("training", [True, False])
def test_activations_may_be_recomputed_from_any_time_on(tiny_qwen: Path, training: bool) -> None:
    """As --memory does after the network is set up: the second forward pass knows nothing of what is read, and gradients stay the same."""

    seen: list[torch.Size] = []

    def gradients(recompute: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        method = HeadMethod(load_network(tiny_qwen, LabelSet(("a", "b", "c")), 1, layers=None, dtype=torch.float32), pad_id=1)
        if recompute:
            checkpoint_activations(method.stock, method.device)
        method.train(training)
        last = method.stock.model.layers[-1].mlp  # type: ignore[attr-defined]
        last.down_proj.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[:2]))
        torch.nn.functional.cross_entropy(method(Batch(IDS, MASK)).logits, torch.tensor([0, 1, 2, 0])).backward()
        return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}

    plain, recomputed = gradients(False), gradients(True)
    assert plain.keys() == recomputed.keys()
    for name, gradient in recomputed.items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-6, rtol=1e-4, msg=name)
    assert set(seen[1:]) == {torch.Size((4, 9)) if training else torch.Size((4, 1))}

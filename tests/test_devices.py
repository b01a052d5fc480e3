"""Where the network runs: what is no name of ours is refused with those that are; and what is drawn there twice is the same."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fenlei.errors import ConfigError
from fenlei.models.backbone import checkpoint_activations
from fenlei.models.devices import pick_device, same_dice


@pytest.mark.parametrize("device", ["cuda:0", "gpu", torch.device("cpu")])
def test_another_name_is_refused_with_those_that_there_are(device: Any) -> None:
    with pytest.raises(ConfigError, match=r"one of auto, cpu, .*CUDA_VISIBLE_DEVICES") as told:
        pick_device(device)
    assert f"was {device!r}" in str(told.value)


def test_what_is_computed_again_on_mps_draws_the_same_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator of its own stands for that of a Mac."""
    dice = torch.Generator().manual_seed(0)
    monkeypatch.setattr(torch, "mps", SimpleNamespace(get_rng_state=dice.get_state, set_rng_state=dice.set_state))
    drawn: list[torch.Tensor] = []

    def dropped_out(values: torch.Tensor) -> torch.Tensor:
        drawn.append(torch.rand(8, generator=dice))
        return values * drawn[-1]

    values = torch.ones(8, requires_grad=True)
    said: Any = checkpoint(dropped_out, values, use_reentrant=False, context_fn=partial(same_dice, torch.device("mps")))
    torch.rand(8, generator=dice)  # by what comes between the passes
    state = dice.get_state()
    said.sum().backward()
    assert len(drawn) == 2
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(dice.get_state(), state)


def test_transformers_is_told_where_random_numbers_are_drawn_from() -> None:
    told: list[dict[str, Any]] = []
    network: Any = SimpleNamespace(activation_checkpointing_enable=told.append)
    checkpoint_activations(network, torch.device("mps"))
    (given,) = told
    assert given["use_reentrant"] is False
    assert (given["context_fn"].func, given["context_fn"].args) == (same_dice, (torch.device("mps"),))

"""Where the network runs: what is no name of ours is refused with those that are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fenlei.errors import ConfigError
from fenlei.models.devices import pick_device


@pytest.mark.parametrize("device", ["cuda:0", "gpu", torch.device("cpu")])
def test_another_name_is_refused_with_those_that_there_are(device: Any) -> None:
    with pytest.raises(ConfigError, match=r"one of auto, cpu, .*CUDA_VISIBLE_DEVICES") as told:
        pick_device(device)
    assert f"was {device!r}" in str(told.value)

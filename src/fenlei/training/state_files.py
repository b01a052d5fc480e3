"""The weights that learn and the optimiser's state, in a checkpoint's files: whole, however they are spread over processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from fenlei.errors import ArtifactError
from fenlei.training import zero
from fenlei.training.checkpoints import WEIGHTS_FILE
from fenlei.training.spread import own_part, put, settle, spread_by, whole


def save_weights(network: nn.Module, folder: Path, *, writes: bool) -> None:
    """Those that learn. All processes have to ask; the one that `writes` has the file."""
    settle(network)
    learning = {name: whole(p) for name, p in network.named_parameters() if p.requires_grad}
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(learning, folder / WEIGHTS_FILE)


def load_weights(network: nn.Module, checkpoint: Path) -> None:
    """The learning weights of `checkpoint` into `network`; ArtifactError where they do not fit it."""
    try:
        stored = load_file(checkpoint / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{checkpoint}: damaged ({error}); remove this folder to go on from the checkpoint before it") from error
    settle(network)
    learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if stored.keys() != learning.keys() or any(stored[name].shape != getattr(p, "ds_shape", p.shape) for name, p in learning.items()):
        raise ArtifactError(
            f"{checkpoint}: was written with other options (model, tuning, head or labels); resume with the options it began with"
        )
    with torch.no_grad():
        for name, parameter in learning.items():
            put(parameter, stored[name])


def save_spread_optimizer(optimizer: Any, scheduler: Any, parts: Sequence[dict[str, Any]], folder: Path, *, writes: bool) -> None:
    """As torch saves an optimiser that is not spread, and its schedule. `parts`: DeepSpeed's parameter groups, as they were before it."""
    state = whole(optimizer.state_dict()) if spread_by() == "FSDP" else zero.optimizer_state(optimizer, parts)
    if writes:
        torch.save(state, folder / OPTIMIZER_NAME)
        torch.save(scheduler.state_dict(), folder / SCHEDULER_NAME)


def load_spread_optimizer(optimizer: Any, scheduler: Any, parts: Sequence[dict[str, Any]], folder: Path) -> None:
    """Back from these files, into every process its part."""
    state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
    if spread_by() == "DEEPSPEED":
        zero.load_optimizer_state(optimizer, parts, state)
    else:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(parameters):
            known = state["state"].get(number, {})
            known.update({name: own_part(value, parameter) for name, value in known.items() if name != "step"})
        optimizer.load_state_dict(state)
    scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))

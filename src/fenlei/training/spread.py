"""Weights spread over processes: each keeps a part of every weight, its gradient and its optimiser state, and borrows the rest in its turn.

torch's `fully_shard` (FSDP2) or DeepSpeed (ZeRO), as accelerate sets them up from the environment that `accelerate launch` makes. What is
saved is whole: the files of a checkpoint are those of a training in one process, so it resumes in any number of processes, spread or not.
"""

from __future__ import annotations

import os
from typing import Any, Literal, TypeVar

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from fenlei.config import RunConfig
from fenlei.errors import ConfigError
from fenlei.models.devices import Precision
from fenlei.text.windows import WINDOWED
from fenlei.training import zero

Network = TypeVar("Network", bound=nn.Module)


def spread_by() -> Literal["FSDP", "DEEPSPEED"] | None:
    """What spreads this training's weights, by how it was launched."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return "FSDP" if _asked("ACCELERATE_USE_FSDP") else "DEEPSPEED" if _asked("ACCELERATE_USE_DEEPSPEED") else None


def check_launch() -> None:
    """ConfigError where what launched this training asks for something that fenlei does otherwise."""
    asked = _asked("ACCELERATE_USE_FSDP") or _asked("ACCELERATE_USE_DEEPSPEED")
    if asked and int(os.environ.get("WORLD_SIZE", "1")) == 1:  # accelerate would spread all the same, and every group become a step
        raise ConfigError("one process spreads nothing: give --num_processes 2 or more, or launch without FSDP and DeepSpeed")
    by = spread_by()
    if by is None:
        return
    if by == "FSDP" and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("FSDP 1 is not supported; set fsdp_version: 2 in the configuration, see examples/accelerate_fsdp.yaml")
    if by == "FSDP" and _asked("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError("fsdp_offload_params is not supported; set it to false: --gradient-checkpointing and more processes save memory")
    if by == "FSDP" and _asked("FSDP_ACTIVATION_CHECKPOINTING"):
        raise ConfigError("fsdp_activation_checkpointing is not supported; set it to false: fenlei's own is --gradient-checkpointing")
    for name in ("FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_DEEPSPEED_ZERO3_INIT"):
        if _asked(name):
            raise ConfigError(f"{name} leaves weights out that fenlei needs at the start; set it to false, see examples/")
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        raise ConfigError('mixed_precision would round the head as well; set it to "no": fenlei chooses the number formats itself')


def check_options(config: RunConfig, precision: Precision) -> None:
    """ConfigError where an option asks for what needs the whole network in every process, or forward passes that are not in step."""
    by = spread_by()
    if by is None:
        return
    model = config.model
    if by == "DEEPSPEED":
        zero.check_configuration(model.method)
    wrong = {
        f"tuning {model.tuning!r}": model.tuning not in ("full", "lora"),
        f"long {model.long!r}": model.long in WINDOWED,
        "prior_correction": bool(model.prior_correction),
        "int8": config.optimization.int8,
        "memory": config.optimization.memory is not None,
        "float16, for want of bfloat16 on this device": precision.autocast == torch.float16,
    }
    found = [name for name, asked in wrong.items() if asked]
    if found:
        raise ConfigError(
            f"{', '.join(found)}: not where weights are spread over processes (FSDP, DeepSpeed); choose otherwise, or launch with "
            "torchrun, where every process holds the whole network"
        )


def place(network: Network, device: torch.device) -> Network:
    """On the device, unless each process will take its part there: the whole may not fit."""
    return network.to(device) if spread_by() is None else network


def blocks(network: PreTrainedModel) -> list[str]:
    """Classes of the network's layers, each of which is borrowed as one."""
    there = {type(module).__name__ for module in network.modules()}
    return sorted(there & set(network._no_split_modules or ()))


def spread_on_cpu(state: Any) -> None:
    """Has accelerate spread weights over CPUs too: by itself it does so over accelerators alone, while torch makes no difference."""
    if state.distributed_type == "MULTI_CPU":
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = type(state.distributed_type).FSDP


def settle(network: nn.Module) -> None:
    """Gives back what was borrowed for the last forward pass, so that the weights are those that learn."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Any) -> Any:
    """`value` with every tensor in it whole and in main memory; all processes have to ask."""
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    if isinstance(value, torch.Tensor):
        with zero.gathered(value):
            full = value.full_tensor() if isinstance(value, DTensor) else value
            return full.detach().to("cpu", copy=hasattr(value, "ds_id")).contiguous()
    return value


def put(weight: torch.Tensor, value: torch.Tensor) -> None:
    """A whole value, which every process has, in the place of a weight that may be spread."""
    if spread_by() == "DEEPSPEED" and hasattr(weight, "_z3_optimizer" if hasattr(weight, "ds_id") else "_hp_mapping"):
        zero.put(weight, value)
    else:
        weight.copy_(own_part(value, weight))


def own_part(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Of a whole tensor that every process has: what this one keeps of it, where `like` is spread."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device, like.dtype), like.device_mesh, like.placements, src_data_rank=None)


def make_whole(network: nn.Module, keep: bool) -> None:
    """Puts whole weights in main memory where the parts were (without `keep`: none), so that the network can be saved."""
    settle(network)
    if spread_by() == "DEEPSPEED":
        zero.forget()
    done: dict[nn.Parameter, nn.Parameter] = {}  # shared weights stay shared
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.__class__ = type(module).__bases__[1]  # what it was: as what it is, it would look for its parts in every `to`
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight not in done:
                full = whole(weight)
                done[weight] = nn.Parameter(full if keep else full.to("meta"), requires_grad=weight.requires_grad)
            module._parameters[name] = done[weight]


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")

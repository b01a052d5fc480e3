"""Where the network runs and in which number format, each choice with its reason; what is said where it does not fit, and what a
pass that is computed again draws its random numbers from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import get_args

import torch

from fenlei.config import Device
from fenlei.errors import ConfigError, ModelError, first_line

SMALL_MODEL_PARAMETERS = 20_000_000
"""Below this a forward pass is bound by call overhead, not by matrix products: bfloat16 would cost accuracy and win nothing."""

BATCH_TOKENS = 8192
"""Tokens a forward pass in prediction: beyond a few thousand the matrix products gain nothing more."""
GPU_BATCH_TOKENS = 16_384
"""On a GPU, for prediction and at most for training: below, half a billion parameters compute faster than their kernels are launched."""
LARGER = "take --device cpu, or a machine with more memory"
"""The ways out where what is loaded does not fit."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Precision:
    """Number formats of the frozen weights and of the matrix products."""

    weights: torch.dtype
    """Of weights that do not learn. Weights that learn are always float32: bfloat16 ones lose small updates."""
    autocast: torch.dtype | None
    """What float32 matrix products are computed in while training; None: as they are."""
    reason: str


def pick_device(device: Device) -> tuple[torch.device, str]:
    """The device and why; ConfigError where the one asked for is not there, or is none of ours."""
    if device not in get_args(Device):
        known = ", ".join(get_args(Device))
        raise ConfigError(f"device must be one of {known}, was {device!r}; CUDA_VISIBLE_DEVICES chooses among several")
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "npu": hasattr(torch, "npu") and torch.npu.is_available(),
    }
    if device == "auto":
        found = next((name for name in ("cuda", "npu", "mps") if there[name]), "cpu")
        return torch.device(found), f"device {found}: " + ("the fastest one here" if found != "cpu" else "no accelerator found")
    if device != "cpu" and not there[device]:
        raise ConfigError(f"device {device!r} is not available to this PyTorch ({torch.__version__}); use --device auto or cpu")
    return torch.device(device), f"device {device}: as asked"


def tokens_at_once(device: torch.device) -> int:
    """Tokens that go through a network together in prediction."""
    return GPU_BATCH_TOKENS if device.type == "cuda" else BATCH_TOKENS


def pick_precision(device: torch.device, parameters: int) -> Precision:
    """bfloat16 where the hardware multiplies it faster than float32, float16 on older GPUs, else float32."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, torch.bfloat16, "bfloat16: this GPU computes it")
        return Precision(torch.float16, torch.float16, "float16: this GPU is older than bfloat16")
    if device.type == "npu":
        return Precision(torch.bfloat16, torch.bfloat16, "bfloat16: this NPU computes it")
    if device.type == "cpu" and _cpu_computes_bfloat16():
        if parameters < SMALL_MODEL_PARAMETERS:
            return Precision(torch.float32, torch.bfloat16, "float32 weights, trained in bfloat16 products: a small model")
        return Precision(torch.bfloat16, torch.bfloat16, "bfloat16: this CPU has instructions for it")
    return Precision(torch.float32, None, f"float32: {device.type} without fast bfloat16")


def _cpu_computes_bfloat16() -> bool:
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says so, on a GPU or in main memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


@contextmanager
def fitting(device: torch.device, ways_out: str, what: str = "the network") -> Iterator[None]:
    """Memory that runs out within it, of `what`, is a ModelError that names the ways out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"{what} does not fit the memory of device {device.type} ({first_line(error)}); {ways_out}") from error


def same_dice(device: torch.device) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What a pass on `device` runs within, and what it runs within when the backward pass computes it again (`context_fn` of torch's
    checkpoint), so that both drop out the same. Torch sees to that itself but for MPS, whose random numbers it does not set back.
    """
    again: AbstractContextManager[None] = nullcontext()
    if device.type == "mps":
        again = _drawing_from(torch.mps.get_rng_state())
    return nullcontext(), again


@contextmanager
def _drawing_from(state: torch.Tensor) -> Iterator[None]:
    """Random numbers of MPS are those that came after `state`; afterwards they go on as if nothing had been drawn."""
    now = torch.mps.get_rng_state()
    torch.mps.set_rng_state(state)
    try:
        yield
    finally:
        torch.mps.set_rng_state(now)

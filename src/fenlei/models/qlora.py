"""A backbone in 4 bits for adapters to learn on (Dettmers et al. 2023, "QLoRA"), through bitsandbytes on CUDA.

What does not learn is kept as 4-bit NormalFloat with its scales quantised once more; products are computed in the usual format. The head
stays as it is, in float32: it learns.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from fenlei.errors import ConfigError


def check_four_bit(device: torch.device) -> None:
    """ConfigError where nothing computes in 4 bits."""
    if not computes_four_bit(device):
        lacking = f"device {device.type} is none" if device.type != "cuda" else "bitsandbytes is missing (pip install 'fenlei[qlora]')"
        raise ConfigError(f"tuning 'qlora' needs a CUDA device and bitsandbytes, and {lacking}; use --tuning lora")


def computes_four_bit(device: torch.device) -> bool:
    """Whether a backbone in 4 bits runs on `device`."""
    return device.type == "cuda" and importlib.util.find_spec("bitsandbytes") is not None


def four_bit(device: torch.device, dtype: torch.dtype, heads: list[str] | None) -> dict[str, Any]:
    """What `from_pretrained` is told besides, for linears of 4 bits that compute in `dtype`; those below `heads` stay as they are.

    They are whole names, for transformers looks for them at the start of a name and at its end, and nowhere else. None: of a language
    model, whose output projection it knows and leaves out by itself.
    """
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=heads,
    )
    return {"quantization_config": config, "device_map": {"": device}}

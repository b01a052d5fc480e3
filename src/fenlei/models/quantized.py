"""A backbone whose linears compute in 8-bit integers, for prediction on CPUs that multiply them faster than bfloat16.

Weights have one scale an output, activations one a token, found as it passes (Yao et al. 2022, "ZeroQuant"): the first tokens of a
decoder have states hundreds of times larger than the others, and must not set the scale of all. Sums are whole numbers, so that a row's
answer does not depend on the rows beside it. The products are oneDNN's, through PyTorch's own operators: nothing has to be installed.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.errors import ConfigError
from fenlei.models.backbone import head_modules

WEIGHT_LEVELS, LEVELS, ZERO = 127, 126, 128
"""Largest weight and activation as integers (one level is left to rounding in bfloat16), and what stands for 0: oneDNN reads activations
unsigned."""
LEAST_ACTIVATION = 1e-6
"""Below this a token's states count as 0."""


class Int8Linear(nn.Module):
    """`x W' + b` for x (..., in) of any float format, W int8; returns x's format."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / WEIGHT_LEVELS
        whole = torch.round(weight / scale[:, None]).to(torch.int8)
        self.out_features, self.in_features = weight.shape
        self._packed = cast(Any, torch.ops.onednn).qlinear_prepack(whole, None)
        self.register_buffer("_scale", scale, persistent=False)
        self.register_buffer("_zero", torch.zeros(len(scale), dtype=torch.int32), persistent=False)
        self.register_buffer("_bias", None if linear.bias is None else linear.bias.detach().clone(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        flat = x.reshape(-1, x.shape[-1])
        steps = LEVELS / flat.abs().amax(dim=1, keepdim=True).clamp_min(LEAST_ACTIVATION)
        whole = (flat * steps).round_().add_(ZERO).to(torch.uint8)
        out = cast(Any, torch.ops.onednn).qlinear_pointwise(
            whole, 1.0, ZERO, self._packed, self._scale, self._zero, None, 1.0, 0, x.dtype, "none", [], ""
        )
        out = out.div_(steps) if self._bias is None else out.div_(steps).add_(self._bias)
        return cast(torch.Tensor, out.view(*x.shape[:-1], self.out_features))


def quantize_linears(network: PreTrainedModel) -> int:
    """Puts an Int8Linear in the place of every linear of the backbone, in float32 or not; returns how many. The head stays as it is.

    ConfigError where this machine does not multiply 8-bit integers: without VNNI the sums may overflow, on a GPU bfloat16 is the fast way.
    """
    device = next(network.parameters()).device
    if device.type != "cpu" or not torch.cpu._is_vnni_supported():
        where = f"device {device.type}" if device.type != "cpu" else "this CPU"
        raise ConfigError(f"int8 prediction needs a CPU with VNNI (x86 since 2019), and {where} is none; predict without int8")
    heads = tuple(f"{name}." for name in head_modules(network))
    found = [name for name, module in network.named_modules() if type(module) is nn.Linear and not f"{name}.".startswith(heads)]
    for name in found:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, Int8Linear(cast(nn.Linear, network.get_submodule(name))))
    return len(found)

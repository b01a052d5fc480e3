"""A LoRA linear in three matrix products and no pass over a full-width tensor besides.

PEFT computes `W x + s * B(A(x))` as separate steps: the product of B is written out, scaled and added, and float32 adapters have every
activation cast up and down. Here the scale is folded into the small factor, the low-rank product is accumulated in place (`addmm`), and
float32 adapters are cast to the activations' format, which is thousands of times smaller than casting the activations. PEFT keeps
owning the weights: names, saving, loading and merging are untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn


class LoraLinear(torch.autograd.Function):
    """`x W' + b + (x A') (s B)'` for x (rows, in), W (out, in), A (rank, in), B (out, rank)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor, up: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Returns (rows, out) in x's format; A and B may be in another."""
        down_cast, up_scaled = down.to(x.dtype), (up * scale).to(x.dtype)
        hidden = x @ down_cast.T
        out = torch.nn.functional.linear(x, weight, bias)
        out.addmm_(hidden, up_scaled.T)
        ctx.save_for_backward(x, weight, hidden, down_cast, up_scaled)
        ctx.scale, ctx.adapter_dtype = scale, down.dtype
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of x, A and B; W and b do not learn."""
        x, weight, hidden, down, up_scaled = ctx.saved_tensors
        gradient = gradients[0]
        of_hidden = gradient @ up_scaled
        of_up = (gradient.T @ hidden).to(ctx.adapter_dtype) * ctx.scale
        of_down = (of_hidden.T @ x).to(ctx.adapter_dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            of_x.addmm_(of_hidden, down)
        return of_x, None, None, of_down, of_up, None


def fuse_lora(network: nn.Module) -> int:
    """Gives every plain LoRA linear in `network` the fused forward; returns how many.

    Left as they are: layers with dropout on the adapter's input, quantised base layers, DoRA and other variants.
    """
    fused = 0
    for module in network.modules():
        if _is_plain(module):
            cast(Any, module).forward = _fused_forward(module)
            fused += 1
    return fused


def _is_plain(module: nn.Module) -> bool:
    layer = cast(Any, module)
    if not (hasattr(module, "lora_A") and type(getattr(module, "base_layer", None)) is nn.Linear):
        return False
    adapters = list(layer.lora_A)
    return (
        adapters == ["default"]
        and isinstance(layer.lora_dropout["default"], nn.Identity)
        and not layer.lora_variant
        and layer.lora_B["default"].bias is None
        and not layer.base_layer.weight.requires_grad
    )


def _fused_forward(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    layer = cast(Any, module)

    def forward(x: torch.Tensor) -> torch.Tensor:
        base, device = layer.base_layer, x.device.type
        flat, weight, bias = x.reshape(-1, x.shape[-1]), base.weight, base.bias
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            flat, weight, bias = flat.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            out = cast(torch.Tensor, cast(Any, LoraLinear).apply(flat, weight, bias, down, up, layer.scaling["default"]))
        return out.view(*x.shape[:-1], out.shape[-1])

    return forward

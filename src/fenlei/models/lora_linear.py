"""A LoRA linear in three matrix products and no pass over a full-width tensor besides.

PEFT computes `W x + s * B(A(x))` as separate steps: the product of B is written out, scaled and added, and float32 adapters have every
activation cast up and down. Here the scale is folded into the small factor, the low-rank product is accumulated in place (`addmm`), and
float32 adapters are cast to the activations' format, which is thousands of times smaller than casting the activations. PEFT keeps
owning the weights: names, saving, loading and merging are untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import nn

MOST_LOST = 0.25
"""Of an adapter, by Frobenius norm: where rounding to the weights' format would take more, it stays beside them."""


class FrozenProduct(Protocol):
    """`x W' + b` for weights that do not learn."""

    def of_input(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""

    def of_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """Of the output, (rows, out), to that of the input, (rows, in)."""

    def for_gradient(self) -> FrozenProduct:
        """What `of_gradient` needs, and nothing that need not be kept until then."""


@dataclass(frozen=True)
class PlainProduct:
    """In the format of its weights."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def of_input(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def of_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient @ self.weight

    def for_gradient(self) -> PlainProduct:
        return self


class LoraLinear(torch.autograd.Function):
    """`x W' + b + (r A') (s B)'` for x (rows, in), W (out, in), A (rank, in), B (out, rank); r is x, or x after dropout."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, dropped: torch.Tensor | None, base: FrozenProduct, down: torch.Tensor, up: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Returns (rows, out) in x's format; A and B may be in another. `dropped`: x after dropout, None where there is none."""
        down_cast, up_scaled, read = down.to(x.dtype), (up * scale).to(x.dtype), x if dropped is None else dropped
        hidden = read @ down_cast.T
        out = base.of_input(x)
        out.addmm_(hidden, up_scaled.T)
        ctx.save_for_backward(read, hidden, down_cast, up_scaled)
        ctx.base, ctx.scale, ctx.adapter_dtype, ctx.drops = base.for_gradient(), scale, down.dtype, dropped is not None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of x, x after dropout, A and B; W and b do not learn."""
        read, hidden, down, up_scaled = ctx.saved_tensors
        gradient = gradients[0]
        of_hidden = gradient @ up_scaled
        of_up = (gradient.T @ hidden).to(ctx.adapter_dtype) * ctx.scale
        of_down = (of_hidden.T @ read).to(ctx.adapter_dtype)
        of_x, of_dropped = None, None
        if ctx.needs_input_grad[0]:
            of_x = ctx.base.of_gradient(gradient)
            if ctx.drops:
                of_dropped = of_hidden @ down
            else:
                of_x.addmm_(of_hidden, down)
        return of_x, of_dropped, None, of_down, of_up, None


def fuse_lora(network: nn.Module) -> int:
    """Gives every plain LoRA linear in `network` the fused forward; returns how many.

    Left as they are: quantised base layers, DoRA and other variants.
    """
    fused = 0
    for _, module in plain_lora_linears(network):
        cast(Any, module).forward = _fused_forward(module)
        fused += 1
    return fused


def fold_adapters(network: nn.Module) -> int:
    """Adds the adapters into the weights they stand beside, for prediction; returns how many.

    A linear is left as it is where its weights' format would round away more than MOST_LOST of the adapter: bfloat16 keeps 8 bits, and
    what is smaller than half of the last one vanishes altogether.
    """
    folded = 0
    for name, module in list(plain_lora_linears(network)):
        layer = cast(Any, module)
        weight = layer.base_layer.weight.data
        change = layer.scaling["default"] * (layer.lora_B["default"].weight.data.float() @ layer.lora_A["default"].weight.data.float())
        kept = (weight.float() + change).to(weight.dtype)
        if (kept.float() - weight.float() - change).norm() > MOST_LOST * change.norm():
            continue
        layer.base_layer.weight.data = kept
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer.base_layer)
        folded += 1
    return folded


def plain_lora_linears(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and layer of every LoRA linear that is nothing more than that."""
    return ((name, module) for name, module in network.named_modules() if _is_plain(module))


def _is_plain(module: nn.Module) -> bool:
    layer = cast(Any, module)
    if not (hasattr(module, "lora_A") and type(getattr(module, "base_layer", None)) is nn.Linear):
        return False
    adapters = list(layer.lora_A)
    return (
        adapters == ["default"]
        and isinstance(layer.lora_dropout["default"], (nn.Identity, nn.Dropout))
        and not layer.lora_variant
        and layer.lora_B["default"].bias is None
        and not layer.base_layer.weight.requires_grad
    )


def _fused_forward(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    layer = cast(Any, module)

    def forward(x: torch.Tensor) -> torch.Tensor:
        base, device = layer.base_layer, x.device.type
        flat, weight, bias = x.reshape(-1, x.shape[-1]), base.weight, base.bias
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            flat, weight, bias = flat.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return with_adapter(layer, flat, PlainProduct(weight, bias)).view(*x.shape[:-1], weight.shape[0])

    return forward


def with_adapter(layer: Any, flat: torch.Tensor, base: FrozenProduct) -> torch.Tensor:
    """`base` of x (rows, in), and the adapter of the LoRA linear `layer` beside it: (rows, out)."""
    down, up, dropout = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.lora_dropout["default"]
    dropped = dropout(flat) if dropout.training and isinstance(dropout, nn.Dropout) else None
    with torch.autocast(flat.device.type, enabled=False):
        return cast(torch.Tensor, cast(Any, LoraLinear).apply(flat, dropped, base, down, up, layer.scaling["default"]))

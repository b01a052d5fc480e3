"""Linears that multiply in 8-bit integers, on x86 CPUs, faster than in a float format: where no weight of theirs learns.

Weights have one scale an output, activations one a token, found as it passes (Yao et al. 2022, "ZeroQuant"): the first tokens of a
decoder have states hundreds of times larger than the others, and must not set the scale of all. Sums are whole numbers, so that a row's
answer does not depend on the rows beside it. The products are oneDNN's, through PyTorch's own operators: nothing has to be installed.
In training the gradient of a frozen linear's input is such a product too, while what learns keeps its format (Wortsman et al. 2023,
"Stable and low-precision training for large-scale vision-language models", SwitchBack).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.errors import ConfigError
from fenlei.models.backbone import head_modules
from fenlei.models.lora_linear import plain_lora_linears, with_adapter

LEVELS, ZERO = 126, 128
"""Largest activation as an integer (one level is left to rounding in bfloat16), and what stands for 0: oneDNN reads activations
unsigned."""
WEIGHT_LEVELS, NARROW_WEIGHT_LEVELS = 127, 63
"""Largest weight as an integer, with VNNI and without. Without it a processor adds two products in 16 bits, and cuts off what is above: 255
times 63, twice, is just below that; with 127 levels sums are wrong without a word."""
LEAST_ROW = 1e-30
"""A row whose largest value is below this counts as 0."""
READ_BY_HAND = ("dt_proj",)
"""Linears of Mamba and its kin (Jamba), which multiply with the weight by themselves: they keep it."""
ROWS_AT_ONCE = 1024
"""Rows quantised, multiplied and scaled before the next ones: what lies between the three stays in the processor's cache."""

WHOLE = {torch.bfloat16: (torch.int16, 0x7FFF), torch.float16: (torch.int16, 0x7FFF), torch.float32: (torch.int32, 0x7FFFFFFF)}
"""The whole numbers of the same width, and all their bits but the sign."""


@dataclass(frozen=True)
class Int8Rows:
    """A matrix (rows, in) as integers, in parts of ROWS_AT_ONCE rows."""

    parts: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """uint8 (rows, in), and how many integers one is in each row, (rows, 1)."""
    dtype: torch.dtype
    """What the matrix was in, and products come in."""

    @classmethod
    def of(cls, x: torch.Tensor) -> Int8Rows:
        """X (rows, in) of any float format."""
        parts = []
        for rows in x.split(ROWS_AT_ONCE):
            steps = LEVELS / _largest(rows).clamp_min(LEAST_ROW)
            signed = (rows * steps).round_().to(torch.int8)
            parts.append((signed.view(torch.uint8).bitwise_xor_(ZERO), steps))  # turning the sign's bit over adds ZERO
        return cls(tuple(parts), x.dtype)


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """The largest absolute value of each row, (rows, 1).

    Without its sign's bit a float orders like the whole number of the same bits, and whole numbers are compared several times faster.
    """
    if rows.dtype not in WHOLE:
        return rows.abs().amax(dim=1, keepdim=True)
    kind, without_sign = WHOLE[rows.dtype]
    return (rows.contiguous().view(kind) & without_sign).amax(dim=1, keepdim=True).view(rows.dtype)


class InputOnce:
    """Quantises what several linears read (queries, keys and values; gate and up) once for all of them.

    Tensors of torch.inference_mode do not count their changes, and are quantised each time.
    """

    def __init__(self) -> None:
        self._last: tuple[weakref.ref[torch.Tensor], int, Int8Rows] | None = None

    def __call__(self, x: torch.Tensor, dtype: torch.dtype) -> Int8Rows:
        """X (..., in), its rows taken as `dtype`."""
        last = self._last  # read once: another thread may write it
        version = -1 if x.is_inference() else x._version
        if last and last[0]() is x and last[1] == version >= 0 and last[2].dtype == dtype:
            return last[2]
        rows = Int8Rows.of(x.detach().reshape(-1, x.shape[-1]).to(dtype))
        self._last = (weakref.ref(x), version, rows)
        return rows


class Int8Weight:
    """W (out, in), packed for products `x W'`."""

    def __init__(self, weight: torch.Tensor) -> None:
        exact = weight.detach().float()
        levels = WEIGHT_LEVELS if torch.cpu._is_vnni_supported() else NARROW_WEIGHT_LEVELS
        self._scale = exact.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / levels
        whole = torch.round(exact / self._scale[:, None]).to(torch.int8).contiguous()  # packing takes no strides
        self._packed = cast(Any, torch.ops.onednn).qlinear_prepack(whole, None)
        self._zero = torch.zeros(len(self._scale), dtype=torch.int32)

    def product(self, rows: Int8Rows, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(rows, out) in the rows' own format."""
        count = sum(len(whole) for whole, _ in rows.parts)
        out = torch.empty(count, len(self._scale), dtype=rows.dtype)
        for (whole, steps), part in zip(rows.parts, out.split(ROWS_AT_ONCE), strict=True):
            sums = cast(Any, torch.ops.onednn).qlinear_pointwise(
                whole, 1.0, ZERO, self._packed, self._scale, self._zero, None, 1.0, 0, rows.dtype, "none", [], ""
            )
            torch.div(sums, steps, out=part)
        return out if bias is None else out.add_(bias)


class Int8Linear(nn.Module):
    """`x W' + b` for x (..., in) of any float format; returns x's format. For prediction, and for a backbone that is frozen."""

    def __init__(self, linear: nn.Linear, quantize: InputOnce) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self._weight, self._quantize = Int8Weight(linear.weight), quantize
        self.register_buffer("_bias", None if linear.bias is None else linear.bias.detach().clone(), persistent=False)
        self.weight = torch.empty(0, dtype=torch.int8)  # T5 asks whether it is of another format than what is to be multiplied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        with torch.no_grad():
            out = self._weight.product(self._quantize(x, x.dtype), cast("torch.Tensor | None", self._bias))
        return out.view(*x.shape[:-1], self.out_features)


@dataclass(frozen=True)
class Int8Product:
    """A frozen linear on one input, forward and back (lora_linear.FrozenProduct)."""

    forward: Int8Weight
    back: Int8Weight
    """Of the weights turned over."""
    bias: torch.Tensor | None
    rows: Int8Rows | None
    """The input; None behind the forward pass."""

    def of_input(self, x: torch.Tensor) -> torch.Tensor:
        assert self.rows is not None, "the forward pass is over"
        return self.forward.product(self.rows, self.bias)

    def of_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        return self.back.product(Int8Rows.of(gradient))

    def for_gradient(self) -> Int8Product:
        return replace(self, rows=None)


def quantize_linears(network: PreTrainedModel) -> int:
    """Puts an Int8Linear in the place of every linear of the backbone, in float32 or not; returns how many. The head stays as it is.

    ConfigError where this machine does not multiply 8-bit integers (on a GPU bfloat16 is the fast way), or there is no such linear.
    """
    _require_x86(network)
    quantize = InputOnce()
    return _some(replace_linears(network, lambda linear: Int8Linear(linear, quantize)))


def replace_linears(network: PreTrainedModel, made: Callable[[nn.Linear], nn.Module]) -> int:
    """Puts what is `made` of it in the place of every linear of the backbone but those READ_BY_HAND; returns how many.

    The head stays as it is.
    """
    heads = tuple(f"{name}." for name in head_modules(network))
    linears = [name for name, module in network.named_modules() if type(module) is nn.Linear and not name.endswith(READ_BY_HAND)]
    found = [name for name in linears if not f"{name}.".startswith(heads)]
    for name in found:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, made(cast(nn.Linear, network.get_submodule(name))))
    return len(found)


def quantize_below_adapters(network: nn.Module) -> int:
    """Makes the frozen weights beside LoRA adapters 8-bit integers and frees them, for training; returns how many. Errors as above."""
    _require_x86(network)
    quantize, found = InputOnce(), 0
    for name, module in plain_lora_linears(network):
        if name.endswith(READ_BY_HAND):
            continue
        module.forward = _int8_forward(module, quantize)
        cast(Any, module).base_layer.weight.data = torch.empty(0)
        found += 1
    return _some(found)


def _some(linears: int) -> int:
    if not linears:
        raise ConfigError("int8: the model has no linear layers that could be put into 8 bits; leave int8 out")
    return linears


def _int8_forward(module: nn.Module, quantize: InputOnce) -> Callable[[torch.Tensor], torch.Tensor]:
    layer = cast(Any, module)
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    forward_weight, back_weight = Int8Weight(weight), Int8Weight(weight.T)
    out_features = len(weight)

    def forward(x: torch.Tensor) -> torch.Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        base = Int8Product(forward_weight, back_weight, bias, quantize(x, dtype))
        return with_adapter(layer, flat, base).view(*x.shape[:-1], out_features)

    return forward


def computes_int8(device: torch.device) -> bool:
    """Whether products of 8-bit integers are to be had there."""
    # What PyTorch calls the widest instructions it uses: DEFAULT, AVX2, AVX512, or names of other processors.
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def _require_x86(network: nn.Module) -> None:
    device = next(network.parameters()).device
    if not computes_int8(device):
        where = f"device {device.type}" if device.type != "cpu" else "this CPU"
        raise ConfigError(
            f"int8 needs an x86 CPU with AVX2 (since 2013; with VNNI it is fastest), and {where} is none; leave int8 out, "
            "or give --no-int8 (from Python int8=False) to extend a run that was trained with it"
        )

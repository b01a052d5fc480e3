"""A run's network as one ONNX graph of standard operators: token ids and mask in, calibrated logits out, for any number of rows and tokens.

In 8-bit integers the backbone's linears have one scale an output, and activations one a token, found as it passes, as in
models/quantized.py: the scale of a whole batch, which ONNX Runtime's own dynamic quantisation takes, is that of a few tokens whose states
are hundreds of times larger than the others, and costs most of the accuracy.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.errors import ConfigError, first_line
from fenlei.evaluation.calibration import Calibration
from fenlei.models.attention import NAME as SHORT_ROWS
from fenlei.models.attention import sees_all
from fenlei.models.backbone import head_modules, is_decoder
from fenlei.models.quantized import replace_linears

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
LEVELS, ZERO = 127, 128
"""The largest whole number, and what stands for 0. Activations and weights are unsigned both: unsigned by signed, x86 without VNNI adds two
products in 16 bits and cuts off what is above, and nobody knows which machine will read the file."""
LEAST_ACTIVATION = 1e-6


class ClassifierGraph(nn.Module):
    """What is exported: (rows, tokens) ids and mask to float32 (rows, labels), calibrated."""

    def __init__(self, network: PreTrainedModel, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        labels = int(network.config.num_labels or 0)
        self.register_buffer("scale", torch.tensor(calibration.scale or [1 / calibration.temperature] * labels))
        self.register_buffer("bias", torch.tensor(calibration.bias or [0.0] * labels))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The last real token is found from the mask, as in models/head.py; decoders need it for nothing else."""
        network = cast(Any, self.network)
        if not is_decoder(self.network):
            logits = network(input_ids=input_ids, attention_mask=attention_mask).logits
        else:
            seen = attention_mask if sees_all(network.config) else None
            states = network.base_model(input_ids=input_ids, attention_mask=seen, use_cache=False).last_hidden_state
            last = attention_mask.sum(dim=1) - 1
            logits = network.score(states[torch.arange(states.shape[0]), last])
        return cast(torch.Tensor, logits * cast(torch.Tensor, self.scale) + cast(torch.Tensor, self.bias))


class Int8Linear(nn.Module):
    """`x W' + b` as MatMulInteger, for export alone: torch cannot run it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / LEVELS
        self.register_buffer("weight", (torch.round(weight / scale[:, None]) + ZERO).to(torch.uint8).T.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.tensor(ZERO, dtype=torch.uint8))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        step = x.abs().amax(dim=-1, keepdim=True).clamp_min(LEAST_ACTIVATION) / LEVELS
        whole = (torch.round(x / step) + ZERO).to(torch.uint8)
        weight, zero = cast(torch.Tensor, self.weight), cast(torch.Tensor, self.zero)
        product = torch.onnx.ops.symbolic(
            "MatMulInteger", (whole, weight, zero, zero), dtype=torch.int32, shape=(*x.shape[:-1], weight.shape[1])
        )
        # One after the other: ONNX Runtime takes a product of both for a tensor's one scale, and fuses it with that of the first token.
        out = product.to(torch.float32) * cast(torch.Tensor, self.scale) * step
        return out if self.bias is None else out + cast(torch.Tensor, self.bias)


def write_graph(network: PreTrainedModel, calibration: Calibration, path: Path, *, int8: bool) -> None:
    """`network`, in float32 and evaluation mode, to `path`, its weights to a file beside it. The network is not to be used afterwards.

    ConfigError where its operators have no counterpart.
    """
    if network.config._attn_implementation == SHORT_ROWS:
        network.set_attn_implementation("sdpa")
    for module in head_modules(network).values():
        module.__dict__.pop("forward", None)  # models/head.py has wrapped it, to leave autocast, which a graph has not
    if int8:
        replace_linears(network, Int8Linear)
    graph = ClassifierGraph(network, calibration).eval()
    ids = torch.tensor([[1, 2, 3], [1, 2, 0]])
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet():
        try:
            made: Any = torch.onnx.export(
                graph,
                (ids, torch.tensor([[1, 1, 1], [1, 1, 0]])),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=dict.fromkeys(INPUTS, sizes),
                verbose=False,
            )
        except RuntimeError as error:  # torch's OnnxExporterError is one
            kind = network.config.model_type
            raise ConfigError(f"models of type {kind!r} cannot be written as ONNX ({first_line(error)}); use --format merged") from error
        made.save(str(path), external_data=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter tells its developers: packages that are not there, names that will change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

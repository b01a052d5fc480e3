"""The network, its head and its adapters, ready to learn: what `model`, `tuning` and `method` ask for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fenlei.config import RunConfig
from fenlei.config.model import ADAPTERS
from fenlei.data.splits import Dataset
from fenlei.errors import ConfigError
from fenlei.models.backbone import checkpoint_activations, load_language_model, load_network
from fenlei.models.devices import Precision
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod, MlpHead, freeze_backbone, install_head
from fenlei.models.lora import add_lora
from fenlei.models.passages import choose_pooling
from fenlei.models.qlora import four_bit
from fenlei.training.spread import spread_by


def build_method(
    config: RunConfig, base: Path, dataset: Dataset, pad_id: int, precision: Precision, head: nn.Module | None, device: torch.device
) -> tuple[HeadMethod | GenerateMethod, str | None]:
    """The method, on the CPU, and the kind of its head: linear, mlp or custom; None for generate.

    ConfigError for a `head` given to generate.
    """
    if config.model.method == "generate":
        if head is not None:
            raise ConfigError("a head of your own belongs to method head; generate answers with the language model itself")
        return _build_generate(config, base, pad_id, precision, device), None
    tuning = config.model.tuning
    dtype = network_format(config, precision)
    problem_type = dataset.labelling.problem_type
    quantised = partial(four_bit, device, dtype) if tuning == "qlora" else None
    network: Any = load_network(
        base, dataset.labels, pad_id, layers=config.model.layers, dtype=dtype, problem_type=problem_type, quantised=quantised
    )
    kind: str = config.model.head
    hidden = network.config.get_text_config().hidden_size
    if head is not None:
        kind = "custom"
        install_head(network, head)
    elif kind == "mlp":
        install_head(network, MlpHead(hidden, len(dataset.labels)))
    if config.optimization.gradient_checkpointing:
        checkpoint_activations(network, device)
    if tuning in ADAPTERS:
        network = add_lora(network, config.model)
    elif tuning == "frozen":
        freeze_backbone(network)
    return HeadMethod(network, pad_id, choose_pooling(config.model.long or "truncate", hidden)), kind


def _build_generate(config: RunConfig, base: Path, pad_id: int, precision: Precision, device: torch.device) -> GenerateMethod:
    tuning = config.model.tuning
    dtype = network_format(config, precision)
    quantised = partial(four_bit, device, dtype) if tuning == "qlora" else None
    network: Any = load_language_model(base, pad_id, layers=config.model.layers, dtype=dtype, quantised=quantised)
    if config.optimization.gradient_checkpointing:
        checkpoint_activations(network, device)
    if tuning in ADAPTERS:
        network = add_lora(network, config.model)
    elif tuning == "none":
        network.requires_grad_(False)
    correct = config.model.prior_correction
    return GenerateMethod(network, pad_id, correct_prior=tuning == "none" if correct is None else correct)


def training_autocast(config: RunConfig, precision: Precision) -> torch.dtype | None:
    """What training computes its matrix products in, where the backbone's weights are float32 because they learn; None: in their own."""
    half = network_format(config, precision) == torch.bfloat16
    return None if half else precision.autocast


def network_format(config: RunConfig, precision: Precision) -> torch.dtype:
    """What the backbone's weights are in while it learns: float32 where they learn themselves, and with DeepSpeed, which takes no two."""
    return torch.float32 if config.model.tuning == "full" or spread_by() == "DEEPSPEED" else precision.weights

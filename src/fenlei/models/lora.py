"""Low-rank adapters (Hu et al. 2021, "LoRA") on a loaded network: put in, loaded, folded away. The only module that knows peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from fenlei.config import ModelConfig
from fenlei.errors import ArtifactError, ConfigError, first_line
from fenlei.models.backbone import head_modules
from fenlei.models.lora_linear import fuse_lora

ALL_LINEAR = "all-linear"

MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
READ_BY_KERNELS = ["conv1d", "out_proj"]
"""Parts of these architectures whose weights fused kernels read by themselves: an adapter would be passed by, so PEFT refuses them."""


def add_lora(network: PreTrainedModel, config: ModelConfig) -> torch.nn.Module:
    """`network` inside a PeftModel: adapters in float32 on the backbone's linears, the head trained whole."""
    from peft import LoraConfig, TaskType, get_peft_model

    targets: Any = config.lora_targets
    if targets != ALL_LINEAR:
        targets = [name.strip() for name in targets.split(",") if name.strip()]
    elif has_experts(network):
        targets = attention_linears(network)
    # PEFT by itself saves `classifier` and `score` alone; other layers of a head would come back at random.
    heads = [name.rpartition(".")[2] for name, module in head_modules(network).items() if any(True for _ in module.parameters())]
    writes = network.get_output_embeddings() is not None  # a language model keeps its head as it is
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM if writes else TaskType.SEQ_CLS,
        modules_to_save=None if writes else heads,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        exclude_modules=READ_BY_KERNELS if targets == ALL_LINEAR and network.config.model_type in MAMBA else None,
    )
    try:
        with _quiet_peft():
            adapted = get_peft_model(network, lora)
    except ValueError as error:
        raise ConfigError(f"lora_targets {config.lora_targets!r} do not fit this model: {first_line(error)}") from error
    fuse_lora(adapted)
    return adapted


def has_experts(network: PreTrainedModel) -> bool:
    """Whether it is a mixture of experts: their weights are kept as one tensor, (experts, out, in)."""
    return any(parameter.dim() == 3 and ".experts." in name for name, parameter in network.named_parameters())


def attention_linears(network: PreTrainedModel) -> list[str]:
    """Names of the linears of attention: what adapts in a mixture of experts.

    Adapters on every expert would be more weights than many a whole model has, each of which sees few rows, and an adapted router sends
    texts where nothing was learnt for them. PEFT takes `all-linear` for both.
    """
    linears = (name for name, module in network.base_model.named_modules() if isinstance(module, torch.nn.Linear) and "attn" in name)
    return sorted({name.rpartition(".")[2] for name in linears})


def load_lora(network: PreTrainedModel, folder: Path) -> torch.nn.Module:
    """`network` inside a PeftModel with the adapters and head stored in `folder`."""
    from peft import PeftModel

    missing = [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).exists()]
    if missing:
        raise ArtifactError(f"{folder}: {', '.join(missing)} missing; the folder is incomplete, restore it or train again")
    try:
        with _quiet_peft():
            # By itself PEFT reads them onto a GPU wherever there is one, be it in use or full.
            adapted = PeftModel.from_pretrained(network, str(folder), torch_device=str(network.device))
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{folder}: the adapter could not be loaded ({first_line(error)}); restore the folder or train again"
        ) from error
    fuse_lora(adapted)
    return adapted


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without what concerns its developers: it asks transformers for a setting by the name that it had."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def fold_lora(adapted: torch.nn.Module) -> PreTrainedModel:
    """The stock network with the adapters added into its weights, in float32: bfloat16 would round them away."""
    return adapted.float().merge_and_unload(safe_merge=True)  # type: ignore[no-any-return, operator]

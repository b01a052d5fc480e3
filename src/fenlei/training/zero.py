"""Weights spread over processes by DeepSpeed (ZeRO): what it keeps, read and set whole through its own functions.

The only module that knows deepspeed, which is an extra. Its engine takes the step within the backward pass; the optimiser is torch's AdamW,
so that what is saved is what a training in one process saves.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fenlei.errors import ConfigError

MOMENTS = ("exp_avg", "exp_avg_sq")
FILLED_IN = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": 1,
}
"""What Trainer puts into DeepSpeed's configuration, and what fenlei's own always is."""


def check_configuration(method: str) -> None:
    """ConfigError where DeepSpeed is not installed, or asked for what fenlei does otherwise."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("DeepSpeed is not installed; install it with: pip install 'fenlei[deepspeed]'")
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if not file:
        raise ConfigError("give DeepSpeed a configuration file, such as examples/deepspeed_zero2.json, as deepspeed_config_file")
    try:
        given = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as a DeepSpeed configuration ({error})") from error
    ours = [name for name in ("optimizer", "scheduler", "fp16", "bf16") if name in given]
    zero = given.get("zero_optimization", {})
    ours += [name for name in ("offload_optimizer", "offload_param") if name in zero]
    if ours:
        raise ConfigError(f"{file}: leave {', '.join(ours)} out, which fenlei has its own for, or does without")
    # Else Trainer compares them with its own, deep in the training, and speaks of options that fenlei does not have.
    numbers = [name for name, usual in FILLED_IN.items() if given.get(name, "auto") not in ("auto", usual)]
    if numbers:
        raise ConfigError(f'{file}: set {", ".join(numbers)} to "auto"; fenlei has --batch-size, --batch-tokens and --max-grad-norm for it')
    if zero.get("stage") not in (2, 3):
        raise ConfigError(f"{file}: expected zero_optimization with stage 2 or 3, found {zero.get('stage')!r}")
    if zero["stage"] == 3 and method == "generate":  # whose projection is computed again in the backward pass, outside of any module
        raise ConfigError("ZeRO 3 gathers weights module by module, which generate's projection is not read by; take ZeRO 2 or FSDP")


def set_up(plugin: Any, autocast: torch.dtype | None) -> None:
    """Number formats as with full tuning elsewhere: weights in float32 and exchanged so, matrix products in `autocast`."""
    if autocast is not None:
        dtype = str(autocast).removeprefix("torch.")
        plugin.deepspeed_config["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}


@contextmanager
def gathered(weight: torch.Tensor, *, change: bool = False) -> Iterator[torch.Tensor]:
    """Within it, the weight is whole, in all processes, which have to ask together; `change`: what the first makes of it is kept."""
    if not hasattr(weight, "ds_id"):  # ZeRO 2 leaves weights whole
        yield weight
        return
    from deepspeed import zero

    with zero.GatheredParameters([weight], modifier_rank=0 if change else None):
        yield weight


def put(weight: torch.Tensor, value: torch.Tensor) -> None:
    """A whole value in the place of a weight, and of what the optimiser keeps of it."""
    from deepspeed.utils import safe_set_full_fp32_param

    with gathered(weight, change=True):
        weight.copy_(value)
    safe_set_full_fp32_param(weight, value.to(weight.device))


def optimizer_state(optimizer: Any, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As AdamW gives it in one process, for parameters in these groups."""
    from deepspeed.utils import safe_get_full_optimizer_state

    known = _state_of_parts(optimizer)
    weights = [weight for group in groups for weight in group["params"]]
    state = {
        number: {"step": known[0]["step"].cpu().clone(), **{name: safe_get_full_optimizer_state(weight, name).cpu() for name in MOMENTS}}
        for number, weight in enumerate(weights)
    }
    numbers = iter(range(len(weights)))
    described = [
        {**now, "params": [next(numbers) for _ in group["params"]]} for now, group in zip(optimizer.param_groups, groups, strict=True)
    ]
    return {"state": state, "param_groups": described}


def load_optimizer_state(optimizer: Any, groups: Sequence[dict[str, Any]], state: dict[str, Any]) -> None:
    """The other way round."""
    from deepspeed.utils import safe_set_full_optimizer_state

    for known in _state_of_parts(optimizer):
        known["step"].copy_(state["state"][0]["step"])
    weights = [weight for group in groups for weight in group["params"]]
    for number, weight in enumerate(weights):
        for name in MOMENTS:
            safe_set_full_optimizer_state(weight, state["state"][number][name].to(weight.device), name)
    for now, before in zip(optimizer.param_groups, state["param_groups"], strict=True):
        now.update({key: value for key, value in before.items() if key != "params"})


def _state_of_parts(optimizer: Any) -> list[dict[str, Any]]:
    """What AdamW keeps of each of this process's parts, begun where no step was taken yet, and known to DeepSpeed's functions.

    ZeRO 2 of DeepSpeed 0.19 makes it known after the step of the first parameter group, when the others' is not there yet.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state

    while not hasattr(optimizer, "bit16_groups") and not hasattr(optimizer, "fp16_groups"):
        optimizer = optimizer.optimizer  # below what accelerate puts around it
    two = hasattr(optimizer, "single_partition_of_fp32_groups")
    parts = optimizer.single_partition_of_fp32_groups if two else optimizer.fp32_partitioned_groups_flat
    kept = optimizer.optimizer.state
    for number, part in enumerate(parts):
        if not kept[part]:
            step = torch.zeros((), dtype=torch.float32, device=part.device)
            kept[part].update(step=step, **{name: torch.zeros_like(part) for name in MOMENTS})
        if two:
            lazy_init_hp_params_optimizer_state(optimizer.bit16_groups[number], part, kept)
    return [kept[part] for part in parts]


def forget() -> None:
    """From here on networks are loaded whole: transformers would spread them as long as it remembers the configuration."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()

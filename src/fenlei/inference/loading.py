"""A run's folder back to a network, exactly as it was saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from fenlei.artifact import read_manifest
from fenlei.config import Device
from fenlei.errors import ArtifactError
from fenlei.labels import LabelSet
from fenlei.models.backbone import load_lora, load_network, load_tokenizer
from fenlei.models.devices import pick_device, pick_precision
from fenlei.models.head import HeadMethod, MlpHead, install_head
from fenlei.models.hub import resolve_model
from fenlei.text.prompts import TextEncoder

HEAD_FILE = "head.safetensors"
"""Weights of a head that the stock layout has no place for, and of any head over a frozen backbone."""


@dataclass(frozen=True)
class LoadedRun:
    """A run, ready to answer."""

    method: HeadMethod
    encoder: TextEncoder
    labels: LabelSet
    manifest: dict[str, Any]


def load_run(run: str | Path, *, device: Device = "auto", head: nn.Module | None = None, fold: bool = False) -> LoadedRun:
    """The trained network of `run`, in evaluation mode. `head`: an instance of the user's own module, if the run was trained with one.

    `fold` loads everything in float32, for export. ArtifactError where a file of the run is missing or does not fit.
    """
    return load_run_from(Path(run), read_manifest(run), device=device, head=head, fold=fold)


def load_run_from(
    folder: Path, manifest: dict[str, Any], *, device: Device = "auto", head: nn.Module | None = None, fold: bool = False
) -> LoadedRun:
    """As `load_run`, with the manifest in hand: a run's folder gets its fenlei.json last."""
    labels = LabelSet(tuple(manifest["labels"]))
    model_folder = folder / "model"
    if not (model_folder / "config.json").exists():
        raise ArtifactError(f"{model_folder}: config.json is missing; the folder is incomplete, restore it or train again")
    tokenizer = load_tokenizer(model_folder)
    place, _ = pick_device(device)
    dtype = torch.float32 if fold else pick_precision(place, manifest["parameters"]["all"]).weights
    network: nn.Module = load_network(
        _weights_folder(manifest, model_folder), labels, int(tokenizer.pad_token_id), layers=manifest["layers"], dtype=dtype
    )
    if manifest["head"] != "linear":
        install_head(network, _empty_head(manifest, network, len(labels), head))  # type: ignore[arg-type]
    if manifest["tuning"] == "lora":
        network = load_lora(network, model_folder)  # type: ignore[arg-type]
    elif (model_folder / HEAD_FILE).exists():
        _load_head(network, model_folder / HEAD_FILE)
    method = HeadMethod(network, int(tokenizer.pad_token_id)).to(place).eval()
    encoder = TextEncoder(tokenizer, manifest["prompt"], manifest["max_length"])
    return LoadedRun(method, encoder, labels, manifest)


def _weights_folder(manifest: dict[str, Any], model_folder: Path) -> Path:
    """Full tuning keeps the backbone in the run; LoRA and frozen runs refer to the base model."""
    if manifest["tuning"] == "full":
        return model_folder
    base = manifest["base_model"]
    if base["folder"] and Path(base["folder"]).is_dir():
        return Path(base["folder"])
    return resolve_model(base["name"], revision=base["revision"])


def _empty_head(manifest: dict[str, Any], network: Any, n_labels: int, head: nn.Module | None) -> nn.Module:
    if manifest["head"] == "mlp":
        return MlpHead(network.config.get_text_config().hidden_size, n_labels)
    if head is None:
        raise ArtifactError("this run was trained with a head of your own; pass an instance of it: Classifier.load(run, head=MyHead(...))")
    return head


def _load_head(network: Any, path: Path) -> None:
    stored = load_file(path)
    own = network.state_dict()
    unknown = sorted(key for key in stored if key not in own or own[key].shape != stored[key].shape)
    if unknown:
        raise ArtifactError(f"{path}: {unknown[0]!r} does not fit the head of this run")
    for key, value in stored.items():
        own[key].copy_(value)

"""A sequence-classification adapter that PEFT or ms-swift wrote, as a run. Its folder names no classes: they come from the caller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fenlei.artifact import MANIFEST, fingerprint, read_json
from fenlei.config import Device
from fenlei.config.model import DEFAULT_MAX_LENGTH
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError, ModelError
from fenlei.inference.loading import LoadedRun
from fenlei.labels import LabelSet
from fenlei.models.backbone import backbone_parameters, load_network, load_tokenizer
from fenlei.models.configuration import load_config, longest_input
from fenlei.models.devices import LARGER, fitting, pick_device, pick_precision
from fenlei.models.fingerprint import weights_fingerprint
from fenlei.models.head import HeadMethod
from fenlei.models.hub import is_local, resolve_model
from fenlei.models.lora import load_lora
from fenlei.text.asking import check_candidates
from fenlei.text.prompts import TextEncoder, refuse_place_of_labels

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder is an adapter, and no run of ours around one."""
    return (Path(folder) / CONFIG).is_file() and not (Path(folder) / MANIFEST).exists()


def load_adapter(
    folder: Path,
    labels: Sequence[str],
    *,
    base: str | None = None,
    prompt: str | None = None,
    max_length: int | None = None,
    multi_label: bool = False,
    device: Device = "auto",
) -> LoadedRun:
    """The adapter on its base model (`base`: where that is now), its classes called `labels`, in the order of their ids.

    `prompt` is what it was trained to read the text in, None: the bare text. `multi_label`: any number of classes may be
    right, as it was trained. ArtifactError where it is an adapter of another task or has another number of classes, ModelError where its
    base model is not to be found.
    """
    refuse_place_of_labels(prompt)
    names = LabelSet(tuple(labels))
    config = read_json(folder / CONFIG)
    if config.get("task_type") != "SEQ_CLS":
        raise ArtifactError(f"{folder}: is an adapter for {config.get('task_type')}, expected SEQ_CLS; {_way_on(config)}")
    classes = _classes(folder)
    if classes not in (None, len(names)):
        raise ArtifactError(
            f"{folder}: tells {classes} classes apart, but {len(names)} labels are given; name them all, in the order of ids"
        )
    model = base or str(config["base_model_name_or_path"])
    try:
        weights = resolve_model(model, revision=None if base else config.get("revision"))
    except ModelError as error:
        if base:
            raise
        raise ModelError(f"{folder}: its base model is {model!r}; --base (base=) says where that is now. {error}") from error
    tokenizer = load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else weights)
    pad_id = int(tokenizer.pad_token_id)
    place, _ = pick_device(device)
    precision = pick_precision(place, backbone_parameters(weights, None))
    labelling = Labelling(multi_label)
    network: Any = load_network(weights, names, pad_id, layers=None, dtype=precision.weights, problem_type=labelling.problem_type)
    with fitting(place, LARGER):
        method = HeadMethod(load_lora(network, folder), pad_id).to(place).eval()
    length = min(max_length or DEFAULT_MAX_LENGTH, longest_input(load_config(weights)))
    encoder = TextEncoder(tokenizer, prompt, length)
    manifest = {
        "labels": list(names), "method": "head", "tuning": "lora", "head": "linear", "prompt": encoder.template, "max_length": length,
        "layers": None, "temperature": 1.0, "calibrated": False, **(labelling.to_json() if multi_label else {}),
        "base_model": {
            "name": model, "local": is_local(model), "folder": str(weights), "weights_fingerprint": weights_fingerprint(weights),
        },
        "adapter_sha256": fingerprint(folder / WEIGHTS),
    }  # fmt: skip
    return LoadedRun(method, encoder, names, manifest)


def _way_on(config: dict[str, Any]) -> str:
    """What to do with an adapter that is none of a classifier."""
    if config.get("task_type") != "CAUSAL_LM":
        return "a classifier is needed"
    return "it answers in words: merge it into its model (`swift export --merge_lora true`), and give that folder with --labels"


def _classes(folder: Path) -> int | None:
    """The number of rows of the head that is stored with the adapter; None where there is none."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as stored:
            heads = [key for key in stored.keys() if key.endswith(("score.weight", "classifier.weight", "out_proj.weight"))]
            return int(stored.get_slice(heads[0]).get_shape()[0]) if heads else None
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: {WEIGHTS} is missing; pickled adapters (.bin) are not read, save it as safetensors") from None
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: {WEIGHTS} is damaged ({error}); copy it again") from error


def refuse_run_options(folder: str | Path, *, int8: bool, verify: bool, head: bool, promises: bool) -> None:
    """ConfigError where something was asked for that only a run of ours has."""
    reasons = {
        "int8": (int8, "is for runs that fenlei trained"),
        "verify": (verify, "compares files with the checksums that a run keeps"),
        "head": (head, "belongs to a run that was trained with it"),
        "a threshold or prediction sets": (promises, "take the calibrating rows that a run keeps"),
    }
    asked = next((f"{name}: {why}" for name, (given, why) in reasons.items() if given), None)
    if asked is not None:
        raise ConfigError(f"{asked}, and {folder} is an adapter of others; leave it out, or train a run")


def check_adapter_labels(folder: str | Path, labels: Sequence[str] | None) -> Sequence[str]:
    """The labels; ConfigError where none are given, RequestError for a lone string, whose characters would be taken for labels."""
    if labels is None or len(labels) == 0:
        raise ConfigError(
            f"{folder}: is an adapter, which names no classes; give them, in the order of their ids (labels=[...], predict --labels); "
            "other commands, as serve, take runs that fenlei trained"
        )
    if isinstance(labels, str):
        check_candidates(labels, "labels")
    return [str(one) for one in labels]

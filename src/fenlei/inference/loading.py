"""A run's folder back to a network, exactly as it was saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fenlei.artifact import fingerprint, read_manifest
from fenlei.config import Device
from fenlei.config.model import ADAPTERS
from fenlei.data.examples import Example, candidates_of
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError, DataError, ModelError, first_line
from fenlei.inference.checksums import explained, verify
from fenlei.labels import LabelSet
from fenlei.models.backbone import Quantised, head_modules, in_head, load_language_model, load_network, load_tokenizer
from fenlei.models.devices import LARGER, fitting, pick_device, pick_precision
from fenlei.models.fingerprint import weights_fingerprint
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod, MlpHead, install_head
from fenlei.models.hub import NANO, resolve_model
from fenlei.models.lora import fold_lora, load_lora
from fenlei.models.lora_linear import fold_adapters
from fenlei.models.merging import Merging
from fenlei.models.passages import Pooling, choose_pooling
from fenlei.models.qlora import computes_four_bit, four_bit
from fenlei.models.quantized import quantize_linears
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.text.instructions import Instruction
from fenlei.text.pair_encoder import text_encoder
from fenlei.text.pairs import PAIR_COLUMN
from fenlei.text.prompts import TextEncoder

HEAD_FILE = "head.safetensors"
"""Weights of a head that the stock layout has no place for, and of any head over a frozen backbone."""
POOLING_FILE = "windows.safetensors"
"""Weights of what joins the windows of a document, where it has learned any."""


@dataclass(frozen=True)
class LoadedRun:
    """A run, ready to answer."""

    method: HeadMethod | GenerateMethod
    encoder: TextEncoder | QuestionEncoder
    labels: LabelSet
    manifest: dict[str, Any]

    def folded(self) -> PreTrainedModel:
        """The transformers model itself, in float32, its adapters, if any, added into its weights."""
        adapts = self.manifest["tuning"] in ADAPTERS
        stock: PreTrainedModel = fold_lora(self.method.network) if adapts else self.method.stock.float()
        return stock


def encode_examples(encoder: TextEncoder | QuestionEncoder, examples: Sequence[Example]) -> EncodedTexts:
    """The texts of rows, or their pairs; for the generate method with the candidates that the rows offer, see `offered_to`."""
    texts = [example.input for example in examples]
    return encoder.encode(texts, offered_to(encoder, examples)) if isinstance(encoder, QuestionEncoder) else encoder.encode(texts)


def offered_to(encoder: QuestionEncoder, examples: Sequence[Example]) -> list[tuple[str, ...] | None] | None:
    """The candidates that rows offer; None where none does. DataError for a row that the model cannot be asked among its own."""
    offered = candidates_of(examples)
    for example in examples if offered is not None else ():
        try:
            encoder.question(example.candidates)
        except ConfigError as error:
            raise DataError(f"{example.where}: {error}") from error
    return offered


def load_run(
    run: str | Path,
    *,
    device: Device = "auto",
    head: nn.Module | None = None,
    fold: bool = False,
    int8: bool = False,
    verified: bool = False,
) -> LoadedRun:
    """The trained network of `run`, in evaluation mode. `head`: an instance of the user's own module, if the run was trained with one.

    Adapters are folded into the weights where their format holds them; `fold` loads everything in float32 instead, for export. `int8`
    computes the backbone's linears in 8-bit integers, adapters folded in.
    `verified` compares every file with its checksum first. ArtifactError where a file of the run is missing, damaged or does not fit;
    ConfigError for `int8` on a machine that cannot.
    """
    if int8 and device == "auto":
        device = "cpu"
    manifest = read_manifest(run)
    if verified:
        verify(Path(run), manifest)
    with explained(Path(run), manifest):
        loaded = load_run_from(Path(run), manifest, device=device, head=head, fold=fold or int8)
    return _in_int8(loaded) if int8 else loaded


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
    if manifest["method"] == "generate":
        return _load_generate(manifest, model_folder, labels, tokenizer, place, dtype, fold)
    merging = Merging.from_json(manifest["merged"]) if manifest.get("merged") else None
    outputs = labels if merging is None else LabelSet(merging.names)
    network: nn.Module = load_network(
        _weights_folder(manifest, model_folder),
        outputs,
        int(tokenizer.pad_token_id),
        layers=manifest["layers"],
        dtype=dtype,
        new_head=manifest["tuning"] != "full" or manifest["head"] != "linear",
        problem_type=Labelling.from_json(manifest).problem_type,
        quantised=_as_trained(manifest, place, dtype, fold),
    )
    pooling = _load_pooling(manifest, network, model_folder / POOLING_FILE)
    if manifest["head"] != "linear":
        install_head(network, _empty_head(manifest, network, len(outputs), head))  # type: ignore[arg-type]
    if manifest["tuning"] in ADAPTERS:
        network = load_lora(network, model_folder)  # type: ignore[arg-type]
    elif manifest["tuning"] == "frozen" or manifest["head"] != "linear":
        _load_head(network, model_folder / HEAD_FILE)
    with fitting(place, LARGER):
        method = HeadMethod(network, int(tokenizer.pad_token_id), pooling, merging=merging).to(place).eval()
    if manifest["tuning"] in ADAPTERS and not fold:
        fold_adapters(method.network)
    long, pairs = manifest.get("long", "truncate"), manifest.get(PAIR_COLUMN) is not None
    encoder = text_encoder(tokenizer, manifest["prompt"], manifest["max_length"], long, pairs=pairs)
    return LoadedRun(method, encoder, labels, manifest)


def _load_generate(
    manifest: dict[str, Any],
    model_folder: Path,
    labels: LabelSet,
    tokenizer: PreTrainedTokenizerBase,
    place: torch.device,
    dtype: torch.dtype,
    fold: bool,
) -> LoadedRun:
    pad_id = int(tokenizer.pad_token_id)
    network: nn.Module = load_language_model(
        _weights_folder(manifest, model_folder), pad_id, layers=manifest["layers"], dtype=dtype,
        quantised=_as_trained(manifest, place, dtype, fold),
    )  # fmt: skip
    if manifest["tuning"] in ADAPTERS:
        network = load_lora(network, model_folder)  # type: ignore[arg-type]
    with fitting(place, LARGER):
        method = GenerateMethod(network, pad_id, correct_prior=manifest["prior_correction"]).to(place).eval()
    if manifest["tuning"] in ADAPTERS and not fold:
        fold_adapters(method.network)
    return LoadedRun(method, question_encoder_of(manifest, labels, tokenizer), labels, manifest)


def question_encoder_of(manifest: Mapping[str, Any], labels: LabelSet, tokenizer: PreTrainedTokenizerBase) -> QuestionEncoder:
    """What a run of the generate method asks with."""
    instruction = Instruction.from_json(manifest["prompt"], manifest["instruction"])
    return QuestionEncoder(tokenizer, instruction, labels, manifest["max_length"], manifest.get("long", "truncate"))


def _as_trained(manifest: dict[str, Any], place: torch.device, dtype: torch.dtype, fold: bool) -> Quantised | None:
    """A QLoRA run in 4 bits, as it was trained, where that can be computed; anywhere else, and for export, its base model as it is."""
    wanted = manifest["tuning"] == "qlora" and not fold and computes_four_bit(place)
    return partial(four_bit, place, dtype) if wanted else None


def _in_int8(loaded: LoadedRun) -> LoadedRun:
    """A run loaded in float32, its backbone's linears in 8-bit integers and the rest in the usual format."""
    if not isinstance(loaded.method, HeadMethod):
        raise ConfigError("int8 is for runs that answer with a head, and this one generates; predict without int8")
    network = loaded.folded()
    quantize_linears(network)
    device, pad_id = loaded.method.device, loaded.method.pad_id
    usual = pick_precision(device, loaded.manifest["parameters"]["all"]).weights
    # Weights alone, never buffers: scales and rotary frequencies lose what bfloat16 cannot hold.
    in_heads = {id(weight) for module in head_modules(network).values() for weight in module.parameters()}
    for weight in network.base_model.parameters():
        if id(weight) not in in_heads:
            weight.data = weight.data.to(usual)
    method = HeadMethod(network, pad_id, loaded.method.pooling, merging=loaded.method.merging).eval()
    return replace(loaded, method=method, manifest={**loaded.manifest, "int8": True})


def _weights_folder(manifest: dict[str, Any], model_folder: Path) -> Path:
    """Full tuning keeps the backbone in the run; LoRA and frozen runs refer to the base model, which must be the same still."""
    if manifest["tuning"] == "full":
        return model_folder
    base = manifest["base_model"]
    folder = Path(base["folder"])
    if not (folder / "config.json").exists():
        was = base.get("file") or base["folder"]  # GGUF: the file, for its folder lies in a cache
        file = next((place for place in (base["folder"], was) if Path(place).is_file()), None)
        if base["local"] and file is None:
            raise ArtifactError(
                f"{model_folder}: adapts the base model {base['name']!r}, which was in {was} and is there no more; put it back, "
                "or write its new place into base_model.folder of fenlei.json"
            )
        try:
            folder = resolve_model(file or base["name"], revision=base["revision"])
        except ModelError as error:
            raise ModelError(
                f"{model_folder}: adapts the base model {base['name']!r}, which was in {was} and is there no more; put it back (in a "
                f"container: mount it there), or write its new place into base_model.folder of fenlei.json. Looked for elsewhere: {error}"
            ) from error
    _check_base(folder, base, str(manifest["libraries"].get("fenlei", "as it was then")))
    return folder


def _check_base(folder: Path, base: dict[str, Any], trained_with: str) -> None:
    """ArtifactError where the model in `folder` is not the one that `base` of the manifest describes."""
    now = {"config.json": fingerprint(folder / "config.json"), "weights": weights_fingerprint(folder)}
    then = {"config.json": base["config_sha256"], "weights": base.get("weights_fingerprint", now["weights"])}
    changed = [what for what in now if now[what] != then[what]]
    if changed:
        cure = f"install fenlei {trained_with}" if base["name"] == NANO else f"restore {base['name']!r}"
        raise ArtifactError(
            f"{folder}: is not the base model that this run was trained on (other {' and '.join(changed)}); {cure}, or train again"
        )


def _empty_head(manifest: dict[str, Any], network: Any, n_labels: int, head: nn.Module | None) -> nn.Module:
    if manifest["head"] == "mlp":
        return MlpHead(network.config.get_text_config().hidden_size, n_labels)
    if head is None:
        raise ArtifactError("this run was trained with a head of your own; pass an instance of it: Classifier.load(run, head=MyHead(...))")
    return head


def _load_head(network: Any, path: Path) -> None:
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); the folder is incomplete, restore it or train again") from error
    own = {key: value for key, value in network.state_dict().items() if in_head(network, key)}
    if own.keys() != stored.keys() or any(own[key].shape != value.shape for key, value in stored.items()):
        raise ArtifactError(f"{path}: does not fit the head of this run")
    for key, value in stored.items():
        own[key].copy_(value)


def _load_pooling(manifest: dict[str, Any], network: Any, path: Path) -> Pooling | None:
    """What joins windows, with the weights that it has learned, if any."""
    pooling = choose_pooling(manifest.get("long", "truncate"), network.config.get_text_config().hidden_size)
    if pooling is None or not pooling.state_dict():
        return pooling
    try:
        pooling.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({first_line(error)}); the folder is incomplete, restore it or train again") from error
    return pooling

"""Loading a Hugging Face classifier or language model: tokenizer, pad id, depth."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fenlei.errors import ConfigError, ModelError, first_line
from fenlei.labels import LabelSet
from fenlei.models.architectures import classifier_class, empty_classifier
from fenlei.models.attention import speed_up_short_rows
from fenlei.models.configuration import load_config, refusal
from fenlei.models.devices import same_dice
from fenlei.models.scorable import check_scorable
from fenlei.models.shared_prefix import ATTENTION

SPARE_PAD_TOKENS = (
    "<|finetune_right_pad_id|>", "<|padding|>", "<|endoftext|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>", "<unk>",
)  # fmt: skip
"""Tokens that pad where a tokenizer names none, the first that is in its vocabulary and does not end a text."""

NOT_AS_WRITTEN = ("GPTNeoXTokenizer", "MistralCommonBackend")
"""Classes that read otherwise than tokenizer.json says. The first loses what stands there before a text; the second, which transformers
takes wherever mistral-common is installed, reads tekken.json, splits no control token on demand and saves no tokenizer.json."""

Quantised = Callable[[list[str] | None], Mapping[str, Any]]
"""What transformers is told so that linears are loaded in other numbers, but not below modules of these names; None: but not the output
projection. See models/qlora.py."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, with a pad token that is not eos if the vocabulary has one to spare."""
    try:
        tokenizer = _tokenizer_of(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        otherwise = f"its tokenizer could not be loaded ({first_line(error)}); a model folder needs its tokenizer files"
        raise ModelError(f"{folder}: " + refusal(error, otherwise)) from error
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        spare = [token for token in SPARE_PAD_TOKENS if token in vocabulary and token != tokenizer.eos_token]
        pad = spare[0] if spare else tokenizer.eos_token
        if pad is None:
            raise ModelError(f"{folder}: the tokenizer has neither a pad nor an end token; add a pad_token to its tokenizer_config.json")
        tokenizer.pad_token = pad
    return tokenizer


def _tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """As tokenizer.json has it, whichever class tokenizer_config.json claims.

    DeepSeek-R1-Distill-Llama claims Llama 2's class and splits into bytes, as Llama 3 does. Before 5.22 transformers (5.20 is its last for
    Python 3.10) believes the claim, and finds no token in a Chinese text.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    told = folder / "tokenizer.json"
    if not told.is_file():
        return tokenizer
    bytewise = isinstance(tokenizer, LlamaTokenizer) and '"ByteLevel"' in told.read_text(encoding="utf-8")
    if bytewise or type(tokenizer).__name__ in NOT_AS_WRITTEN:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def backbone_parameters(folder: Path, layers: int | None) -> int:
    """Of the backbone alone, with its lower `layers` blocks. Counted on the meta device: nothing is loaded."""
    config = load_config(folder)
    if layers is not None:
        _keep_layers(config, layers)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AutoModel.from_config(config, trust_remote_code=False).parameters())


def load_network(
    folder: Path,
    labels: LabelSet,
    pad_id: int,
    *,
    layers: int | None,
    dtype: torch.dtype,
    new_head: bool = True,
    problem_type: str = "single_label_classification",
    quantised: Quantised | None = None,
) -> PreTrainedModel:
    """A `*ForSequenceClassification` over `folder`'s weights, label names and pad id in its config, its head in float32.

    `new_head`: the head starts afresh, unless the folder's own is for the very same labels; else the folder's must be there. `quantised`:
    what has the backbone loaded in other numbers. ModelError where the architecture has no classifier, or weights are missing.
    """
    config = load_config(folder)
    fresh = new_head and classifier_labels(config) != labels.names
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: place for place, name in enumerate(labels)}
    config.problem_type = problem_type
    config.get_text_config().pad_token_id = pad_id
    config.pad_token_id = pad_id
    if pad_id >= config.get_text_config().vocab_size:
        raise ModelError(f"{folder}: the tokenizer pads with id {pad_id}, but the model knows {config.get_text_config().vocab_size} tokens")
    if layers is not None:
        _keep_layers(config, layers)
    with quiet_transformers():
        try:
            network, info = classifier_class(config).from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=new_head,
                trust_remote_code=False,
                use_safetensors=True,
                **(quantised([*head_modules(empty_classifier(load_config(folder)))]) if quantised else {}),
            )
        except (ImportError, OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder}: the model could not be loaded as a classifier ({first_line(error)})") from error
    lost = {*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])}
    missing = sorted(key for key in lost if not (new_head and in_head(network, key)))
    if missing:
        raise ModelError(f"{folder}: {len(missing)} weights are not in its files, among them {missing[0]!r}")
    for module in head_modules(network).values():
        module.float()
    _restore_head(network, folder)
    beside = [name for name, _ in network.named_children() if name != network.base_model_prefix]
    if fresh and any(key.partition(".")[0] in beside and key not in lost for key in network.state_dict()):
        _draw_anew(network, beside)
    speed_up_short_rows(network)
    return network  # type: ignore[no-any-return]


def load_language_model(
    folder: Path, pad_id: int, *, layers: int | None, dtype: torch.dtype, quantised: Quantised | None = None
) -> PreTrainedModel:
    """A stock causal language model over `folder`'s weights, its attention that of shared_prefix. ModelError where it is none, where its
    layers are not attention alone, or weights are missing.
    """
    config = load_config(folder)
    config.get_text_config().pad_token_id = pad_id
    config.pad_token_id = pad_id
    if layers is not None:
        _keep_layers(config, layers)
    with quiet_transformers():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=ATTENTION,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                **(quantised(None) if quantised else {}),
            )
        except (ImportError, OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder}: the model could not be loaded as a causal language model ({first_line(error)})") from error
    network: PreTrainedModel = loaded[0]
    missing = sorted(loaded[1]["missing_keys"])
    if missing:
        raise ModelError(f"{folder}: {len(missing)} weights are not in its files, among them {missing[0]!r}")
    check_scorable(network, folder)
    return network


def head_modules(network: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """What lies on top of the backbone, by name: `score` for decoders; for encoders `classifier` and its like, and the pooler."""
    found = {name: module for name, module in network.named_children() if name != network.base_model_prefix}
    pooler = getattr(network.base_model, "pooler", None)
    return found if pooler is None else {**found, f"{network.base_model_prefix}.pooler": pooler}


def in_head(network: PreTrainedModel, key: str) -> bool:
    """Whether the weight `key` of `network` belongs to its head."""
    return any(key.startswith(f"{name}.") for name in head_modules(network))


def output_weights(folder: Path) -> frozenset[str]:
    """Names of the weights in a classifier of `folder`'s architecture that have a row for each label. Nothing is loaded."""
    shapes = []
    for labels in (2, 3):
        config = load_config(folder)
        config.num_labels = labels
        shapes.append({name: weight.shape for name, weight in empty_classifier(config).state_dict().items()})
    return frozenset(name for name, shape in shapes[0].items() if shapes[1][name] != shape)


def is_decoder(network: PreTrainedModel) -> bool:
    """Whether its stock head is one linear, `score`, on the last token's state."""
    return hasattr(network, "score")


def has_score(folder: Path) -> bool:
    """Whether a classifier over `folder`'s weights is a decoder. Nothing is loaded."""
    config = load_config(folder)
    try:
        return is_decoder(empty_classifier(config))
    except ValueError:  # an architecture without a classifier, of which `load_network` tells
        return False


def checkpoint_activations(network: PreTrainedModel, device: torch.device) -> None:
    """Recomputes activations in the backward pass, on `device`, instead of keeping them: less memory, about a third more time."""
    enable: Any = (
        getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    )  # renamed in transformers 5.23
    enable({"use_reentrant": False, "context_fn": partial(same_dice, device)})


def recomputes_activations(network: PreTrainedModel) -> bool:
    """Whether `checkpoint_activations` was asked for. transformers 5.23 has renamed what tells it, and warns of the old name each time."""
    name = "is_activation_checkpointing" if hasattr(type(network), "is_activation_checkpointing") else "is_gradient_checkpointing"
    return bool(getattr(network, name, False))


def classifier_labels(config: Any) -> tuple[str, ...] | None:
    """The classes, in order, of a model that is a classifier already; None for any other."""
    if not any("ForSequenceClassification" in name for name in config.architectures or ()):
        return None
    return tuple(str(name) for _, name in sorted(config.id2label.items()))


def _draw_anew(network: PreTrainedModel, names: list[str]) -> None:
    """These parts of `network` as its architecture draws them at first."""
    part: Any
    for module in (module for name in names for module in network.get_submodule(name).modules()):
        for part in (module, *module.parameters(recurse=False)):
            part._is_hf_initialized = False  # else transformers leaves what it loaded
        network._init_weights(module)


def _restore_head(network: PreTrainedModel, folder: Path) -> None:
    """The head's weights as stored: loading in bfloat16 has rounded them."""
    own = network.state_dict()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():
                if in_head(network, key) and key in own and list(own[key].shape) == stored.get_slice(key).get_shape():
                    own[key].copy_(stored.get_tensor(key))


def _keep_layers(config: Any, layers: int) -> None:
    text_config = config.get_text_config()
    depth = text_config.num_hidden_layers
    if layers > depth:
        raise ConfigError(f"layers {layers}: the model has only {depth}")
    text_config.num_hidden_layers = layers
    for name in ("layer_types", "mlp_layer_types"):
        kinds = getattr(text_config, name, None)
        if kinds and len(kinds) > layers:  # where they follow from the number of layers, they cannot be set
            setattr(text_config, name, kinds[:layers])


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its bars, and without the table of 'newly initialised' weights: the head is new on purpose, and what else is missing is
    checked by us.
    """
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()

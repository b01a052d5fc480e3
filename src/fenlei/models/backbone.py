"""Loading a Hugging Face classifier: configuration, tokenizer, pad id, depth, LoRA. The only module that knows peft."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fenlei.config import ModelConfig
from fenlei.errors import ConfigError, ModelError
from fenlei.labels import LabelSet
from fenlei.models.lora_linear import fuse_lora

DEFAULT_MAX_LENGTH = 1024

SPARE_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>", "<unk>")
"""Tokens that pad where a tokenizer names none, the first that is in its vocabulary and does not end a text."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, with a pad token that is not eos if the vocabulary has one to spare."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{folder}: its tokenizer could not be loaded ({_first_line(error)}); a model folder needs its tokenizer files"
        ) from error
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        spare = [token for token in SPARE_PAD_TOKENS if token in vocabulary and token != tokenizer.eos_token]
        pad = spare[0] if spare else tokenizer.eos_token
        if pad is None:
            raise ModelError(f"{folder}: the tokenizer has neither a pad nor an end token; add a pad_token to its tokenizer_config.json")
        tokenizer.pad_token = pad
    return tokenizer


def load_config(folder: Path) -> Any:
    """The folder's transformers configuration; ModelError where there is none that can be read."""
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: its config.json could not be read ({_first_line(error)})") from error


def longest_input(config: Any) -> int:
    """Tokens the model takes."""
    text_config = config.get_text_config()
    limit = int(getattr(text_config, "max_position_embeddings", None) or 1_000_000)
    # RoBERTa and its kin number positions from pad_token_id + 1.
    return limit - 2 if text_config.model_type in ("roberta", "xlm-roberta", "camembert") else limit


def load_network(folder: Path, labels: LabelSet, pad_id: int, *, layers: int | None, dtype: torch.dtype) -> PreTrainedModel:
    """A stock `*ForSequenceClassification` over `folder`'s weights, label names and pad id in its config, its head in float32.

    A folder that holds a language model gets a fresh head; ModelError where the architecture has no classifier or weights are missing.
    """
    config = load_config(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: place for place, name in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config.get_text_config().pad_token_id = pad_id
    config.pad_token_id = pad_id
    if layers is not None:
        _keep_layers(config, layers)
    with quiet_transformers():
        try:
            network, info = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=dtype, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder}: the model could not be loaded as a classifier ({_first_line(error)})") from error
    heads = set(head_modules(network))
    missing = sorted(key for key in info["missing_keys"] if key.split(".")[0] not in heads and "pooler" not in key)
    if missing:
        raise ModelError(f"{folder}: {len(missing)} weights of the backbone are not in its files, among them {missing[0]!r}")
    for module in head_modules(network).values():
        module.float()
    _restore_head(network, folder)
    return network  # type: ignore[no-any-return]


def head_modules(network: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """What lies on top of the backbone, by name: `score` for decoders; pooler-side layers such as `classifier` for encoders."""
    return {name: module for name, module in network.named_children() if name != network.base_model_prefix}


def is_decoder(network: PreTrainedModel) -> bool:
    """Whether its stock head is one linear, `score`, on the last token's state."""
    return hasattr(network, "score")


def checkpoint_activations(network: PreTrainedModel) -> None:
    """Recomputes activations in the backward pass instead of keeping them: less memory, about a third more time."""
    enable: Any = (
        getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    )  # renamed in transformers 5.23
    enable({"use_reentrant": False})


def add_lora(network: PreTrainedModel, config: ModelConfig) -> torch.nn.Module:
    """`network` inside a PeftModel: adapters in float32 on the backbone's linears, the head trained whole."""
    from peft import LoraConfig, TaskType, get_peft_model

    targets: Any = config.lora_targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",") if name.strip()]
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    try:
        adapted = get_peft_model(network, lora)
    except ValueError as error:
        raise ConfigError(f"lora_targets {config.lora_targets!r} do not fit this model: {_first_line(error)}") from error
    fuse_lora(adapted)
    return adapted


def load_lora(network: PreTrainedModel, folder: Path) -> torch.nn.Module:
    """`network` inside a PeftModel with the adapters and head stored in `folder`."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(network, str(folder))
    fuse_lora(adapted)
    return adapted


def fold_lora(adapted: torch.nn.Module) -> PreTrainedModel:
    """The stock network with the adapters added into its weights, in float32: bfloat16 would round them away."""
    return adapted.float().merge_and_unload(safe_merge=True)  # type: ignore[no-any-return, operator]


def _restore_head(network: PreTrainedModel, folder: Path) -> None:
    """The head's weights as stored: loading in bfloat16 has rounded them."""
    heads = set(head_modules(network))
    own = network.state_dict()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():
                if key.split(".")[0] in heads and key in own and list(own[key].shape) == stored.get_slice(key).get_shape():
                    own[key].copy_(stored.get_tensor(key))


def _keep_layers(config: Any, layers: int) -> None:
    text_config = config.get_text_config()
    depth = text_config.num_hidden_layers
    if layers > depth:
        raise ConfigError(f"layers {layers}: the model has only {depth}")
    text_config.num_hidden_layers = layers
    if getattr(text_config, "layer_types", None):
        text_config.layer_types = text_config.layer_types[:layers]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its bars, and without the table of 'newly initialised' weights: the head is new on purpose, and what else is missing is
    checked by us.
    """
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

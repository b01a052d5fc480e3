"""Everything that is decided before the first optimiser step: data read, model loaded, choices made and explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from fenlei.artifact import fingerprint
from fenlei.audit.warnings import data_warnings
from fenlei.config import RunConfig
from fenlei.data.examples import Example, candidates_of
from fenlei.data.splits import Dataset, load_dataset
from fenlei.errors import ConfigError
from fenlei.inference.loading import encode_examples
from fenlei.inference.trust import check_promises
from fenlei.inference.windows import UNREAD_CANDIDATES
from fenlei.models.backbone import (
    UNLIMITED,
    backbone_parameters,
    classifier_labels,
    load_config,
    load_tokenizer,
    longest_input,
)
from fenlei.models.devices import Precision, pick_device, pick_precision
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod, parameter_counts
from fenlei.models.hub import resolve_model
from fenlei.models.qlora import check_four_bit
from fenlei.models.quantized import quantize_below_adapters, quantize_linears
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.text.first_token import set_first_token
from fenlei.text.instructions import Instruction
from fenlei.text.pair_encoder import text_encoder
from fenlei.text.prompts import TextEncoder
from fenlei.training.asking import encode_for_training, question_encoder, question_tokens, with_question
from fenlei.training.building import build_method, training_autocast
from fenlei.training.defaults import (
    Choice,
    choose_batch_size,
    choose_epochs,
    choose_learning_rate,
    choose_long,
    choose_max_length,
    choose_tuning,
    propose_prompt,
)
from fenlei.training.imbalance import check_imbalance, class_counts, proposal
from fenlei.training.lessons import Lessons
from fenlei.training.memory import with_batch_tokens
from fenlei.training.promises import read_out_of_scope
from fenlei.training.solved_head import has_solution
from fenlei.training.spread import check_options, place

FIRST_TOKEN_NOTE = "first token {}: the tokenizer sets none, and a decoder reads little of what stands first"
MEASURED_TEXTS = 2000
"""Training texts whose lengths decide how long ones are read."""


@dataclass(frozen=True)
class Setup:
    """A run, ready to start."""

    config: RunConfig
    """With every choice filled in."""
    dataset: Dataset
    base: Path
    """Folder of the base model."""
    tokenizer: PreTrainedTokenizerBase
    encoder: TextEncoder | QuestionEncoder
    method: HeadMethod | GenerateMethod
    head_kind: str | None
    """linear, mlp or custom; None for generate"""
    device: torch.device
    precision: Precision
    train: EncodedTexts
    label_ids: np.ndarray
    """int64 (rows,); multi-label: bool (rows, labels)"""
    selecting: EncodedTexts
    trainable: int
    parameters: int
    notes: tuple[str, ...]
    solved: bool
    """Whether the head is to begin where ridge regression ends (training/solved_head.py)."""
    lessons: Lessons | None = None
    """What is learned from besides labels; None: nothing."""

    @property
    def rows(self) -> tuple[Example, ...]:
        """What is trained on, a row each of `train`."""
        return self.dataset.train if self.lessons is None else (*self.dataset.train, *self.lessons.unlabelled)

    def data_fingerprints(self) -> dict[str, str]:
        """SHA-256 of every file that rows came from, by its name as given."""
        return data_fingerprints((*self.rows, *self.dataset.selecting, *self.dataset.calibrating, *self.dataset.test))

    @property
    def autocast(self) -> torch.dtype | None:
        """What training computes its matrix products in, where the backbone's weights are float32 because they learn."""
        return training_autocast(self.config, self.precision)

    @property
    def class_counts(self) -> np.ndarray:
        """Training rows of each label, int64 (labels,)."""
        return class_counts(self.label_ids, len(self.dataset.labels))

    @property
    def batch_size(self) -> int:
        """Rows an optimiser step."""
        assert self.config.optimization.batch_size is not None
        return self.config.optimization.batch_size

    @property
    def batch_tokens(self) -> int:
        """Tokens that go through the network at once."""
        assert self.config.optimization.batch_tokens is not None
        return self.config.optimization.batch_tokens

    @property
    def steps(self) -> int:
        """Optimiser steps the run is planned to take."""
        options = self.config.optimization
        return options.max_steps or max(1, math.ceil(self.steps_an_epoch * float(options.epochs or 1)))

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps a pass over the training rows takes."""
        return math.ceil(len(self.train) / self.batch_size)


def data_fingerprints(rows: Sequence[Example]) -> dict[str, str]:
    """SHA-256 of every file that rows came from, by its name as given."""
    sources = sorted({example.source for example in rows})
    return {source: fingerprint(Path(source)) for source in sources if Path(source).is_file()}


def prepare(
    config: RunConfig,
    *,
    head: nn.Module | None = None,
    dataset: Dataset | None = None,
    unlabelled: Sequence[Example] = (),
    instruction: Instruction | None = None,
) -> Setup:
    """Reads the data, unless it is given, and loads the model; `train` holds the rows `unlabelled` behind those of the dataset.

    `instruction`: generate: the prompt that an older run has asked with; None: one is written for the labels.
    ConfigError, DataError or ModelError where something cannot work, before anything is written.
    """
    if config.data.data is None:
        raise ConfigError("no data: give the labelled file or folder to train on")
    if config.model.model is None:
        raise ConfigError("no model: give --model a local folder, `nano`, or a Hugging Face or ModelScope id")
    seed = config.optimization.seed
    dataset = dataset or load_dataset(config.data, seed=seed)
    _check(config, dataset)
    base = resolve_model(config.model.model, revision=config.model.revision, source=config.model.source)
    tokenizer = load_tokenizer(base)
    first = set_first_token(tokenizer, config.model.prompt) if config.model.method == "head" else None
    parameters = backbone_parameters(base, config.model.layers)
    model_takes = longest_input(load_config(base))
    if config.model.method == "generate":
        dataset, instruction = with_question(config, dataset, tokenizer, instruction)
    config, reading = with_long(config, dataset, tokenizer, model_takes, instruction)
    solved = has_solution(config, base, dataset.labels, head)
    config, choices = fill_in(config, len(dataset.train) + len(unlabelled), parameters, model_takes, solved=solved)
    choices = [*reading, *choices]
    proposed_prompt = propose_prompt(config.model, parameters, decodes=solved)
    encoder = _encoder(config, dataset, tokenizer, instruction)
    device, why_device = pick_device(config.optimization.device)
    precision = pick_precision(device, parameters)
    check_options(config, precision)
    _check_int8(config)
    torch.manual_seed(seed)
    if config.model.tuning == "qlora":
        check_four_bit(device)
    method, kind = build_method(config, base, dataset, int(tokenizer.pad_token_id), precision, head, device)
    learned_from = (*dataset.train, *unlabelled)
    if isinstance(encoder, QuestionEncoder):
        train = encode_for_training(encoder, learned_from, config.model)
    else:
        train = encode_examples(encoder, learned_from)
    selecting = encode_examples(encoder, dataset.selecting)
    trainable, everything = parameter_counts(method)
    method = _placed(method, config, device)
    config, budget = with_batch_tokens(config, method, train.longest_input, training_autocast(config, precision))
    choices += budget
    label_ids = dataset.gold(dataset.train)
    learning = f"trainable parameters: {trainable:,} of {everything:,} ({trainable / everything:.2%})"
    notes = (
        *_data_notes(config, dataset, label_ids),
        *(str(choice) for choice in choices),
        *([proposed_prompt] if proposed_prompt else []),
        why_device,
        precision.reason,
        *([FIRST_TOKEN_NOTE.format(first)] if first else []),
        *filter(None, [config.trust.without_effect]),
        *_head_note(base, dataset, kind),
        learning,
        *_length_note(train, encoder.max_length, beside_prompt=instruction is not None or config.model.prompt is not None),
    )
    return Setup(
        config, dataset, base, tokenizer, encoder, method, kind, device, precision,
        train, label_ids, selecting, trainable, everything, notes, solved,
    )  # fmt: skip


def _check_int8(config: RunConfig) -> None:
    if config.optimization.int8 and config.model.tuning not in ("lora", "frozen"):
        raise ConfigError(
            f"int8 is for tuning 'lora' and 'frozen', where most weights do not learn; this run's tuning is {config.model.tuning!r}"
        )


def _placed(method: HeadMethod | GenerateMethod, config: RunConfig, device: torch.device) -> HeadMethod | GenerateMethod:
    """On the device; where int8 is asked for, the weights that do not learn in 8 bits."""
    method = place(method, device)
    if config.optimization.int8 and config.model.tuning == "lora":
        quantize_below_adapters(method.network)
    elif config.optimization.int8:
        quantize_linears(method.stock)
    return method


def _check(config: RunConfig, dataset: Dataset) -> None:
    """ConfigError or DataError for what the data does not allow, before a model is loaded."""
    check_promises(config.trust, len(dataset.calibrating), multi_label=dataset.multi_label)
    check_imbalance(config, multi_label=dataset.multi_label)
    if dataset.multi_label and config.data.store_exemplars is not None:
        raise ConfigError("store_exemplars keeps rows of each class, and here a row has any number of them; leave it out")
    if dataset.multi_label and (config.model.objective == "tokens" or config.model.shots):
        raise ConfigError(
            "multi-label: objective 'tokens' and shots are for one answer a row; leave them out, each label is asked yes or no"
        )
    if config.trust.out_of_scope is not None:
        read_out_of_scope(config.trust.out_of_scope)  # that it can be read is better known before training than after


def with_long(
    config: RunConfig, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, model_takes: int, instruction: Instruction | None
) -> tuple[RunConfig, list[Choice]]:
    """The configuration with a way of reading long texts, by the lengths of training texts evenly spread and the room that a prompt leaves.

    `instruction`: what a run of the generate method asks with.
    """
    sample = dataset.train[:: -(-len(dataset.train) // MEASURED_TEXTS)]
    pairs = config.data.pair_column is not None
    bare = text_encoder(tokenizer, None, UNLIMITED, pairs=pairs)
    lengths = bare.encode([example.input for example in sample]).lengths
    if instruction is None:
        prompt = bare.room - text_encoder(tokenizer, config.model.prompt, UNLIMITED, pairs=pairs).room
    else:
        prompt = question_tokens(tokenizer, dataset, instruction)
    long, choice = choose_long(config.model, lengths.tolist(), model_takes, prompt=prompt, pairs=pairs)
    return config.replace(long=long), [choice] if choice else []


def fill_in(config: RunConfig, rows: int, parameters: int, model_takes: int, *, solved: bool = False) -> tuple[RunConfig, list[Choice]]:
    """The configuration without a None that matters, and what was chosen. `solved`: see `has_solution`."""
    tuning, chosen_tuning = choose_tuning(config.model, parameters)
    length, chosen_length = choose_max_length(config.model, model_takes)
    if tuning == "none":
        return config.replace(max_length=length), [chosen_length] if chosen_length else []
    batch_size, chosen_batch = choose_batch_size(config.optimization, tuning, parameters, rows)
    rate, chosen_rate = choose_learning_rate(config.optimization, tuning, parameters, batch_size, solved=solved)
    epochs, chosen_epochs = choose_epochs(config.optimization, tuning, batch_size, rows)
    filled = config.replace(tuning=tuning, learning_rate=rate, batch_size=batch_size, epochs=epochs, max_length=length)
    return filled, [choice for choice in (chosen_tuning, chosen_rate, chosen_batch, chosen_epochs, chosen_length) if choice]


def _encoder(
    config: RunConfig, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, instruction: Instruction | None
) -> TextEncoder | QuestionEncoder:
    """How texts become ids."""
    if instruction is not None:
        return question_encoder(tokenizer, config, dataset, instruction)
    limit, long = int(config.model.max_length or 0), config.model.long or "truncate"
    return text_encoder(tokenizer, config.model.prompt, limit, long, pairs=config.data.pair_column is not None)


def _data_notes(config: RunConfig, dataset: Dataset, label_ids: np.ndarray) -> list[str]:
    """What the reading found, what may be wrong with the rows, and what uneven classes ask for."""
    told = [name not in dataset.thinned for name in dataset.labels]
    proposed = proposal(config, class_counts(label_ids, len(dataset.labels))[told], multi_label=dataset.multi_label)
    unread = config.model.method == "head" and candidates_of(dataset.train)
    return [*dataset.notes, *data_warnings(dataset), *([proposed] if proposed else []), *([UNREAD_CANDIDATES] if unread else [])]


def _head_note(base: Path, dataset: Dataset, kind: str | None) -> list[str]:
    """Where the head comes from, if the base model has one of its own."""
    names = classifier_labels(load_config(base))
    if names is None or kind != "linear":
        return []
    if names == dataset.labels.names:
        return ["head: that of the base model, which is a classifier of the same labels"]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"head: fresh, for the base model is a classifier of other labels ({shown})"]


def _length_note(encoded: EncodedTexts, max_length: int, *, beside_prompt: bool) -> list[str]:
    """What was cut; of texts in windows, how many there are."""
    if encoded.windows is not None:
        several = int((encoded.windows.counts > 1).sum())
        windows = f"{len(encoded.windows.spans):,} windows of at most {max_length} tokens"
        return [f"{several:,} of {len(encoded):,} training texts are read in more than one window: {windows} in all"]
    cut = int((encoded.tokens_cut > 0).sum())
    if not cut:
        return []
    beside = "with the prompt " if beside_prompt else ""
    lost = int(encoded.tokens_cut.sum())
    return [f"{cut:,} of {len(encoded):,} training texts are {beside}longer than {max_length} tokens; {lost:,} tokens were cut"]

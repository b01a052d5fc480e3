"""Everything that is decided before the first optimiser step: data read, model loaded, choices made and explained."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from fenlei.artifact import fingerprint
from fenlei.audit.warnings import data_warnings
from fenlei.config import RunConfig
from fenlei.data.examples import Example, candidates_of
from fenlei.data.splits import Dataset, load_dataset
from fenlei.errors import ConfigError, first_few
from fenlei.inference.loading import encode_examples
from fenlei.inference.windows import UNREAD_CANDIDATES
from fenlei.labels import LabelNote
from fenlei.models.backbone import classifier_labels
from fenlei.models.configuration import load_config
from fenlei.models.devices import Precision, fitting, pick_device, pick_precision
from fenlei.models.fingerprint import weights_fingerprint
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod, parameter_counts
from fenlei.models.lora import has_experts
from fenlei.models.qlora import check_four_bit
from fenlei.models.quantized import quantize_below_adapters, quantize_linears
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.text.instructions import Instruction
from fenlei.text.pair_encoder import text_encoder
from fenlei.text.prompts import TextEncoder
from fenlei.training.asking import encode_for_training, question_encoder
from fenlei.training.building import build_method, training_autocast
from fenlei.training.choices import choose, model_name
from fenlei.training.defaults import propose_prompt
from fenlei.training.imbalance import class_counts, proposal
from fenlei.training.lessons import Lessons
from fenlei.training.memory import with_batch_tokens
from fenlei.training.objectives import choose_loss
from fenlei.training.spread import check_options, place

FIRST_TOKEN_NOTE = "first token {}: put before every text, as the tokenizer puts none there and a decoder loses much of what stands first"
UNREAD_NOTES = "descriptions and aliases of labels are not read: a head learns from rows alone; --method generate shows them to the model"
EXPERTS_NOTE = "qlora: only linears are kept in 4 bits, and experts are none: this model takes little less memory than with --tuning lora"
SMALLER = "take --tuning lora or qlora, --gradient-checkpointing, a smaller --max-length, fewer --layers or a smaller model"


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
    lessons: Lessons
    """What is learned from."""

    @property
    def rows(self) -> tuple[Example, ...]:
        """What is trained on, a row each of `train`."""
        return (*self.dataset.train, *self.lessons.unlabelled)

    def data_fingerprints(self) -> dict[str, str]:
        """SHA-256 of every file that rows came from, by its name as given."""
        return data_fingerprints((*self.rows, *self.dataset.selecting, *self.dataset.calibrating, *self.dataset.test))

    def rests_on(self) -> dict[str, Any]:
        """What must be as it was for a training to be gone on with, beside its options; as plain values."""
        instruction = self.encoder.instruction if isinstance(self.encoder, QuestionEncoder) else None
        base = base_fingerprints(self.base, instruction)
        return {"labels": list(self.dataset.labels), "files": self.data_fingerprints(), "base": base}

    @property
    def autocast(self) -> torch.dtype | None:
        """What training computes its matrix products in, where the backbone's weights are float32 because they learn."""
        return training_autocast(self.config, self.precision)

    @property
    def scoring_autocast(self) -> torch.dtype | None:
        """What rows are scored in while the network learns: as the finished run computes, so None where its weights are float32."""
        return self.autocast if self.precision.weights != torch.float32 else None

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


def base_fingerprints(base: Path, instruction: Instruction | None) -> dict[str, str]:
    """SHA-256 of the base model and, of the generate method, of what is said beside the prompt's template."""
    told = {"base model": f"{fingerprint(base / 'config.json')} {weights_fingerprint(base)}"}
    if instruction is not None:
        told["prompt"] = hashlib.sha256(json.dumps(instruction.to_json(), sort_keys=True).encode()).hexdigest()
    return told


def prepare(
    config: RunConfig,
    *,
    head: nn.Module | None = None,
    dataset: Dataset | None = None,
    unlabelled: Sequence[Example] = (),
    instruction: Instruction | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    notes: Sequence[str] = (),
) -> Setup:
    """Reads the data, unless it is given, and loads the model; `train` holds the rows `unlabelled` behind those of the dataset.

    `instruction`: generate: the prompt that an older run has asked with; None: one is written for the labels. `tokenizer`: what such a run
    has read texts with; None: the base model's, for a head with a first token. `notes`: what there is to say of the data already.
    ConfigError, DataError or ModelError where something cannot work, before anything is written.
    """
    if config.data.data is None:
        raise ConfigError("no data: give the labelled file or folder to train on")
    model_name(config)  # a run without one ends before its data is read
    seed = config.optimization.seed
    dataset = dataset or load_dataset(config.data, seed=seed)
    chosen = choose(config, dataset, head=head, unlabelled=len(unlabelled), instruction=instruction, tokenizer=tokenizer)
    config, dataset, tokenizer = chosen.config, chosen.dataset, chosen.tokenizer
    encoder = _encoder(config, dataset, tokenizer, chosen.instruction)
    device, why_device = pick_device(config.optimization.device)
    precision = pick_precision(device, chosen.parameters)
    check_options(config, precision)
    _check_int8(config)
    torch.manual_seed(seed)
    if config.model.tuning == "qlora":
        check_four_bit(device)
    method, kind = build_method(config, chosen.base, dataset, int(tokenizer.pad_token_id), precision, head, device)
    train = encode_for_training(encoder, (*dataset.train, *unlabelled), config.model)
    selecting = encode_examples(encoder, dataset.selecting)
    trainable, everything = parameter_counts(method)
    with fitting(device, SMALLER):
        method = _placed(method, config, device)
        config, budget = with_batch_tokens(config, method, train.longest_input, training_autocast(config, precision))
    label_ids = dataset.gold(dataset.train)
    counts = class_counts(label_ids, len(dataset.labels))
    lessons = Lessons(torch.from_numpy(label_ids), choose_loss(config, counts, multi_label=dataset.multi_label))
    proposed_prompt = propose_prompt(config.model, chosen.parameters, decodes=chosen.solved)
    notes = (
        *notes,
        *_data_notes(config, dataset, counts),
        *map(str, (*chosen.reasons, *budget)),
        *([proposed_prompt] if proposed_prompt else []),
        why_device,
        precision.reason,
        *([EXPERTS_NOTE] if config.model.tuning == "qlora" and has_experts(method.stock) else []),
        *([FIRST_TOKEN_NOTE.format(chosen.first_token)] if chosen.first_token else []),
        *filter(None, [config.trust.without_effect]),
        *_head_note(chosen.base, dataset, kind),
        f"trainable parameters: {trainable:,} of {everything:,} ({trainable / everything:.2%})",
        *_length_note(train, encoder.max_length, beside_prompt=chosen.instruction is not None or config.model.prompt is not None),
    )
    return Setup(
        config, dataset, chosen.base, tokenizer, encoder, method, kind, device, precision,
        train, label_ids, selecting, trainable, everything, notes, chosen.solved, lessons,
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


def _encoder(
    config: RunConfig, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, instruction: Instruction | None
) -> TextEncoder | QuestionEncoder:
    """How texts become ids."""
    if instruction is not None:
        return question_encoder(tokenizer, config, dataset, instruction)
    limit, long = int(config.model.max_length or 0), config.model.long or "truncate"
    return text_encoder(tokenizer, config.model.prompt, limit, long, pairs=config.data.pair_column is not None)


def _data_notes(config: RunConfig, dataset: Dataset, counts: np.ndarray) -> list[str]:
    """What the reading found, what may be wrong with the rows, and what uneven classes ask for."""
    told = [name not in dataset.thinned for name in dataset.labels]
    proposed = proposal(config, counts[told], multi_label=dataset.multi_label)
    warnings = data_warnings(dataset, uneven=proposed is None)  # the proposal says it with a cure
    unread = [UNREAD_CANDIDATES] if candidates_of(dataset.train) else []
    unread += [UNREAD_NOTES] if any(note != LabelNote() for note in dataset.label_notes.values()) else []
    return [*dataset.notes, *warnings, *([proposed] if proposed else []), *(unread if config.model.method == "head" else [])]


def _head_note(base: Path, dataset: Dataset, kind: str | None) -> list[str]:
    """Where the head comes from, if the base model has one of its own."""
    names = classifier_labels(load_config(base))
    if names is None or kind != "linear":
        return []
    if names == dataset.labels.names:
        return ["head: that of the base model, which is a classifier of the same labels"]
    return [f"head: fresh, for the base model is a classifier of other labels ({first_few(names, 5)})"]


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

"""What is decided before a network is loaded: data checked, the base model found, and what the user left open chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from fenlei.config import RunConfig
from fenlei.data.examples import candidates_of
from fenlei.data.splits import Dataset
from fenlei.errors import ConfigError
from fenlei.inference.trust import check_promises
from fenlei.models.backbone import backbone_parameters, load_tokenizer
from fenlei.models.configuration import UNLIMITED, load_config, longest_input
from fenlei.models.hub import resolve_model
from fenlei.text.first_token import set_first_token
from fenlei.text.instructions import Instruction
from fenlei.text.pair_encoder import text_encoder
from fenlei.text.prompts import refuse_place_of_labels
from fenlei.training.asking import question_tokens, with_question
from fenlei.training.defaults import (
    Choice,
    choose_batch_size,
    choose_epochs,
    choose_learning_rate,
    choose_long,
    choose_max_length,
    choose_tuning,
)
from fenlei.training.imbalance import check_imbalance
from fenlei.training.promises import read_out_of_scope
from fenlei.training.solved_head import has_solution

MEASURED_TEXTS = 2000
"""Training texts whose lengths decide how long ones are read."""


@dataclass(frozen=True)
class Choices:
    """A run whose network is not loaded yet."""

    config: RunConfig
    """With every choice filled in but the token budget, which is measured on the network."""
    reasons: tuple[Choice, ...]
    dataset: Dataset
    """As the method needs it: for generate with the labels that rows offer, and without the rows that the prompt shows."""
    instruction: Instruction | None
    """What generate asks with."""
    base: Path
    """Folder of the base model."""
    tokenizer: PreTrainedTokenizerBase
    first_token: str | None
    """What was set to begin every text, since the tokenizer sets nothing."""
    parameters: int
    """Of the backbone."""
    solved: bool
    """See `has_solution`."""


def model_name(config: RunConfig) -> str:
    """What the user calls the base model; ConfigError where none is named."""
    if config.model.model is None:
        raise ConfigError("no model: give --model a local folder, `nano`, or a Hugging Face or ModelScope id")
    return config.model.model


def choose(
    config: RunConfig,
    dataset: Dataset,
    *,
    head: nn.Module | None = None,
    unlabelled: int = 0,
    instruction: Instruction | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Choices:
    """For rows that were read; `unlabelled` more will be learned from. `head`, `instruction` and `tokenizer`: see `prepare`.

    ConfigError, DataError or ModelError where something cannot work.
    """
    _check_data(config, dataset)
    base = resolve_model(model_name(config), revision=config.model.revision, source=config.model.source)
    first = None
    if tokenizer is None:
        tokenizer = load_tokenizer(base)
        first = set_first_token(tokenizer, config.model.prompt) if config.model.method == "head" else None
    parameters, model_takes = backbone_parameters(base, config.model.layers), longest_input(load_config(base))
    if config.model.method == "generate":
        dataset, instruction = with_question(config, dataset, tokenizer, instruction)
    config, reading = _with_long(config, dataset, tokenizer, model_takes, instruction)
    solved = has_solution(config, base, dataset.labels, head)
    config, filled_in = _filled_in(config, len(dataset.train) + unlabelled, parameters, model_takes, solved=solved)
    return Choices(config, (*reading, *filled_in), dataset, instruction, base, tokenizer, first, parameters, solved)


def _check_data(config: RunConfig, dataset: Dataset) -> None:
    """ConfigError or DataError for what the data does not allow, before a model is loaded."""
    if config.model.method == "head":
        refuse_place_of_labels(config.model.prompt)
    check_promises(config.trust, len(dataset.calibrating), multi_label=dataset.multi_label)
    check_imbalance(config, multi_label=dataset.multi_label)
    if dataset.multi_label and config.data.store_exemplars is not None:
        raise ConfigError("store_exemplars keeps rows of each class, and here a row has any number of them; leave it out")
    if dataset.multi_label and (config.model.objective == "tokens" or config.model.shots):
        raise ConfigError(
            "multi-label: objective 'tokens' and shots are for one answer a row; leave them out, each label is asked yes or no"
        )
    if config.trust.out_of_scope is not None:
        rows = (*dataset.train, *dataset.selecting, *dataset.calibrating)
        if config.model.method == "generate" and candidates_of(rows) is not None:
            raise ConfigError(
                "out_of_scope: its texts offer no candidates, so they would be asked among all labels, and these rows are among their own; "
                "leave it out"
            )
        # That it can be read is better known before training than after.
        read_out_of_scope(config.trust.out_of_scope, dataset.train[0].text_columns)


def _with_long(
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


def _filled_in(config: RunConfig, rows: int, parameters: int, model_takes: int, *, solved: bool) -> tuple[RunConfig, list[Choice]]:
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

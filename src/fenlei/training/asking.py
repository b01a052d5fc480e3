"""What the generate method adds to a setup: the labels that rows offer, examples for the prompt, and rows encoded to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from fenlei.config import ModelConfig, RunConfig
from fenlei.data.examples import Example, candidates_of, with_offered
from fenlei.data.splits import Dataset
from fenlei.errors import ConfigError
from fenlei.inference.loading import encode_examples, offered_to
from fenlei.models.configuration import UNLIMITED
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts
from fenlei.text.instructions import Instruction, compose
from fenlei.text.prompts import TextEncoder


def with_candidates(dataset: Dataset) -> Dataset:
    """The dataset with every candidate of its rows among its labels; DataError for a row whose own label is no candidate of it."""
    rows = (*dataset.train, *dataset.selecting, *dataset.calibrating, *dataset.test)
    labels = with_offered(dataset.labels, rows)
    if candidates_of(rows) is None:
        return dataset
    new = len(labels) - len(dataset.labels)
    note = "candidates: rows are asked among those of their own" + (f"; {new:,} labels come from them alone" if new else "")
    return replace(dataset, labels=labels, notes=(*dataset.notes, note))


def take_shots(dataset: Dataset, shots: int, seed: int) -> tuple[Dataset, list[tuple[str, str]]]:
    """The dataset without `shots` of its training rows, and these as (text, label), the classes in turn."""
    if not shots:
        return dataset, []
    order = np.random.default_rng(seed).permutation(len(dataset.train)).tolist()
    turns: dict[str, int] = {}
    drawn: list[tuple[int, int, int]] = []
    for row in order:
        label = str(dataset.train[row].label)
        turns[label] = turns.get(label, 0) + 1
        drawn.append((turns[label], dataset.labels.id(label), row))
    chosen = [row for _, _, row in sorted(drawn)[:shots]]
    left = set(range(len(dataset.train))) - set(chosen)
    if not left:
        raise ConfigError(f"shots {shots} would take all {len(dataset.train)} training rows; give fewer")
    train = tuple(dataset.train[row] for row in sorted(left))
    examples = [(dataset.train[row].text, str(dataset.train[row].label)) for row in chosen]
    return replace(dataset, train=train), examples


def with_question(
    config: RunConfig, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, instruction: Instruction | None
) -> tuple[Dataset, Instruction]:
    """The dataset as the generate method needs it, and what rows are asked with: `instruction`, or one that is written for the labels."""
    dataset = with_candidates(dataset)
    if instruction is not None:
        return dataset, instruction
    dataset, shots = take_shots(dataset, config.model.shots, config.optimization.seed)
    return dataset, written_for(tokenizer, config, dataset, shots)


def question_tokens(tokenizer: PreTrainedTokenizerBase, dataset: Dataset, instruction: Instruction) -> int:
    """What a question takes beside the text: that of the first training row, which may have candidates of its own."""
    encoder = QuestionEncoder(tokenizer, instruction, dataset.labels, UNLIMITED)
    return UNLIMITED - encoder.question(dataset.train[0].candidates).room


def written_for(tokenizer: PreTrainedTokenizerBase, config: RunConfig, dataset: Dataset, shots: Sequence[tuple[str, str]]) -> Instruction:
    """The prompt that asks for the labels of a dataset."""
    return compose(
        tokenizer,
        config.model.prompt,
        dataset.labels.names,
        dataset.label_notes,
        shots,
        multi_label=dataset.multi_label,
        pairs=config.data.pair_column is not None,
    )


def question_encoder(tokenizer: PreTrainedTokenizerBase, config: RunConfig, dataset: Dataset, instruction: Instruction) -> QuestionEncoder:
    """The encoder that the run will be trained, measured and used with."""
    model = config.model
    encoder = QuestionEncoder(tokenizer, instruction, dataset.labels, int(model.max_length or 0), model.long or "truncate")
    if any(row.candidates is None for row in dataset.train):
        encoder.question()  # too many labels show before the model is loaded
    return encoder


def encode_for_training(encoder: TextEncoder | QuestionEncoder, rows: Sequence[Example], config: ModelConfig) -> EncodedTexts:
    """Each row with what its loss needs: of generate all labels, or the right one and its end."""
    if isinstance(encoder, QuestionEncoder) and config.objective == "tokens":
        return encoder.encode_answers([row.input for row in rows], [str(row.label) for row in rows], offered_to(encoder, rows))
    return encode_examples(encoder, rows)

"""What the export of a generate run has besides weights: the prompt as plain text, and proof against a plain forward pass.

The folder is a stock causal language model: `AutoModelForCausalLM` opens it, and vLLM's completion server, whose structured choice keeps
its answers to the labels. Temperature and prior are no weights, so what such a server says of its own probability is not calibrated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from fenlei.artifact import write_text
from fenlei.errors import ConfigError
from fenlei.text.answers import ROOT, AnswerTree
from fenlei.text.asking import QuestionEncoder
from fenlei.text.encoded import EncodedTexts

PROMPT_FILE = "prompt.json"
PARITY_BATCH = 16


def refuse_prior(manifest: dict[str, Any], force: bool) -> None:
    """ConfigError for a run whose answers are corrected by the labels' prior, which is no weight."""
    if manifest["prior_correction"] and not force:
        raise ConfigError(
            "the run takes off what each label scores on an empty text, which a stock language model does not; with --force the folder is "
            "written, and answers without that correction"
        )


def write_prompt(folder: Path, encoder: QuestionEncoder, tokenizer: PreTrainedTokenizerBase) -> None:
    """prompt.json: the prompt with {text} in it (and {pair}, where the run reads pairs), the labels, and what ends an answer."""
    before, between, after = encoder.instruction.around(tokenizer, encoder.labels.names)
    second = f"{tokenizer.decode(between)}{{pair}}" if encoder.pairs else ""
    told = {
        "prompt": f"{tokenizer.decode(before)}{{text}}{second}{tokenizer.decode(after)}",
        "labels": [encoder.instruction.leading_space + name for name in encoder.labels],
        "stop": encoder.instruction.terminator,
        "max_length": encoder.max_length,
    }
    write_text(folder / PROMPT_FILE, json.dumps(told, ensure_ascii=False, indent=2) + "\n")


@torch.inference_mode()
def stock_scores(folder: Path, encoded: EncodedTexts, pad_id: int) -> np.ndarray:
    """Log-probabilities, float32 (rows, labels), by plain transformers: every branch of the tree as a row of its own, padded."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32).eval()
    question = encoded.questions[0]
    branches = list(_branches(question.tree))
    scores = np.full((len(encoded), question.width), -np.inf, dtype=np.float32)
    sequences = []
    for row in range(len(encoded)):
        own = encoded[row].tolist()
        prompt = [*question.before, *own[: len(own) - len(question.tree.tokens)]]
        sequences += [(row, prompt, branch) for branch in branches]
    steps = np.zeros((len(encoded), len(question.tree.step_tokens)), dtype=np.float32)
    for first in range(0, len(sequences), PARITY_BATCH):
        part = sequences[first : first + PARITY_BATCH]
        longest = max(len(prompt) + len(branch) for _, prompt, branch in part)
        ids = torch.full((len(part), longest), pad_id)
        mask = torch.zeros_like(ids)
        for at, (_, prompt, branch) in enumerate(part):
            whole = torch.tensor([*prompt, *(question.tree.tokens[node] for node in branch)])
            ids[at, : len(whole)], mask[at, : len(whole)] = whole, 1
        logits = model(input_ids=ids, attention_mask=mask).logits
        for at, (row, prompt, branch) in enumerate(part):
            last = len(prompt) - 1
            places = {ROOT: last, **{node: last + 1 + depth for depth, node in enumerate(branch)}}
            for step, (node, token) in enumerate(zip(question.tree.step_nodes, question.tree.step_tokens, strict=True)):
                if node in places:
                    after = logits[at, places[node]].float()
                    steps[row, step] = float(after[token] - after.logsumexp(-1))
    for column, path in zip(question.columns, question.tree.paths, strict=True):
        scores[:, column] = steps[:, list(path)].sum(axis=1)
    return scores


def _branches(tree: AnswerTree) -> Iterator[list[int]]:
    """The nodes from the root to each node that has no node behind it; one empty branch where there are no nodes."""
    inner = set(tree.parents)
    leaves = [node for node in range(len(tree.tokens)) if node not in inner]
    if not leaves:
        yield []
    for leaf in leaves:
        branch = [leaf]
        while tree.parents[branch[0]] != ROOT:
            branch.insert(0, tree.parents[branch[0]])
        yield branch

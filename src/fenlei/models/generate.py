"""The generate method: log p(label | prompt, text) of every label, from the language model itself, all labels as one tree.

Multi-label asks yes or no of each label, all of them branches of one tree again. Nothing is generated and nothing parsed: the answer is
always a label, with its probability. The prefix is read once a label set, a text once, label beginnings that are shared once; the output
projection is computed at the places where an answer goes on, and nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.models.method import Output
from fenlei.models.passages import average, read_windows
from fenlei.models.projection import Projection
from fenlei.models.shared_prefix import Group, Packed, PrefixStates, group_rows
from fenlei.text.batches import Batch, DocumentBatch, sent
from fenlei.text.encoded import Question

Key = TypeVar("Key")
Value = TypeVar("Value")

KEPT_PREFIXES = 8
"""Label sets whose prefix is kept; a service is asked with few."""


class GenerateMethod(nn.Module):
    """A stock causal language model, bare or inside a PeftModel, called on batches with questions.

    correct_prior: in evaluation, what each label scores on an empty text is taken off (Zhao et al. 2021, "Calibrate before use"; Holtzman
    et al. 2021, "Surface form competition"): a label that the model is fond of whatever the text gains nothing by it.
    """

    def __init__(self, network: nn.Module, pad_id: int, *, correct_prior: bool = False) -> None:
        super().__init__()
        self.network = network
        self.pad_id = pad_id
        self.correct_prior = correct_prior
        self.in_step = False
        """Whether every call has to be one forward pass, as other processes take part in it: then no prefix is kept."""
        self._projection = Projection(self.stock)
        self._prefixes: OrderedDict[tuple[int, ...], PrefixStates] = OrderedDict()
        self._priors: OrderedDict[Question, torch.Tensor] = OrderedDict()

    @property
    def stock(self) -> PreTrainedModel:
        """The transformers model itself; LoRA layers, if any, sit inside it."""
        network = cast(Any, self.network)
        return cast(PreTrainedModel, network.get_base_model() if hasattr(network, "get_base_model") else network)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> GenerateMethod:
        """As for any module; what was kept of prefixes is forgotten, since the weights may have moved."""
        self._forget()
        return super().train(mode)

    def forward(self, batch: Batch | DocumentBatch) -> Output:
        if isinstance(batch, DocumentBatch):  # the mean of log p is their geometric mean: no window can say yes alone
            return Output(average(read_windows(batch, self._scored, self.device), batch.counts.to(self.device)), None)
        return Output(self._scored(batch), None)

    def _scored(self, batch: Batch) -> torch.Tensor:
        logits = self._score(_rows(batch), batch.questions)
        if self.correct_prior and not self.training:
            asked = {id(question): question for question in batch.questions}
            priors = dict(zip(asked, self._all_priors(list(asked.values())), strict=True))
            logits = logits - torch.stack([priors[id(question)] for question in batch.questions]).nan_to_num(neginf=0.0)
        return logits

    def _score(self, rows: Sequence[np.ndarray], questions: Sequence[Question]) -> torch.Tensor:
        """float32 (rows, labels): log p of each answer to each row's question, or of yes less that of no; -inf for what is no candidate."""
        packed, starts = self._pack(rows, questions)
        states = self._states(packed)
        ends = [start + len(row) - len(question.tree.tokens) - 1 for start, row, question in zip(starts, rows, questions, strict=True)]
        planned = plan_steps(questions, ends)
        plan = planned.to(states.device)
        steps = self._projection.log_probabilities(states[plan.positions], plan.places, planned.tokens)
        answers = torch.zeros(len(plan.cells), device=states.device).index_add(0, plan.answers, steps[plan.parts])
        width = questions[0].width
        cells = torch.full((len(rows), width), -torch.inf, device=states.device)
        logits = cells.index_put((plan.cells // width, plan.cells % width), answers)
        return _yes_over_no(logits) if questions[0].asks_each else logits

    def _states(self, packed: Packed) -> torch.Tensor:
        """Last hidden states, (tokens, hidden)."""
        backbone = cast(Any, self.stock.base_model)
        answer = backbone(input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed)
        return cast(torch.Tensor, answer.last_hidden_state[0])

    def _pack(self, texts: Sequence[np.ndarray], questions: Sequence[Question]) -> tuple[Packed, list[int]]:
        """The rows behind their prefixes, and where each row begins. Rows keep their order within a prefix."""
        behind: dict[tuple[int, ...], list[int]] = {}
        for row, question in enumerate(questions):
            behind.setdefault(question.before, []).append(row)
        keep = len(behind) == 1 and not torch.is_grad_enabled() and not self.in_step
        ids: list[np.ndarray] = []
        positions: list[torch.Tensor] = []
        groups: list[Group] = []
        starts = [0] * len(texts)
        at = 0
        for before, rows in behind.items():
            states = self._prefix(before) if keep and before else None
            if states is None:
                ids.append(np.array(before, dtype=np.int64))
                positions.append(torch.arange(len(before)))
                at += len(before)
            group = self._group([len(texts[row]) for row in rows], [questions[row] for row in rows], len(before), states)
            groups.append(group.to(self.device))
            positions.append(group.flatten(group.positions))
            for row in rows:
                starts[row] = at
                ids.append(texts[row])
                at += len(texts[row])
        sequence = torch.from_numpy(np.concatenate(ids).astype(np.int64))
        return Packed(sent(sequence[None], self.device), sent(torch.cat(positions)[None], self.device), tuple(groups)), starts

    def _group(self, lengths: list[int], questions: list[Question], prefix: int, states: PrefixStates | None) -> Group:
        """Rows of these lengths, the trees of their questions at their ends (without questions: plain text).

        On the CPU, but for what is visible: much the largest, it is made where it is needed.
        """
        longest = max(lengths)
        positions = torch.arange(longest).repeat(len(lengths), 1)
        visible = torch.ones(longest, longest, dtype=torch.bool, device=self.device).tril().repeat(len(lengths), 1, 1)
        trees: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for row, question in enumerate(questions):
            if not question.tree.tokens:
                continue
            key = id(question.tree)
            if key not in trees:
                trees[key] = torch.tensor(question.tree.depths), sent(torch.from_numpy(question.tree.ancestry), self.device)
            depths, ancestry = trees[key]
            ends = lengths[row]
            first = ends - len(depths)
            positions[row, first:ends] = first + depths
            visible[row, first:ends, first:ends] = ancestry
        return group_rows(lengths, positions, visible, prefix=prefix, states=states)

    def _prefix(self, before: tuple[int, ...]) -> PrefixStates:
        """Keys and values of a prefix, computed once."""

        def read() -> PrefixStates:
            kept = PrefixStates({}, {}, len(before))
            alone = self._group([len(before)], [], 0, None).to(self.device)
            self._states(Packed(torch.tensor([before], device=self.device), alone.positions, (alone,), kept))
            return kept

        return _remembered(self._prefixes, before, read)

    def _all_priors(self, questions: Sequence[Question]) -> Sequence[torch.Tensor]:
        """The prior of each. Where there are more than are kept, two small passes for each would leave a GPU idle: they are read together,
        and not kept, so that what is said of a batch does not depend on those before it.
        """
        if len(questions) > KEPT_PREFIXES:
            return self._score([_nothing(question) for question in questions], questions).unbind()
        return [self._prior(question) for question in questions]

    def _prior(self, question: Question) -> torch.Tensor:
        """What each column scores on an empty text, float32 (columns,)."""
        return _remembered(self._priors, question, lambda: self._score([_nothing(question)], [question])[0])

    def _forget(self) -> None:
        if hasattr(self, "_prefixes"):
            self._prefixes.clear()
            self._priors.clear()

    def _apply(self, *args: Any, **kwargs: Any) -> GenerateMethod:
        self._forget()
        return cast(GenerateMethod, cast(Any, super())._apply(*args, **kwargs))


@dataclass(frozen=True)
class Steps:
    """Which tokens to score after which states, and which of them make up each answer."""

    positions: torch.Tensor
    """int64: where in the sequence a step is taken from."""
    places: torch.Tensor
    """int64 (steps,): from which of `positions`."""
    tokens: torch.Tensor
    """int64 (steps,): to which token."""
    parts: torch.Tensor
    """int64: the steps of all answers, one answer after the other."""
    answers: torch.Tensor
    """int64: the answer that each of `parts` belongs to."""
    cells: torch.Tensor
    """int64 (answers,): where each answer stands among the logits, row by row."""

    def to(self, device: torch.device) -> Steps:
        return Steps(*(sent(getattr(self, one.name), device) for one in fields(self)))


def plan_steps(questions: Sequence[Question], ends: Sequence[int]) -> Steps:
    """For rows whose prompt ends at these places of the sequence, with the nodes of their trees behind it."""
    asking: dict[int, list[int]] = {}
    for row, question in enumerate(questions):
        asking.setdefault(id(question), []).append(row)
    found: dict[str, list[np.ndarray]] = {one.name: [] for one in fields(Steps)}
    counts = {"positions": 0, "steps": 0, "answers": 0}
    for rows in asking.values():
        question, number = questions[rows[0]], np.arange(len(rows))[:, None]
        tree = question.tree
        nodes, local = np.unique(tree.step_nodes, return_inverse=True)
        path = np.concatenate([np.array(one, dtype=np.int64) for one in tree.paths])
        owner = np.repeat(np.arange(len(tree.paths)), [len(one) for one in tree.paths])
        parts = {
            "positions": np.array([ends[row] for row in rows])[:, None] + 1 + nodes,
            "places": counts["positions"] + number * len(nodes) + local,
            "tokens": np.broadcast_to(tree.step_tokens, (len(rows), len(tree.step_tokens))),
            "parts": counts["steps"] + number * len(tree.step_tokens) + path,
            "answers": counts["answers"] + number * len(tree.paths) + owner,
            "cells": np.array(rows)[:, None] * question.width + np.array(question.columns),
        }
        for name, part in parts.items():
            found[name].append(part.ravel())
        counts["positions"] += parts["positions"].size
        counts["steps"] += parts["tokens"].size
        counts["answers"] += parts["cells"].size
    return Steps(**{name: torch.from_numpy(np.concatenate(part).astype(np.int64)) for name, part in found.items()})


def _yes_over_no(logits: torch.Tensor) -> torch.Tensor:
    """(rows, 2 x labels) to (rows, labels): log of yes over no; -inf where a label is not asked for."""
    yes, no = logits.chunk(2, dim=1)
    return (yes - no).masked_fill(yes.isneginf(), -torch.inf)


def _nothing(question: Question) -> np.ndarray:
    """An empty text, as it is read with the question."""
    read = [*question.between, *question.after] or [*question.stand_in]
    return np.array([*read, *question.tree.tokens], dtype=np.int64)


def _rows(batch: Batch) -> list[np.ndarray]:
    """The rows without their padding."""
    ids, lengths = batch.input_ids.cpu().numpy(), batch.attention_mask.sum(dim=1).tolist()
    return [row[:length] for row, length in zip(ids, lengths, strict=True)]


def _remembered(kept: OrderedDict[Key, Value], key: Key, compute: Callable[[], Value]) -> Value:
    """`kept[key]`, computed where it is not there; the one not asked for longest makes room."""
    if key not in kept:
        kept[key] = compute()
        if len(kept) > KEPT_PREFIXES:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]

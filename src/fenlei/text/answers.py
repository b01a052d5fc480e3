"""The labels of a question as one tree of tokens, so that beginnings they share are read once.

The root is the end of the prompt. A node is a token that something follows; what is scored are steps: one token after the root or after
a node. An answer's log-probability is the sum of its steps. Where one label begins another (体育, 体育彩票), the shorter one takes the
step that ends an answer as well; where no label goes on, nothing among these labels hangs on the end, and it is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fenlei.errors import ConfigError

ROOT = -1


@dataclass(frozen=True)
class AnswerTree:
    """Answers as steps from node to node; a node's parent stands before it."""

    tokens: tuple[int, ...]
    """(nodes,): the token of each node, to be read after the prompt."""
    parents: tuple[int, ...]
    """(nodes,): the node before it; ROOT for the prompt's end."""
    step_nodes: tuple[int, ...]
    """(steps,): the node that a step is taken from."""
    step_tokens: tuple[int, ...]
    """(steps,): the token that it goes to."""
    paths: tuple[tuple[int, ...], ...]
    """(answers,): the steps of each answer."""

    @property
    def depths(self) -> tuple[int, ...]:
        """(nodes,): tokens between the prompt's end and each node."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent == ROOT else found[parent] + 1)
        return tuple(found)

    @property
    def ancestry(self) -> np.ndarray:
        """Bool (nodes, nodes): whether the column's node is the row's own or lies between it and the root."""
        found = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                found[node] |= found[parent]
        return found


def answer_tree(answers: Sequence[Sequence[int]], end: Sequence[int]) -> AnswerTree:
    """The tree of distinct, non-empty answers; `end` is added to those that begin another one."""
    begun = {tuple(answer[:length]) for answer in answers for length in range(1, len(answer))}
    return _grow([[*answer, *end] if tuple(answer) in begun else list(answer) for answer in answers])


def answer_path(answer: Sequence[int], end: Sequence[int]) -> AnswerTree:
    """One answer with its end, every step scored: what a language model is taught to write."""
    return _grow([[*answer, *end]])


def yes_no_tree(labels: Sequence[Sequence[int]], yes: Sequence[int], no: Sequence[int]) -> AnswerTree:
    """Every label with a yes and with a no behind it: 2 x labels answers, first each label's yes, then each one's no.

    Labels are branches that do not see each other, so each is asked as if it were alone, and the text is read once for all. What is scored
    is where yes and no part: what comes before is the same for both.
    """
    same = next((at for at, (one, other) in enumerate(zip(yes, no, strict=False)) if one != other), min(len(yes), len(no)))
    answers = [[*label, *answer] for answer in (yes, no) for label in labels]
    return _grow(answers, [len(label) + same for _ in (yes, no) for label in labels])


def check_distinct(names: Sequence[str], answers: Sequence[Sequence[int]]) -> None:
    """ConfigError where a label has no tokens, or two labels have the same."""
    seen: dict[tuple[int, ...], str] = {}
    for name, answer in zip(names, answers, strict=True):
        if not answer:
            raise ConfigError(f"label {name!r} has no tokens in this model's vocabulary, so it cannot be answered; give it another name")
        other = seen.setdefault(tuple(answer), name)
        if other is not name:
            raise ConfigError(
                f"labels {other!r} and {name!r} are the same {len(answer)} tokens to this model, so it cannot tell them apart; rename one"
            )


def _grow(answers: Sequence[Sequence[int]], scored_from: Sequence[int] | None = None) -> AnswerTree:
    """`scored_from`: of each answer how many tokens are only read; None: all are scored."""
    nodes: dict[tuple[int, ...], int] = {(): ROOT}
    steps: dict[tuple[int, ...], int] = {}
    parents: list[int] = []
    paths = []
    for place, answer in enumerate(answers):
        path = []
        for length in range(1, len(answer) + 1):
            before, upto = tuple(answer[: length - 1]), tuple(answer[:length])
            if before not in nodes:
                nodes[before] = len(parents)
                parents.append(nodes[before[:-1]])
            if scored_from is None or length > scored_from[place]:
                path.append(steps.setdefault(upto, len(steps)))
        paths.append(tuple(path))
    return AnswerTree(
        tokens=tuple(begun[-1] for begun in nodes if begun),
        parents=tuple(parents),
        step_nodes=tuple(nodes[taken[:-1]] for taken in steps),
        step_tokens=tuple(taken[-1] for taken in steps),
        paths=tuple(paths),
    )

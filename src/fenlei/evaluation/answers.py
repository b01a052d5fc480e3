"""What a classifier says of rows, whether each has one label or any number. Without scikit-learn: prediction needs this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fenlei.evaluation.decision import Decision


@dataclass(frozen=True, eq=False)
class MultiLabelAnswers:
    """Any number of labels a row."""

    probabilities: np.ndarray
    """(rows, labels), each label by itself."""
    chosen: np.ndarray
    """bool (rows, labels): the labels given."""
    confidence: np.ndarray
    """float64 (rows,): that exactly these are right."""


Answers: TypeAlias = np.ndarray | MultiLabelAnswers
"""Probabilities (rows, labels), the most probable label being the answer; or the labels that each row is given."""


def answers_of(decision: Decision, probabilities: np.ndarray) -> MultiLabelAnswers:
    """What a decision makes of probabilities (rows, labels)."""
    return MultiLabelAnswers(probabilities, decision.chosen(probabilities), decision.confidence(probabilities))


def right_rows(gold: np.ndarray, answers: Answers) -> np.ndarray:
    """Whether the answer of each row is right, multi-label to the last label: bool (rows,).

    gold: label ids (rows,), or bool (rows, labels).
    """
    if isinstance(answers, MultiLabelAnswers):
        return np.asarray((answers.chosen == gold).all(axis=1))
    return np.asarray(answers.argmax(axis=1) == gold)


def confidence_and_gold(answers: Answers, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What reliability.answers takes: probabilities and label ids, or the confidence and whether the answer is right."""
    return (answers.confidence, right_rows(gold, answers)) if isinstance(answers, MultiLabelAnswers) else (answers, gold)

"""How good the answers are at each level of a hierarchy: 科技##手机 for 科技##航天 is right at the first and wrong at the second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fenlei.evaluation.answers import Answers, MultiLabelAnswers, answers_of
from fenlei.evaluation.decision import plain_decision
from fenlei.evaluation.metrics import compute_metrics
from fenlei.evaluation.multi_label import compute_multi_label_metrics
from fenlei.hierarchy import Hierarchy
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class Level:
    """One level. With one label a row, labels that end above it count as they are; multi-label, a level has those that end there."""

    level: int
    """From 1, the topmost."""
    classes: int
    accuracy: float
    """Share of the rows that are right as far as this level, multi-label to the last label."""
    interval: tuple[float, float]
    """Wilson 95 % interval."""
    micro_f1: float
    macro_f1: float


def by_level(hierarchy: Hierarchy | None, gold: np.ndarray, answers: Answers, labels: LabelSet) -> tuple[Level, ...]:
    """One entry a level, the topmost first; none without a hierarchy, or where it has one level alone.

    gold: label ids (rows,), or multi-label bool (rows, labels).
    """
    depth = 0 if hierarchy is None else hierarchy.levels(labels)
    if hierarchy is None or depth < 2:
        return ()
    of_level = _of_sets if isinstance(answers, MultiLabelAnswers) else _of_ids
    return tuple(of_level(hierarchy, level, gold, answers, labels) for level in range(1, depth + 1))


def _of_ids(hierarchy: Hierarchy, level: int, gold: np.ndarray, answers: Answers, labels: LabelSet) -> Level:
    """A row is of the class that its label lies below at this level."""
    assert not isinstance(answers, MultiLabelAnswers)
    names = LabelSet.in_order_of_appearance(hierarchy.at_level(name, level) for name in labels)
    class_of = np.array(names.ids([hierarchy.at_level(name, level) for name in labels]))
    given, own = class_of[answers.argmax(axis=1)], class_of[gold]
    figures = compute_metrics(own, np.eye(len(names))[given], names)
    return Level(level, len(names), figures.accuracy, figures.accuracy_interval, figures.accuracy, figures.macro_f1)


def _of_sets(hierarchy: Hierarchy, level: int, gold: np.ndarray, answers: Answers, labels: LabelSet) -> Level:
    """The labels of this level, each row having any number of them."""
    assert isinstance(answers, MultiLabelAnswers)
    here = [at for at, name in enumerate(labels) if hierarchy.level(name) == level]
    shares = answers.chosen[:, here].astype(np.float64)
    own = answers_of(plain_decision(len(here)), shares)
    figures = compute_multi_label_metrics(gold[:, here], own, LabelSet(tuple(labels.name(at) for at in here)))
    return Level(level, len(here), figures.accuracy, figures.accuracy_interval, figures.micro_f1, figures.macro_f1)

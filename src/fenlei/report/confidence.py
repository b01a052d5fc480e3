"""What the confidence of a run was worth on the rows evaluated: reliability, silence, prediction sets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fenlei.evaluation.abstention import accuracy_by_coverage
from fenlei.evaluation.answers import Answers, confidence_and_gold, right_rows
from fenlei.evaluation.metrics import wilson_interval
from fenlei.evaluation.reliability import ReliabilityBin, expected_calibration_error, reliability

if TYPE_CHECKING:
    from fenlei.inference.prediction import Prediction
    from fenlei.inference.trust import Trust


@dataclass(frozen=True)
class Silence:
    """What a threshold did to the rows that it was fitted for."""

    min_confidence: float
    target_accuracy: float | None
    answered: int
    rows: int
    unpromised: int
    """Rows besides, asked among labels that it was not fitted for."""
    accuracy: float | None
    """Of the answered rows; None where there are none."""
    interval: tuple[float, float] | None
    """Wilson 95 % interval of it."""

    @property
    def coverage(self) -> float:
        """The share of the rows that is answered."""
        return self.answered / self.rows


@dataclass(frozen=True)
class Sets:
    """What prediction sets did on the rows that they were fitted for."""

    score: str
    asked: float
    """The coverage they were fitted for."""
    reached: float
    """The share of the rows whose label is in the set."""
    interval: tuple[float, float]
    """Wilson 95 % interval of it."""
    mean_size: float
    empty: float
    """The share of the rows whose set is empty."""
    sizes: tuple[tuple[int, int], ...]
    """Size of a set, and the rows that have such a set."""
    unpromised: int
    """Rows besides, asked among labels that the sets were not fitted for."""


@dataclass(frozen=True)
class Confidence:
    """How far the confidence can be believed."""

    before: tuple[ReliabilityBin, ...]
    """Of the raw network."""
    after: tuple[ReliabilityBin, ...]
    """Calibrated."""
    error_before: float
    """The expected calibration error of the raw network."""
    coverages: tuple[float, ...]
    """Shares of the rows, the most confident first."""
    accuracies: tuple[float, ...]
    """The accuracy of each share."""
    silence: Silence | None
    sets: Sets | None

    def to_json(self) -> dict[str, Any]:
        """The same as plain lists, numbers and strings."""
        return dataclasses.asdict(self)


def measure_confidence(
    logits: np.ndarray, answers: Answers, gold: np.ndarray, predictions: Sequence[Prediction], trust: Trust, names: Sequence[str]
) -> Confidence:
    """Of raw logits (rows, labels), the answers, the labels of the rows, and the predictions made of them under `trust`."""
    unfitted = trust.unfitted()
    raw_answers = unfitted.answers(unfitted.probabilities(logits))
    right = right_rows(gold, answers)
    raw, raw_gold = confidence_and_gold(raw_answers, gold)
    calibrated, own_gold = confidence_and_gold(answers, gold)
    coverages, accuracies = accuracy_by_coverage(calibrated, own_gold)
    return Confidence(
        before=reliability(raw, raw_gold),
        after=reliability(calibrated, own_gold),
        error_before=expected_calibration_error(raw, raw_gold),
        coverages=tuple(coverages.tolist()),
        accuracies=tuple(accuracies.tolist()),
        silence=_silence(right, predictions, trust),
        sets=_sets(names, gold, predictions, trust),
    )


def _silence(right: np.ndarray, predictions: Sequence[Prediction], trust: Trust) -> Silence | None:
    rows = sum(one.abstained is not None for one in predictions)
    if trust.abstention is None or not rows:
        return None
    answered = np.array([one.abstained is False for one in predictions])
    kept, correct = int(answered.sum()), int(right[answered].sum())
    rule = trust.abstention
    accuracy, interval = (correct / kept, wilson_interval(correct, kept)) if kept else (None, None)
    return Silence(rule.min_confidence, rule.target_accuracy, kept, rows, len(predictions) - rows, accuracy, interval)


def _sets(names: Sequence[str], label_ids: np.ndarray, predictions: Sequence[Prediction], trust: Trust) -> Sets | None:
    with_gold = [(names[at], one.prediction_set) for at, one in zip(label_ids, predictions, strict=True) if one.prediction_set is not None]
    if trust.sets is None or not with_gold:
        return None
    chosen = [one for _, one in with_gold]
    held = sum(name in one for name, one in with_gold)
    sizes = Counter(map(len, chosen))
    return Sets(
        score=trust.sets.score,
        asked=trust.sets.coverage,
        reached=held / len(chosen),
        interval=wilson_interval(held, len(chosen)),
        mean_size=sum(map(len, chosen)) / len(chosen),
        empty=sizes[0] / len(chosen),
        sizes=tuple(sorted(sizes.items())),
        unpromised=len(predictions) - len(chosen),
    )

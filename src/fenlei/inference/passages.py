"""Which passages of a long text decided its answer, told with their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fenlei.errors import ConfigError
from fenlei.inference.prediction import Described, Passage, Prediction

TOLD_PASSAGES = 3
"""Of a text in a predicted row: its weights fall off quickly, and a book has hundreds."""


def check_has_passages(classifier: Described) -> None:
    """ConfigError where its answers do not say which passage counted."""
    long = classifier.describe().get("long", "truncate")
    if long not in ("windows", "max") or classifier.takes_labels:
        raise ConfigError(f"passages: this run does not weigh passages (its long is {long!r}); train with --long windows (method head)")


def weightiest(prediction: Prediction) -> tuple[Passage, ...]:
    """Its passages, the one that counted most first; equals in the order of the text."""
    return tuple(sorted(prediction.passages or (), key=lambda passage: -passage.weight))


def told_passages(text: str, prediction: Prediction) -> list[dict[str, Any]]:
    """The weightiest passages as a row holds them: from and to in characters, weight, text."""
    return [
        {"begin": one.begin, "end": one.end, "weight": round(one.weight, 6), "text": text[one.begin : one.end]}
        for one in weightiest(prediction)[:TOLD_PASSAGES]
    ]


def decisive_passage(text: str, prediction: Prediction) -> str | None:
    """The words of the weightiest passage; None where the text was read as one."""
    if prediction.passages is None or len(prediction.passages) < 2:
        return None
    best = weightiest(prediction)[0]
    return text[best.begin : best.end]


def where_it_counts(predictions: Sequence[Prediction]) -> str | None:
    """A line on which windows counted, over the texts with at least three; None where there are none."""
    weights_of = ([one.weight for one in prediction.passages or ()] for prediction in predictions)
    long = [weights for weights in weights_of if len(weights) > 2]
    if not long:
        return None
    first, last = (sum(weights[at] for weights in long) / len(long) for at in (0, -1))
    alike = sum(1 / len(weights) for weights in long) / len(long)
    return (
        f"Of {len(long):,} texts in three windows or more, the first window counts {first:.2f} on average, the last {last:.2f}; "
        f"alike they would count {alike:.2f}"
    )

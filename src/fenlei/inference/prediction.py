"""What is asked of a classifier, and what it says of one text. Without torch: a classifier may be at the other end of a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from fenlei.text.pairs import Text

Labels: TypeAlias = Sequence[str] | Sequence[Sequence[str] | None]
"""Labels to choose among: the same for all texts, or for each text its own (None: those of the run)."""


@dataclass(frozen=True)
class Passage:
    """A part of a long text that was read as one window."""

    begin: int
    end: int
    """From and to, in characters of the text."""
    weight: float
    """What it counted in the answer, between 0 and 1; all passages together count 1."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    """The most probable label."""
    confidence: float
    """Probability that the answer is right, between 0 and 1: that of `label`; multi-label, that exactly `labels` are right."""
    probabilities: Mapping[str, float]
    """Of every label that it was asked among, in label order; they sum to 1, but for multi-label, where each stands by itself."""
    calibrated: bool
    """Whether the probabilities were fitted to held-out rows."""
    tokens_cut: int
    """Tokens of the text that did not fit the length limit and were not read."""
    prediction_set: tuple[str, ...] | None = None
    """The labels that cannot be excluded, the likeliest first; None where no sets were asked for."""
    abstained: bool | None = None
    """Whether the confidence is below what answers need; None where no threshold was asked for."""
    novelty: float | None = None
    """The share of known rows that are less strange, 0 to 1; None where the run does not measure it."""
    labels: tuple[str, ...] | None = None
    """Multi-label: every label given, the likeliest first, maybe none; None where a text has one label."""
    passages: tuple[Passage, ...] | None = None
    """In the order of the text; None where it was not read in windows, or they all count the same."""
    tokens_read: int = 0
    """Tokens that went through the network for this text: its own, what is around it and, where labels are read, theirs."""

    @property
    def answer(self) -> str | list[str]:
        """The label, or the list of them: what files and people are given."""
        return self.label if self.labels is None else list(self.labels)


class Described(Protocol):
    """A classifier as far as it can be known without its network."""

    @property
    def takes_labels(self) -> bool:
        """Whether it can be asked among other labels than its own."""

    def describe(self) -> dict[str, Any]:
        """What the answers depend on: two that say the same here answer alike."""


class Predictor(Described, Protocol):
    """Whoever answers: a Classifier here, or a Client of one elsewhere."""

    def predict(self, texts: Sequence[Text], *, labels: Labels | None = None) -> list[Prediction]:
        """The answer for each text, or pair of texts."""

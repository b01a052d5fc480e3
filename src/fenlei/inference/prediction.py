"""What is said of one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    confidence: float
    """Probability of `label`, between 0 and 1."""
    probabilities: Mapping[str, float]
    """Of every label that it was asked among, in label order; they sum to 1."""
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
    tokens_read: int = 0
    """Tokens that went through the network for this text: its own, what is around it and, where labels are read, theirs."""

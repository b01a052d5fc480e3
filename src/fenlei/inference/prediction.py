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
    tokens_read: int = 0
    """Tokens that went through the network for this text: its own, what is around it and, where labels are read, theirs."""

"""When a run's answers are to be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SetScore = Literal["lac", "aps", "raps"]


@dataclass(frozen=True)
class TrustConfig:
    """When an answer is to be believed, and what is said beside it."""

    min_confidence: float | None = None
    """Rows below this confidence are marked as abstained. None: none is."""
    target_accuracy: float | None = None
    """The accuracy that answered rows are to have: finds the least confidence on the calibrating rows."""
    set_coverage: float | None = None
    """How often prediction sets are to hold the right label. None: no sets."""
    set_score: SetScore = "lac"
    """How sets are made: the smallest ones, maybe empty (`lac`), or such as are never empty (`aps`, `raps`)."""
    set_by_class: bool = False
    """Keep the coverage for the rows of each class, not over all rows alike."""
    out_of_scope: str | None = None
    """A file of texts outside the label set, by which the novelty score is chosen. None: energy."""

    @property
    def promises(self) -> bool:
        """Whether a threshold or sets are asked for."""
        return (self.min_confidence, self.target_accuracy, self.set_coverage) != (None, None, None)

    def problems(self) -> list[str]:
        found = []
        for name in ("min_confidence", "target_accuracy", "set_coverage"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                found.append(f"{name} must lie between 0 and 1, was {value}")
        if self.min_confidence is not None and self.target_accuracy is not None:
            found.append("min_confidence and target_accuracy exclude each other: give the threshold, or the accuracy it is to keep")
        return found

    @property
    def without_effect(self) -> str | None:
        """What is said of sets that nobody asked for."""
        if self.set_coverage is not None or not (self.set_by_class or self.set_score != "lac"):
            return None
        given = "set_by_class" if self.set_by_class else f"set_score {self.set_score!r}"
        return f"{given} has no effect without set_coverage: give the coverage that sets are to have, or leave it out"

"""What a running training tells the one who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The state after an optimiser step, or after an evaluation."""

    step: int
    """Optimiser steps done, counted from the start of the run (a resumed run does not start at 0)."""
    steps: int
    """Optimiser steps the run is planned to take; early stopping may end it sooner."""
    epoch: float
    """Passes over the training rows so far."""
    loss: float | None
    """Mean training loss since it was last logged; None before the first time."""
    rows_per_second: float
    """Training rows, evaluations not counted."""
    seconds_left: float | None
    """Of training, at the present rate; None before the first step."""
    metrics: Mapping[str, float] | None = None
    """Figures on the selecting rows, if an evaluation has just ended: accuracy, macro_f1, loss."""
    selection: float | None = None
    """By which this evaluation is compared with others, higher is better: macro F1, ties broken by the loss."""

"""Which of the checkpoints that were measured on the selecting rows is the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def kept_step(history: Sequence[dict[str, Any]], rows: int) -> int | None:
    """The optimiser step whose weights are kept, from Trainer's log history; None where nothing was measured yet.

    The latest one that is not worse than the best before it by more than one standard error of a share of so many `rows` (Breiman et al.
    1984, the one-standard-error rule). Of few rows the highest figure is often luck, and early checkpoints, at a high learning rate, have
    many chances of it; late ones are steadier.
    """
    highest, kept = -math.inf, None
    for entry in history:
        if "eval_selection" not in entry:
            continue
        figure = float(entry["eval_selection"])
        highest = max(highest, figure)
        if figure >= highest - _standard_error(highest, rows):
            kept = int(entry["step"])
    return kept


def _standard_error(share: float, rows: int) -> float:
    """Of a share that was found on so many rows."""
    share = min(1.0, max(0.0, share))
    return math.sqrt(share * (1 - share) / rows)

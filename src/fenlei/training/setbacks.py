"""What goes wrong inside a step and is lived through: gradients that are no numbers, memory that runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fenlei.errors import ModelError

SKIPPED_IN_A_ROW = 3
"""Steps without usable gradients: one is a strange batch, several are a training that has run away."""
SHOWN_ROWS = 8


class Setbacks:
    """Tells of each setback, and says when there are too many.

    `where` names a training row. `may_halve`: not where other processes wait for this one in the middle of the step.
    """

    def __init__(self, where: Callable[[int], str], tell: Callable[[str], None], *, may_halve: bool = True) -> None:
        self._where = where
        self.tell = tell
        self._skipped = 0
        self._may_halve = may_halve

    def went_well(self) -> None:
        self._skipped = 0

    def skip(self, rows: Sequence[int], step: int, *, taken: bool) -> None:
        """A step whose gradients are no numbers is left out; ModelError at the third in a row, or where DeepSpeed has `taken` it."""
        if taken:
            raise ModelError(
                f"step {step}: the loss or its gradient is not a number, and DeepSpeed has taken the step; "
                "lower --lr and go on from the checkpoint before it with --resume"
            )
        self._skipped += 1
        named = ", ".join(self._where(row) for row in rows[:SHOWN_ROWS])
        if len(rows) > SHOWN_ROWS:
            named += f" and {len(rows) - SHOWN_ROWS} more"
        if self._skipped >= SKIPPED_IN_A_ROW:
            raise ModelError(
                f"step {step}: the loss or its gradient is not a number, {self._skipped} steps in a row (rows {named}); "
                "lower --lr or raise --warmup-ratio; on a GPU without bfloat16, try --device cpu to see whether float16 is too small"
            )
        self.tell(f"step {step}: left out, the loss or its gradient is not a number (rows {named})")

    def take_less(self, batch_tokens: int) -> int:
        """Half of `batch_tokens`, once; ModelError the second time."""
        if not self._may_halve:
            raise ModelError(
                f"out of memory with batch_tokens {batch_tokens:,}; give fewer --batch-tokens, a smaller --max-length, "
                "--gradient-checkpointing or --tuning lora"
            )
        self._may_halve = False
        self.tell(f"out of memory: batch_tokens halved, {batch_tokens:,} to {batch_tokens // 2:,}; the weights do not depend on it")
        return max(1, batch_tokens // 2)

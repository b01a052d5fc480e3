"""Peak memory of a LoRA training over that of full tuning, the same titles: python -m bench.memory [--rounds N] [--quick].

Of the whole process, from loading to the figures of the saved model.
"""

from __future__ import annotations

import statistics

from bench.runs import conclude, head_of, model_folder, shared
from bench.side_by_side import Side, alternate, arguments, ours
from bench.training import DEV_ROWS

GOAL, ROWS = 0.4, 96


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "")
    data = shared() / "data" / "thucnews10"
    files = head_of(data / "train.jsonl", ROWS), head_of(data / "dev.jsonl", DEV_ROWS)
    sides = [Side(tuning, ours("train", *files, "--model", model_folder(), "--tuning", tuning)) for tuning in ("lora", "full")]
    measured = alternate(sides, given.rounds)
    shares = [one.peak_bytes / two.peak_bytes for one, two in zip(measured["lora"], measured["full"], strict=True)]
    conclude("peak memory of LoRA over full tuning's", statistics.median(shares), GOAL, at_most=True)


if __name__ == "__main__":
    main()

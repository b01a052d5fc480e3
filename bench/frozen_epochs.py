"""What ten epochs over a frozen backbone cost beside one: python -m bench.frozen_epochs [--rounds N] [--quick].

Each training begins with an empty cache of vectors, and its seconds are those of all it does: loading,
evaluations and checkpoints included.
"""

from __future__ import annotations

from bench.runs import conclude, head_of, model_folder, shared
from bench.side_by_side import Side, alternate, arguments, ours, speed_ratio

GOAL, ROWS, QUICK_ROWS, DEV_SHARE = 1.15, 2000, 96, 10
EPOCHS = {"one epoch": 1, "ten epochs": 10}


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "")
    data, rows = shared() / "data" / "thucnews10", QUICK_ROWS if given.quick else ROWS
    files = head_of(data / "train.jsonl", rows), head_of(data / "dev.jsonl", max(20, rows // DEV_SHARE))
    sides = [Side(name, ours("frozen", *files, "--model", model_folder(), "--epochs", epochs)) for name, epochs in EPOCHS.items()]
    measured = alternate(sides, given.rounds)
    conclude("frozen backbone: ten epochs over one, seconds", speed_ratio(measured, "one epoch", "ten epochs"), GOAL, at_most=True)


if __name__ == "__main__":
    main()

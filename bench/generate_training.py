"""Training rows a second and peak memory, beside a plain Trainer: python -m bench.generate_training [--rows N] [--peer-rows N].

Both: LoRA r 16 on all linear layers, bfloat16, 32 rows a step, one epoch of titles under the same prompt.
"""

from __future__ import annotations

from bench.generate_sides import given_arguments, write_rows
from bench.runs import conclude
from bench.side_by_side import Side, alternate, median_peak, ours, peer, speed_ratio

ROWS_GOAL, MEMORY_GOAL = 4.0, 0.6
DEV_ROWS = 20
OURS, VOCABULARY, TRAINER = "fenlei", "fenlei, loss over the vocabulary", "trainer"


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = given_arguments(__doc__ or "", 448)
    own, theirs = (write_rows("train", rows, given.names, given.model) for rows in (given.rows, given.peer_rows))
    dev = write_rows("dev", DEV_ROWS, given.names, given.model)
    train = ("generate_train", own.resolve(), dev.resolve(), "--model", given.model, "--objective")
    sides = [
        Side(OURS, ours(*train, "labels")),
        Side(VOCABULARY, ours(*train, "tokens")),
        Side(TRAINER, peer("sft_trainer.py", theirs.resolve(), "--model", given.model)),
    ]
    measured = alternate(sides, given.rounds)
    memory = median_peak(measured, OURS) / median_peak(measured, TRAINER)
    tokens = speed_ratio(measured, VOCABULARY, TRAINER)
    more = {"memory": round(memory, 3), "memory_goal": MEMORY_GOAL, "memory_met": memory <= MEMORY_GOAL}
    name = "training a label to be answered, rows a second against a plain Trainer"
    conclude(name, speed_ratio(measured, OURS, TRAINER), ROWS_GOAL, **more, over_the_vocabulary=round(tokens, 2))


if __name__ == "__main__":
    main()

"""Training rows a second and peak memory, beside a plain Trainer: python -m bench.generate_training [--rows N] [--peer-rows N].

Both: LoRA r 16 on all linear layers, bfloat16, 32 rows a step, one epoch of titles under the same prompt.
"""

from __future__ import annotations

from bench.generate_sides import alternate, given_arguments, peak_ratio, ratio, write_rows
from bench.runs import conclude

ROWS_GOAL, MEMORY_GOAL = 4.0, 0.6
DEV_ROWS = 20


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = given_arguments(__doc__ or "", 448)
    ours, theirs = (write_rows("train", rows, given.names, given.model) for rows in (given.rows, given.peer_rows))
    dev = write_rows("dev", DEV_ROWS, given.names, given.model)
    train = ("-m", "bench.ours.generate_train", ours.resolve(), dev.resolve(), "--model", given.model, "--objective")
    sides = {
        "fenlei": (*train, "labels"),
        "fenlei, loss over the vocabulary": (*train, "tokens"),
        "trainer": ("bench/peers/sft_trainer.py", theirs.resolve(), "--model", given.model),
    }
    found = alternate(sides, given.rounds)
    memory = peak_ratio(found, "fenlei", "trainer")
    tokens = ratio(found, "fenlei, loss over the vocabulary", "trainer")
    more = {"memory": round(memory, 3), "memory_goal": MEMORY_GOAL, "memory_met": memory <= MEMORY_GOAL}
    name = "training a label to be answered, rows a second against a plain Trainer"
    conclude(name, ratio(found, "fenlei", "trainer"), ROWS_GOAL, **more, over_the_vocabulary=round(tokens, 2))


if __name__ == "__main__":
    main()

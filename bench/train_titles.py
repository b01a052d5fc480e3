"""LoRA training on the news titles, beside the ways people train today: python -m bench.train_titles [PEER ...] [--rounds N] [--quick].

Every side trains one epoch over the first rows of the same file: as many as keep it busy for about a minute. Loading and the first
optimiser step are not counted, on any side.
"""

from __future__ import annotations

from bench.runs import conclude_all, head_of, model_folder, shared
from bench.side_by_side import Side, alternate, arguments, ours, peer, speed_ratio

OURS, ROWS, QUICK_ROWS, DEV_ROWS = "fenlei", 448, 64, 20

GOALS = {"trainer": 3.0, "ms-swift": 6.0, "run_classification": 40.0, "old-script": 100.0}
"""How many times the rows a second of each."""

PEERS: dict[str, tuple[str, int, tuple[object, ...]]] = {
    "trainer": ("trainer.py", 192, ("--tuning", "lora", "--batch-size", 32)),
    "ms-swift": ("swift_sft.py", 128, ("--batch-size", 32)),
    "run_classification": (
        "trainer.py",
        40,
        ("--tuning", "full", "--dtype", "float32", "--padding", "max_length", "--max-length", 128, "--batch-size", 8),
    ),
    "old-script": (
        "trainer.py",
        12,
        ("--tuning", "full", "--dtype", "float32", "--padding", "max_length", "--max-length", 512, "--batch-size", 2, "--accumulation", 2),
    ),
}
"""Script, rows and settings of each: a plain Trainer (bfloat16, LoRA of the same rank and targets); ms-swift's seq_cls;
run_classification.py's defaults; the settings of the first published script of this kind (see bench/peers).
"""


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "", tuple(PEERS))
    data, model = shared() / "data" / "thucnews10", model_folder()
    dev, train = head_of(data / "dev.jsonl", DEV_ROWS), data / "train.jsonl"
    sides = [Side(OURS, ours("train", head_of(train, QUICK_ROWS if given.quick else ROWS), dev, "--model", model))]
    for name in given.peers:
        script, rows, settings = PEERS[name]
        rows = min(rows, QUICK_ROWS) if given.quick else rows
        sides.append(Side(name, peer(script, head_of(train, rows), "--model", model, *settings)))
    measured = alternate(sides, given.rounds)
    found = {name: (speed_ratio(measured, OURS, name), GOALS[name]) for name in given.peers}
    conclude_all("LoRA training, titles: times a peer's rows a second", found)


if __name__ == "__main__":
    main()

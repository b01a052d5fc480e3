"""Full tuning on the news titles, beside a plain transformers.Trainer.

python -m bench.train_full [--rounds N] [--dtype float32] [--quick]
"""

from __future__ import annotations

from bench.runs import conclude_all
from bench.side_by_side import arguments
from bench.training import OURS, Peer, beside, ratios

PEERS = {"trainer": Peer("trainer.py", 192, 64, ("--tuning", "full", "--batch-size", 32), goal=2.0, bfloat16=True)}


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "", dtype=True)
    measured = beside("thucnews10", given, PEERS, rows=320, quick_rows=64, sides={OURS: ("--tuning", "full")})
    conclude_all("full tuning, titles: times a plain Trainer's rows a second", ratios(measured, PEERS))


if __name__ == "__main__":
    main()

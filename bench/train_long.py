"""LoRA training on whole news articles, cut at 1,024 tokens, beside a plain transformers.Trainer.

python -m bench.train_long [--rounds N] [--dtype float32] [--quick]

Eight rows an optimiser step on both sides: the Trainer takes them in two parts of four, as 32 articles at once need more memory than small
machines have.
"""

from __future__ import annotations

from bench.runs import conclude_all
from bench.side_by_side import arguments
from bench.training import INT8, OURS, Peer, beside, in_both_formats

SETTINGS = ("--batch-size", 8)
PEERS = {"trainer": Peer("trainer.py", 32, 16, ("--tuning", "lora", "--batch-size", 4, "--accumulation", 2), goal=1.3, bfloat16=True)}


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "", dtype=True)
    measured = beside("sogou10_long", given, PEERS, rows=40, quick_rows=40, sides={OURS: SETTINGS, INT8: (*SETTINGS, "--int8")})
    conclude_all("LoRA training, long texts: times a plain Trainer's rows a second", in_both_formats(measured, PEERS))


if __name__ == "__main__":
    main()

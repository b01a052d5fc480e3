"""LoRA training on the news titles, beside the ways people train today.

python -m bench.train_titles [PEER ...] [--rounds N] [--dtype float32] [--quick]

trainer: a plain transformers.Trainer (bfloat16, dynamic padding, 32 rows, LoRA of the same rank and targets). ms-swift: its seq_cls
(FENLEI_SWIFT names the folder of its command). run_classification: that script's defaults. old-script: the settings of the first published
script of this kind.
"""

from __future__ import annotations

from bench.runs import conclude_all
from bench.side_by_side import arguments
from bench.training import INT8, OURS, Peer, beside, in_both_formats

FLOAT32_FULL = ("--tuning", "full", "--dtype", "float32", "--padding", "max_length")
PEERS = {
    "trainer": Peer("trainer.py", 192, 64, ("--tuning", "lora", "--batch-size", 32), goal=3.0, bfloat16=True),
    "ms-swift": Peer("swift_sft.py", 128, 64, ("--batch-size", 32), goal=6.0),
    "run_classification": Peer("trainer.py", 40, 16, (*FLOAT32_FULL, "--max-length", 128, "--batch-size", 8), goal=40.0),
    "old-script": Peer("trainer.py", 12, 8, (*FLOAT32_FULL, "--max-length", 512, "--batch-size", 2, "--accumulation", 2), goal=100.0),
}


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "", tuple(PEERS), dtype=True)
    peers = {name: PEERS[name] for name in given.peers}
    measured = beside("thucnews10", given, peers, rows=448, quick_rows=64, sides={OURS: (), INT8: ("--int8",)})
    conclude_all("LoRA training, titles: times a peer's rows a second", in_both_formats(measured, peers))


if __name__ == "__main__":
    main()

"""Prediction of whole news articles, cut at 1,024 tokens, beside transformers.pipeline.

python -m bench.predict_long [--rounds N] [--dtype float32] [--quick]
"""

from __future__ import annotations

from bench.prediction import against_pipeline
from bench.side_by_side import arguments

GOAL, ROWS = 1.4, 48
BATCH = 4
"""Of the pipeline: 32 articles of 1,024 tokens take more memory than small machines have, and padding grows with the batch."""


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    against_pipeline("long texts", "sogou10_long", arguments(__doc__ or "", dtype=True), rows=ROWS, goal=GOAL, batch=BATCH)


if __name__ == "__main__":
    main()

"""Prediction of news titles beside transformers.pipeline in batches of 32, bfloat16.

python -m bench.predict_titles [--rounds N] [--dtype float32] [--quick]
"""

from __future__ import annotations

from bench.prediction import against_pipeline
from bench.side_by_side import arguments

GOAL, ROWS = 1.8, 1024


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    against_pipeline("titles", "thucnews10", arguments(__doc__ or "", dtype=True), rows=ROWS, goal=GOAL)


if __name__ == "__main__":
    main()

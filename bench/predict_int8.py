"""Prediction in 8-bit integers: its speed beside transformers.pipeline (bfloat16, batches of 32), its accuracy beside our own without them.

python -m bench.predict_int8 [--rounds N] [--dtype float32] [--quick]
"""

from __future__ import annotations

from bench.prediction import OURS, PIPELINE, QUICK_ROWS, agreement, stock_twin, titles_run
from bench.runs import conclude_all, head_of, shared
from bench.side_by_side import Side, alternate, arguments, ours, peer, speed_ratio

INT8 = "fenlei, int8"
FASTER, MOST_LOST = 3.0, 0.003
ROWS, ACCURACY_ROWS = 1024, 4000


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "", dtype=True)
    dev = shared() / "data" / "thucnews10" / "dev.jsonl"
    run = titles_run(quick=given.quick)
    asked = head_of(dev, QUICK_ROWS if given.quick else ROWS)
    sides = [
        Side(INT8, ours("predict", run, asked, "--int8")),
        Side(OURS, ours("predict", run, asked)),
        Side(PIPELINE, peer("pipeline.py", stock_twin(run, dev), asked, "--dtype", given.dtype)),
    ]
    measured = alternate(sides, given.rounds)
    many = head_of(dev, QUICK_ROWS if given.quick else ACCURACY_ROWS)
    exact = alternate([Side(INT8, ours("predict", run, many, "--int8")), Side(OURS, ours("predict", run, many))], rounds=1)
    accuracy = {name: float(rounds[0].more["accuracy"]) for name, rounds in exact.items()}
    found = {
        "times the rows a second of transformers.pipeline": (speed_ratio(measured, INT8, PIPELINE), FASTER),
        "accuracy kept": (1 - (accuracy[OURS] - accuracy[INT8]), 1 - MOST_LOST),
    }
    same = round(agreement(exact, INT8, OURS), 4)
    over_bfloat16 = round(speed_ratio(measured, INT8, OURS), 3)
    conclude_all("prediction in int8, titles", found, accuracy=accuracy, same_label=same, times_bfloat16=over_bfloat16)


if __name__ == "__main__":
    main()

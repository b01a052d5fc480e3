"""nano on the news titles: against random weights, with all rows and with 2,000, and beside TF-IDF.

python -m bench.nano_thucnews [all]   (without `all`: the 2,000 rows alone)
"""

from __future__ import annotations

import sys

from bench.runs import conclude, head_of, random_twin, run, shared

GOAL = 0.910
ALL_ROWS = {"epochs": 4}
FEW_ROWS = {"epochs": 10}


def main() -> None:
    """Prints the figures; the last line is JSON."""
    data = shared() / "data" / "thucnews10"
    train, dev = data / "train.jsonl", data / "dev.jsonl"
    twin = random_twin("nano")
    few = head_of(train, 2000)
    figures = {}
    cases = [("nano_2000", few, "nano", FEW_ROWS), ("random_2000", few, twin, FEW_ROWS)]
    if sys.argv[1:] == ["all"]:
        cases += [("nano_all", train, "nano", ALL_ROWS), ("random_all", train, twin, ALL_ROWS)]
    for name, rows, model, options in cases:
        evaluation, seconds = run(f"thucnews_{name}", rows, dev, model=model, tuning="full", **options)
        baseline = f", TF-IDF {evaluation.baseline.accuracy:.4f}" if evaluation.baseline else ""
        figures[name] = round(evaluation.metrics.accuracy, 4)
        print(f"{name}: accuracy {evaluation.metrics.accuracy:.4f}{baseline}, {seconds:.0f} s", flush=True)
    conclude("nano on thucnews10", figures.get("nano_all", 0.0), GOAL, accuracy=figures)


if __name__ == "__main__":
    main()

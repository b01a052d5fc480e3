"""nano on the news titles: against random weights, with all rows and with 2,000, and beside TF-IDF.

Random weights get the best of RATES, chosen on the 2,000 rows; nano on all rows keeps its default. All of dev measures, of which the first
SELECTING rows select and calibrate: bench.trust_thucnews can then say what the confidence of `thucnews_nano_all` is worth on the others.

python -m bench.nano_thucnews [all]   (without `all`: the 2,000 rows alone)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.runs import conclude, head_of, name_of, random_twin, run, shared

GOAL, SELECTING = 0.910, 2000
ALL_ROWS = {"epochs": 4}
FEW_ROWS = {"epochs": 10}
RATES: tuple[float | None, ...] = (None, 1e-3, 2e-3, 4e-3)
"""Learning rates that both networks are given on the few rows: random weights want larger ones. None: the default's."""


def main() -> None:
    """Prints the figures; the last line is JSON."""
    data = shared() / "data" / "thucnews10"
    few = head_of(data / "train.jsonl", 2000)
    models = {"nano": "nano", "random": random_twin("nano")}
    figures = {}
    best = {}
    for name, model in models.items():
        at_rate = {rate: _accuracy(f"{name}_2000", few, model, {**FEW_ROWS, **_rate(rate)}) for rate in RATES}
        best[name] = max(at_rate, key=lambda rate: at_rate[rate])
        figures[f"{name}_2000"] = at_rate[best[name]]
    if sys.argv[1:] == ["all"]:
        for name, model in models.items():
            rate = {} if name == "nano" else _rate(best[name])
            figures[f"{name}_all"] = _accuracy(f"{name}_all", data / "train.jsonl", model, {**ALL_ROWS, **rate})
        conclude("nano on thucnews10", figures["nano_all"], GOAL, accuracy=figures)
    else:
        conclude("nano on 2,000 rows of thucnews10, over random weights", figures["nano_2000"], figures["random_2000"], accuracy=figures)


def _rate(rate: float | None) -> dict[str, float]:
    return {} if rate is None else {"learning_rate": rate}


def _accuracy(name: str, rows: Path, model: str, options: dict[str, Any]) -> float:
    dev = shared() / "data" / "thucnews10" / "dev.jsonl"
    run_name = name_of(f"thucnews_{name}", {key: value for key, value in options.items() if key == "learning_rate"})
    evaluation, seconds = run(run_name, rows, dev, selecting=head_of(dev, SELECTING), model=model, tuning="full", **options)
    baseline = f", TF-IDF {evaluation.baseline.accuracy:.4f}" if evaluation.baseline else ""
    print(f"{run_name}: accuracy {evaluation.metrics.accuracy:.4f}{baseline}, {seconds:.0f} s", flush=True)
    return round(evaluation.metrics.accuracy, 4)


if __name__ == "__main__":
    main()

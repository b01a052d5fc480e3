"""What a run's confidence is worth: python -m bench.trust_thucnews RUN.

RUN is one of bench.headline_6000 or bench.headline_all: the first SELECTING rows of dev have selected and calibrated it, and what it
answered to all of dev is in its report. The rows behind them, which fitted nothing, are measured. For sets and thresholds they are dealt
anew many times: one half fits temperature, sets and threshold, the other half tells what they are worth.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.headline_6000 import SELECTING
from bench.runs import conclude
from fenlei.artifact import read_manifest
from fenlei.errors import DataError
from fenlei.evaluation.abstention import accuracy_threshold
from fenlei.evaluation.calibration import fit_temperature, probabilities
from fenlei.evaluation.conformal import fit_conformal
from fenlei.evaluation.reliability import expected_calibration_error, noise_floor
from fenlei.inference.trust import DevScores, load_scores

ERROR_GOAL = 0.015
SMALLEST = 5e-7
"""What a probability may be that is written as 0.000000."""
COVERAGES, COVERAGE_SPLITS, COVERAGE_GOAL = (0.90, 0.95, 0.99), 100, 0.003
TARGET, TARGET_SPLITS, TARGET_GOAL = 0.99, 200, 0.93


@dataclass(frozen=True)
class Split:
    """Dev rows dealt into two halves, both calibrated by the first."""

    fitted: np.ndarray
    fitted_ids: np.ndarray
    held: np.ndarray
    held_ids: np.ndarray


def splits(rows: DevScores, count: int) -> list[Split]:
    """`count` seeded ones; the temperature of the first half holds for both."""
    dealt = []
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(rows.label_ids))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        temperature = fit_temperature(rows.logits[first], rows.label_ids[first])
        shares = probabilities(rows.logits, temperature)
        dealt.append(Split(shares[first], rows.label_ids[first], shares[second], rows.label_ids[second]))
    return dealt


def unfitted(run: Path) -> DevScores:
    """What the run says of the rows behind the first SELECTING: logarithms of its probabilities, which six decimals bound below."""
    labels = list(read_manifest(run)["labels"])
    lines = (run / "report" / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line][SELECTING:]
    shares = np.array([[row["probabilities"][name] for name in labels] for row in rows])
    return DevScores(np.log(np.maximum(shares, SMALLEST)), np.array([labels.index(row["gold"]) for row in rows]))


def calibration_error(run: Path, rows: DevScores) -> float:
    """Of the probabilities that the run answered with; what it is without calibration, on its own selecting rows, and the noise floor."""
    shares = probabilities(rows.logits)
    error = expected_calibration_error(shares, rows.label_ids)
    other = load_scores(run)["selecting"]
    raw = expected_calibration_error(probabilities(other.logits), other.label_ids)
    accuracy = float((shares.argmax(axis=1) == rows.label_ids).mean())
    print(f"{len(rows.label_ids):,} rows not used for fitting, accuracy {accuracy:.4f}")
    print(f"calibration error {error:.4f}, noise floor {noise_floor(shares):.4f}; uncalibrated {raw:.4f} (selecting rows)")
    return error


def coverages(dealt: list[Split]) -> float:
    """The largest distance of a mean coverage of LAC from its nominal one; APS and RAPS are printed beside it."""
    worst = 0.0
    for nominal in COVERAGES:
        for score in ("lac", "aps", "raps"):
            held, sizes, empty = [], [], []
            for one in dealt:
                sets = fit_conformal(nominal, one.fitted, one.fitted_ids, score=score).sets(one.held)  # type: ignore[arg-type]
                held.append(sets[np.arange(len(sets)), one.held_ids].mean())
                sizes.append(sets.sum(axis=1).mean())
                empty.append((~sets.any(axis=1)).mean())
            print(
                f"{score} {nominal:.0%}: mean coverage {np.mean(held):.4f}, {np.mean(sizes):.3f} labels a set, {np.mean(empty):.2%} empty"
            )
            if score == "lac":
                worst = max(worst, abs(float(np.mean(held)) - nominal))
    return worst


def targets(dealt: list[Split]) -> tuple[float, float, int]:
    """The share of the splits that reach TARGET, the mean share of rows they answer, and how many were told that it cannot be had."""
    reached, answered, refused = [], [], 0
    for one in dealt:
        try:
            rule = accuracy_threshold(TARGET, one.fitted, one.fitted_ids)
        except DataError as error:
            refused += 1
            last = error
            continue
        kept = ~rule.abstains(one.held)
        reached.append(float((one.held.argmax(axis=1) == one.held_ids)[kept].mean()))
        answered.append(float(kept.mean()))
    if not reached:
        print(f"target {TARGET}: refused in all {refused} splits; {last}")
        return 0.0, 0.0, refused
    share = float(np.mean(np.array(reached) >= TARGET))
    print(
        f"target {TARGET}: reached in {share:.1%} of {len(reached)} splits (mean accuracy {np.mean(reached):.4f}), "
        f"answering {np.mean(answered):.1%}; refused in {refused}"
    )
    return share, float(np.mean(answered)), refused


def main() -> None:
    """Prints the figures; the last lines are JSON."""
    if len(sys.argv) != 2:
        sys.exit("python -m bench.trust_thucnews RUN: give the folder of a run of bench.headline_6000 or bench.headline_all")
    run = Path(sys.argv[1])
    every = unfitted(run)
    error = calibration_error(run, every)
    worst = coverages(splits(every, COVERAGE_SPLITS))
    share, answered, refused = targets(splits(every, TARGET_SPLITS))
    conclude("calibration error allowed against measured", ERROR_GOAL / max(error, 1e-9), 1.0, error=round(error, 4))
    conclude("coverage of sets, distance allowed against measured", COVERAGE_GOAL / max(worst, 1e-9), 1.0, worst=round(worst, 4))
    conclude(f"splits that keep an accuracy of {TARGET}", share, TARGET_GOAL, coverage=round(answered, 4), refused=refused)


if __name__ == "__main__":
    main()

"""What a run's confidence is worth, from its saved dev scores: python -m bench.trust_thucnews RUN.

Calibration is fitted on the run's calibrating rows and measured on the others. For sets and thresholds all dev rows are dealt anew many
times: one half fits temperature, sets and threshold, the other half tells what they are worth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.runs import conclude
from fenlei.errors import DataError
from fenlei.evaluation.abstention import accuracy_threshold
from fenlei.evaluation.calibration import fit_calibration, fit_temperature, probabilities
from fenlei.evaluation.conformal import fit_conformal
from fenlei.evaluation.reliability import expected_calibration_error, noise_floor
from fenlei.inference.trust import DevScores, load_scores

ERROR_GOAL = 0.015
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


def calibration_error(dev: dict[str, DevScores]) -> float:
    """On the selecting rows, which did not fit it, with the noise floor and the raw network beside it."""
    calibrating, other = dev["calibrating"], dev["selecting"]
    fitted = fit_calibration(calibrating.logits, calibrating.label_ids)
    shares = fitted.probabilities(other.logits)
    error = expected_calibration_error(shares, other.label_ids)
    raw = expected_calibration_error(probabilities(other.logits), other.label_ids)
    kind = "temperature" if fitted.scale is None else "vector scaling"
    accuracy = float((shares.argmax(axis=1) == other.label_ids).mean())
    print(f"{len(other.label_ids):,} rows not used for fitting, accuracy {accuracy:.4f}")
    print(f"calibration error {raw:.4f} raw, {error:.4f} by {kind}; noise floor {noise_floor(shares):.4f}")
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
        sys.exit("python -m bench.trust_thucnews RUN: give the folder of a run, best one with all dev rows")
    dev = load_scores(Path(sys.argv[1]))
    every = DevScores(*(np.concatenate([getattr(part, name) for part in dev.values()]) for name in ("logits", "label_ids")))
    error = calibration_error(dev)
    worst = coverages(splits(every, COVERAGE_SPLITS))
    share, answered, refused = targets(splits(every, TARGET_SPLITS))
    conclude("calibration error allowed against measured", ERROR_GOAL / max(error, 1e-9), 1.0, error=round(error, 4))
    conclude("coverage of sets, distance allowed against measured", COVERAGE_GOAL / max(worst, 1e-9), 1.0, worst=round(worst, 4))
    conclude(f"splits that keep an accuracy of {TARGET}", share, TARGET_GOAL, coverage=round(answered, 4), refused=refused)


if __name__ == "__main__":
    main()

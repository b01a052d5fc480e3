"""What a run's confidence is worth: python -m bench.trust_thucnews RUN [--dev FILE] [--least ROWS].

RUN is any run on the news titles, those of bench.headline_6000 and bench.headline_all among them. The dev rows that neither selected nor
calibrated it are measured (see bench.unfitted). For sets and thresholds they are dealt anew many times: one half fits temperature, sets
and threshold, the other half tells what they are worth.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.runs import conclude_all, shared
from bench.unfitted import unfitted_scores
from fenlei.errors import DataError
from fenlei.evaluation.abstention import accuracy_threshold
from fenlei.evaluation.calibration import fit_temperature, probabilities
from fenlei.evaluation.conformal import fit_conformal
from fenlei.evaluation.reliability import expected_calibration_error, noise_floor
from fenlei.inference.trust import DevScores, load_scores

LEAST = 5000
"""Rows below which the figures are noise."""
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


@dataclass(frozen=True)
class Targets:
    """What became of TARGET over all splits."""

    reached: float
    """Share of all splits in which the held half keeps it. Where a split is told that it cannot be had, it is not reached."""
    kept: float
    """The same of the splits that were promised it."""
    answered: float
    """Mean share of rows that those answer."""
    refused: int
    """Splits that were told that it cannot be had, or in which no held row is answered."""


def targets(dealt: list[Split]) -> Targets:
    """A threshold for TARGET from the first half of each split, on its second half."""
    accuracies, answered = [], []
    for one in dealt:
        try:
            rule = accuracy_threshold(TARGET, one.fitted, one.fitted_ids)
        except DataError:
            continue
        given = ~rule.abstains(one.held)
        if not given.any():
            continue  # a promise about nothing is none
        accuracies.append(float((one.held.argmax(axis=1) == one.held_ids)[given].mean()))
        answered.append(float(given.mean()))
    refused = len(dealt) - len(accuracies)
    if not accuracies:
        print(f"target {TARGET}: refused in all {refused} splits")
        return Targets(0.0, 0.0, 0.0, refused)
    kept = int((np.array(accuracies) >= TARGET).sum())
    found = Targets(kept / len(dealt), kept / len(accuracies), float(np.mean(answered)), refused)
    print(
        f"target {TARGET}: reached in {found.reached:.1%} of {len(dealt)} splits; refused in {refused}, "
        f"kept in {found.kept:.1%} of the others (mean accuracy {np.mean(accuracies):.4f}), answering {found.answered:.1%}"
    )
    return found


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dev", type=Path, help="default: dev.jsonl of the news titles")
    parser.add_argument("--least", type=int, default=LEAST, help="rows below which nothing is said")
    given = parser.parse_args()
    every = unfitted_scores(given.run, given.dev or shared() / "data" / "thucnews10" / "dev.jsonl")
    if len(every.label_ids) < given.least:
        sys.exit(f"{len(every.label_ids):,} rows fitted nothing, {given.least:,} are wanted; train with fewer dev rows, or lower --least")
    error = calibration_error(given.run, every)
    worst = coverages(splits(every, COVERAGE_SPLITS))
    found = targets(splits(every, TARGET_SPLITS))
    goals = {
        "calibration error allowed against measured": (ERROR_GOAL / max(error, 1e-9), 1.0),
        "coverage of sets, distance allowed against measured": (COVERAGE_GOAL / max(worst, 1e-9), 1.0),
        f"splits that reach an accuracy of {TARGET}": (found.reached, TARGET_GOAL),
    }
    conclude_all(
        "trust", goals, error=round(error, 4), worst=round(worst, 4),
        kept_where_promised=round(found.kept, 4), coverage=round(found.answered, 4), refused=found.refused,
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""From logits to probabilities that can be believed: the one softmax, its temperature, and how far off it still is."""

from __future__ import annotations

import math

import numpy as np

from fenlei.errors import DataError, ModelError

MAX_LOG_TEMPERATURE = math.log(20.0)
"""The temperature is sought between 1/20 and 20: beyond, every answer is certain or every class equally likely."""


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits / temperature: float32 (rows, labels), each row sums to 1.

    A column of -inf (a label that is no candidate) becomes 0. ModelError where a row has NaN, +inf or no candidate at all.
    """
    _check_temperature(temperature)
    return np.asarray(np.exp(_log_probabilities(logits, temperature)), dtype=np.float32)


def fit_temperature(logits: np.ndarray, label_ids: np.ndarray) -> float:
    """The temperature under which the logits (rows, labels) explain label_ids (rows,) best; 1.0 where there are no rows.

    Least negative log-likelihood over log T, plus half of log T squared over the whole set: worth less than one row, it matters only where
    a few rows, all of them right, would otherwise drive T to 0 and make every answer certain.
    """
    from scipy.optimize import minimize_scalar  # here: prediction needs this file, but not half a second of scipy

    gold = np.asarray(label_ids, dtype=np.int64)
    scores = np.asarray(logits, dtype=np.float64)
    if len(gold) != len(scores):
        raise DataError(f"expected one label id for each row of logits, found {len(gold)} for {len(scores)} rows")
    possible = ~np.isneginf(scores[np.arange(len(gold)), gold])  # no temperature makes a label likelier that was no candidate
    scores, gold = scores[possible], gold[possible]
    if len(gold) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        log_probabilities = _log_probabilities(scores, math.exp(log_temperature))
        return float(-log_probabilities[np.arange(len(gold)), gold].sum() + 0.5 * log_temperature**2)

    found = minimize_scalar(loss, bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE), method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))


def expected_calibration_error(probabilities: np.ndarray, label_ids: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over `bins` equal-width bins of confidence, weighted by their rows: 0 is perfect.

    probabilities (rows, labels), label_ids (rows,). DataError where there are no rows.
    """
    if len(label_ids) == 0:
        raise DataError("expected at least one row to measure calibration on, found none")
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    correct = np.asarray(probabilities).argmax(axis=1) == np.asarray(label_ids)
    bin_of_row = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # a bin holds its upper edge: 1.0 is in the last
    gaps = np.bincount(bin_of_row, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _log_probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """float64 (rows, labels): log softmax of logits / temperature."""
    scores = np.asarray(logits, dtype=np.float64)
    best = scores.max(axis=1, keepdims=True)
    unusable = np.flatnonzero(~np.isfinite(best[:, 0]))  # NaN and +inf win every max; all -inf leaves -inf
    if len(unusable):
        raise ModelError(
            f"row {unusable[0]}: expected finite scores, found {scores[unusable[0]].tolist()} ({len(unusable)} such rows);"
            " the weights or their number format are broken: load the model in float32, or train again with a lower learning rate"
        )
    shifted = (scores - best) / temperature
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ModelError(f"temperature must be a finite number above 0, was {temperature}; calibrate the run again")

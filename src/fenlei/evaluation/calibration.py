"""From logits to probabilities that can be believed: the one softmax (or sigmoid, for multi-label), and what is done to logits before it.

Guo et al., On Calibration of Modern Neural Networks (2017): one temperature for all, or a factor and a summand for each class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from fenlei.data.labelling import Labelling
from fenlei.errors import DataError, ModelError, ScoresError

MAX_LOG_TEMPERATURE = math.log(20.0)
"""The temperature is sought between 1/20 and 20: beyond, every answer is certain or every class equally likely."""
VECTOR_ROWS = 30
"""Calibrating rows that every class needs before it may have numbers of its own."""
SHIFT_ROWS = 20
"""Calibrating rows of old classes, and of new ones, before an extended run may have a summand for the new ones."""
FOLDS = 5
"""Parts of the calibrating rows, each held out once, on which vector scaling has to beat the temperature."""
JUDGED_CELLS = 2_000_000
"""Logits of those parts together, or more for VECTOR_ROWS rows a class: each part is a fit, and a sample tells what would take minutes."""


@dataclass(frozen=True)
class Calibration:
    """What is done to logits before the softmax."""

    temperature: float = 1.0
    scale: tuple[float, ...] | None = None
    """Vector scaling: logits * scale + bias take the place of logits / temperature. None: the temperature alone."""
    bias: tuple[float, ...] | None = None
    multi_label: bool = False
    """Whether each label has a probability of its own: a sigmoid takes the place of the softmax."""

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """The calibrated logits, float64 (rows, labels)."""
        scores = np.asarray(logits, dtype=np.float64)
        return scores / self.temperature if self.scale is None or self.bias is None else scores * self.scale + self.bias

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float32 (rows, labels), each row sums to 1 but for multi-label; ScoresError where a row has NaN, +inf or no candidate at all."""
        if self.multi_label:
            return label_probabilities(self.apply(logits))
        return probabilities(logits, self.temperature) if self.scale is None else probabilities(self.apply(logits))

    def to_json(self) -> dict[str, Any]:
        """The keys of fenlei.json."""
        vector = None if self.scale is None or self.bias is None else {"scale": list(self.scale), "bias": list(self.bias)}
        return {"temperature": self.temperature, "vector_scaling": vector}

    @classmethod
    def from_json(cls, manifest: dict[str, Any]) -> Calibration:
        """From what `to_json` gave; a run of an older fenlei has the temperature alone."""
        vector = manifest.get("vector_scaling")
        multi_label = Labelling.from_json(manifest).multi_label
        if vector is None:
            return cls(float(manifest["temperature"]), multi_label=multi_label)
        return cls(float(manifest["temperature"]), tuple(vector["scale"]), tuple(vector["bias"]), multi_label)


def calibration_told(manifest: Mapping[str, Any]) -> str:
    """What was fitted to a run's confidence, by its manifest, for people: the temperature where it is what is applied."""
    if not manifest["calibrated"]:
        return "not calibrated"
    if manifest.get("merged"):
        return "calibrated before labels were merged"
    if manifest.get("decision"):
        return "calibrated, a threshold for each label"
    return "calibrated, vector scaling" if manifest.get("vector_scaling") else f"calibrated, temperature {manifest['temperature']:.3f}"


Way: TypeAlias = Callable[[np.ndarray, np.ndarray, float], Calibration]
"""Of fitting logits (rows, labels) to label ids (rows,), from a temperature."""


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits / temperature: float32 (rows, labels), each row sums to 1.

    A column of -inf (a label that is no candidate) becomes 0. ScoresError where a row has NaN, +inf or no candidate at all.
    """
    _check_temperature(temperature)
    return np.asarray(np.exp(_log_probabilities(logits, temperature)), dtype=np.float32)


def label_probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of logits: float32 (rows, labels), each label by itself; 0 where a label is no candidate (-inf).

    ScoresError where a row has NaN, +inf or no candidate at all.
    """
    scores = np.asarray(logits, dtype=np.float64)
    _check_scores(scores)
    return np.asarray(0.5 + 0.5 * np.tanh(scores / 2), dtype=np.float32)


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


def fit_calibration(logits: np.ndarray, label_ids: np.ndarray, known: int | None = None, *, summands: bool = True) -> Calibration:
    """The temperature of the logits (rows, labels), or more than that where the rows allow it and show that it is better.

    Vector scaling takes VECTOR_ROWS of every class. Of an extended run the first `known` labels are old ones, and a summand for all new
    ones takes SHIFT_ROWS of either kind. They show it where the log-loss on held-out fifths is lower by more than two standard errors:
    anything less is as likely an accident of these rows. For the summand one is enough: it is a single number, and which way it will go is
    known. Without `summands` the temperature is all: they would learn how often classes are among these rows, where that is not how often
    they come.
    """
    temperature = fit_temperature(logits, label_ids)
    scores, gold = np.asarray(logits, dtype=np.float64), np.asarray(label_ids, dtype=np.int64)
    if not summands or not np.isfinite(scores).all():
        return Calibration(temperature)
    counts = np.bincount(gold, minlength=scores.shape[1])
    ways: list[tuple[Way, float]] = [(fit_vector_scaling, 2.0)] if counts.min() >= VECTOR_ROWS else []
    if known is not None and min(counts[:known].sum(), counts[known:].sum()) >= SHIFT_ROWS:
        ways.append((partial(fit_shift, known=known), 1.0))
    better = next((way for way, errors in ways if _explains_better(way, scores, gold, errors)), None)
    return Calibration(temperature) if better is None else better(scores, gold, temperature)


def _explains_better(way: Way, scores: np.ndarray, gold: np.ndarray, errors: float) -> bool:
    """Than the temperature alone, rows that neither was fitted to, by more than `errors` standard errors."""
    labels = scores.shape[1]
    place = np.random.default_rng(0).permutation(len(gold))
    sample = place < max(JUDGED_CELLS // labels, VECTOR_ROWS * labels)
    scores, gold, fold = scores[sample], gold[sample], place[sample] % FOLDS
    gain = np.empty(len(gold))
    for held in range(FOLDS):
        inside, outside = fold != held, fold == held
        plain = fit_temperature(scores[inside], gold[inside])
        fitted = way(scores[inside], gold[inside], plain)
        gain[outside] = _log_loss(Calibration(plain), scores[outside], gold[outside]) - _log_loss(fitted, scores[outside], gold[outside])
    return bool(gain.mean() > errors * gain.std(ddof=1) / math.sqrt(len(gain)))


def fit_shift(logits: np.ndarray, label_ids: np.ndarray, temperature: float, known: int) -> Calibration:
    """A factor for all logits (rows, labels), and a summand for those behind the first `known`, under which label_ids (rows,) come best.

    A network that learned new classes later says too much of them, whatever was replayed (Wu et al. 2019, Large scale incremental
    learning). Regularised as vector scaling is.
    """
    from scipy.optimize import minimize

    scores, gold = np.asarray(logits, dtype=np.float64) / temperature, np.asarray(label_ids, dtype=np.int64)
    is_new = np.arange(scores.shape[1]) >= known

    def loss(parameters: np.ndarray) -> float:
        log_probabilities = _log_probabilities(scores * np.exp(parameters[0]) + parameters[1] * is_new, 1.0)
        return float(-log_probabilities[np.arange(len(gold)), gold].sum() + 0.5 * (parameters**2).sum())

    log_factor, shift = minimize(loss, np.zeros(2), method="L-BFGS-B").x
    bias = (0.0,) * known + (float(shift),) * (len(is_new) - known)
    return Calibration(temperature, (float(np.exp(log_factor)) / temperature,) * len(is_new), bias)


def fit_vector_scaling(logits: np.ndarray, label_ids: np.ndarray, temperature: float) -> Calibration:
    """A factor and a summand for each class, under which the logits (rows, labels) explain label_ids (rows,) best.

    Least negative log-likelihood, starting from the temperature; half the squared distance from it, over the whole set, keeps a class
    that these rows say little of where it was.
    """
    from scipy.optimize import minimize

    scores, gold = np.asarray(logits, dtype=np.float64), np.asarray(label_ids, dtype=np.int64)
    labels = scores.shape[1]
    scaled = scores / temperature

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        factors, bias = np.exp(parameters[:labels]), parameters[labels:]
        log_probabilities = _log_probabilities(scaled * factors + bias, 1.0)
        error = np.exp(log_probabilities)
        error[np.arange(len(gold)), gold] -= 1.0
        value = -log_probabilities[np.arange(len(gold)), gold].sum() + 0.5 * (parameters**2).sum()
        slope = np.concatenate([(error * scaled * factors).sum(axis=0), error.sum(axis=0)]) + parameters
        return float(value), slope

    found = minimize(loss, np.zeros(2 * labels), jac=True, method="L-BFGS-B").x
    return Calibration(temperature, tuple((np.exp(found[:labels]) / temperature).tolist()), tuple(found[labels:].tolist()))


def _log_loss(calibration: Calibration, logits: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Of each row, float64 (rows,)."""
    own = calibration.probabilities(logits)[np.arange(len(gold)), gold].astype(np.float64)
    return np.asarray(-np.log(np.maximum(own, np.finfo(np.float32).tiny)))


def _log_probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """float64 (rows, labels): log softmax of logits / temperature."""
    scores = np.asarray(logits, dtype=np.float64)
    best = _check_scores(scores)
    shifted = (scores - best) / temperature
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _check_scores(scores: np.ndarray) -> np.ndarray:
    """The best score of each row, (rows, 1); ScoresError where it is no number."""
    best = scores.max(axis=1, keepdims=True)
    unusable = np.flatnonzero(~np.isfinite(best[:, 0]))  # NaN and +inf win every max; all -inf leaves -inf
    if len(unusable):
        raise ScoresError(
            f"row {unusable[0]}: expected finite scores, found {scores[unusable[0]].tolist()} ({len(unusable)} such rows);"
            " the weights or their number format are broken: load the model in float32, or train again with a lower learning rate",
            unusable.tolist(),
        )
    return np.asarray(best)


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ModelError(f"temperature must be a finite number above 0, was {temperature}; calibrate the run again")

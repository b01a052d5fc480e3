"""Multi-label calibration: one factor and one summand for the logits of all labels, fitted on their yes and no alike.

Platt, Probabilistic outputs for support vector machines (1999). One pair for all labels: a label has few rows that carry it.
"""

from __future__ import annotations

import math

import numpy as np

from fenlei.errors import DataError
from fenlei.evaluation.calibration import MAX_LOG_TEMPERATURE, Calibration


def fit_label_calibration(logits: np.ndarray, gold: np.ndarray) -> Calibration:
    """The calibration under which logits (rows, labels) explain gold, bool (rows, labels), best; the plain one where there are no rows.

    `scale` and `bias` are the same for every label. `temperature` is what would be best alone, for who has no place for a summand. As in
    `fit_temperature`, a pull worth less than one row keeps a few rows from making every answer certain.
    """
    from scipy.optimize import minimize, minimize_scalar  # here: prediction needs calibration, but not half a second of scipy

    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(gold, dtype=bool)
    if scores.shape != truth.shape:
        raise DataError(f"expected gold labels of the shape of the logits, {scores.shape}, found {truth.shape}")
    offered = np.isfinite(scores)  # what was no candidate tells nothing
    if not offered.any():
        return Calibration(multi_label=True)
    cells, sign = scores[offered], np.where(truth[offered], 1.0, -1.0)

    def loss(parameters: np.ndarray) -> float:
        log_scale, bias = float(parameters[0]), float(parameters[1])
        return float(np.logaddexp(0.0, -sign * (cells * math.exp(log_scale) + bias)).sum() + 0.5 * (log_scale**2 + bias**2))

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    alone = minimize_scalar(lambda log_t: loss(np.array([-log_t, 0.0])), bounds=bounds, method="bounded", options={"xatol": 1e-5})
    both = minimize(loss, np.array([-float(alone.x), 0.0]), method="L-BFGS-B", bounds=[bounds, (None, None)]).x
    labels = scores.shape[1]
    scale, bias = math.exp(float(both[0])), float(both[1])
    return Calibration(math.exp(float(alone.x)), (scale,) * labels, (bias,) * labels, multi_label=True)

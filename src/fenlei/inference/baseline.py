"""What a run's baseline says of texts: its margins, calibrated as the run's own scores are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fenlei.data.labelling import Labelling
from fenlei.evaluation.answers import Answers, answers_of
from fenlei.evaluation.calibration import fit_temperature, label_probabilities, probabilities
from fenlei.evaluation.decision import Decision, fit_decision, plain_decision
from fenlei.evaluation.platt import fit_label_calibration
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline
from fenlei.text.asking import Candidates


def calibrate_baseline(
    baseline: Baseline, texts: Sequence[str], gold: np.ndarray, labelling: Labelling, labels: LabelSet, candidates: Candidates | None = None
) -> Baseline:
    """The baseline with what makes its margins comparable, fitted on calibrating rows.

    gold: label ids (rows,); multi-label: bool (rows, labels). `candidates` as of `baseline_answers`.
    """
    margins = _margins(baseline, texts, labels, candidates)
    if not labelling.multi_label:
        return dataclasses.replace(baseline, temperature=fit_temperature(margins, gold))
    fitted = fit_label_calibration(margins, gold)
    scale, shift = (fitted.scale or (1.0,))[0], (fitted.bias or (0.0,))[0]
    baseline = dataclasses.replace(baseline, temperature=1 / scale, shift=shift)
    shares = plain_decision(baseline.n_labels, labelling.ancestors(labels)).coherent(_label_shares(baseline, margins))
    return dataclasses.replace(baseline, thresholds=fit_decision(shares, gold).thresholds)


def baseline_answers(
    baseline: Baseline, texts: Sequence[str], labelling: Labelling, labels: LabelSet, candidates: Candidates | None = None
) -> Answers:
    """What it says of each text, among the same `candidates` as the run that it is compared with; None: among all labels."""
    margins = _margins(baseline, texts, labels, candidates)
    if not labelling.multi_label:
        return probabilities(margins, baseline.temperature)
    ancestors = labelling.ancestors(labels)
    plain = plain_decision(baseline.n_labels, ancestors)
    decision = plain if baseline.thresholds is None else Decision(baseline.thresholds, ancestors)
    return answers_of(decision, decision.coherent(_label_shares(baseline, margins)))


def _margins(baseline: Baseline, texts: Sequence[str], labels: LabelSet, candidates: Candidates | None) -> np.ndarray:
    """float32 (rows, labels); -inf where a label is none of the row's candidates."""
    margins = baseline.logits(texts)
    for row, names in enumerate(candidates or ()):
        if names is not None:
            barred = np.ones(len(labels), dtype=bool)
            barred[labels.ids(names)] = False
            margins[row, barred] = -np.inf
    return margins


def _label_shares(baseline: Baseline, margins: np.ndarray) -> np.ndarray:
    return label_probabilities(margins / baseline.temperature + baseline.shift)

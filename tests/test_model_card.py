"""What the README.md of a run says of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fenlei.evaluation.metrics import compute_metrics
from fenlei.labels import LabelSet
from fenlei.training.model_card import model_card

LABELS = ("a|b", "<c>")
METRICS = compute_metrics(np.array([0, 1]), np.eye(2), LabelSet(LABELS))
MANIFEST: dict[str, Any] = {
    "labels": list(LABELS),
    "method": "generate",
    "tuning": "lora",
    "base_model": {"name": "tiny", "revision": None},
    "parameters": {"all": 5000, "trainable": 300},
    "data": {"rows": {"train": 80}},
    "calibrated": True,
    "temperature": 1.25,
    "vector_scaling": None,
    "decision": None,
    "max_length": 128,
    "length_rule": "the text is cut at its end",
    "libraries": {"torch": "2"},
    "created": "2026-01-01",
}


@pytest.mark.parametrize(
    ("fitted", "said"),
    [
        ({}, "Confidence: calibrated, temperature 1.250,"),
        ({"vector_scaling": {"scale": [1.0, 1.0], "bias": [0.0, 0.0]}}, "Confidence: calibrated, vector scaling,"),
        ({"decision": {"thresholds": [0.5, 0.5]}}, "Confidence: calibrated, a threshold for each label,"),
        ({"calibrated": False}, "Confidence: not calibrated,"),
    ],
)
def test_it_names_what_is_applied(fitted: dict[str, Any], said: str) -> None:
    card = model_card({**MANIFEST, **fitted}, METRICS, None)
    assert said in card
    assert ("temperature" in card) == ("temperature" in said)


def test_what_was_not_trained_is_not_said_to_be() -> None:
    trained, asked = (model_card({**MANIFEST, "tuning": tuning}, METRICS, None) for tuning in ("lora", "none"))
    assert "300 of 5,000 parameters trained on 80 rows with fenlei on 2026-01-01" in trained
    assert "on 2 dev rows that selected the checkpoint" in trained
    assert "| on 2 dev rows |" in asked
    assert "trained" not in asked
    assert "checkpoint" not in asked


def test_labels_do_not_break_its_table() -> None:
    lines = [line for line in model_card(MANIFEST, METRICS, None).splitlines() if line.endswith("| 1 |")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [6, 6]
    assert lines[1].startswith("| \\<c\\> |")

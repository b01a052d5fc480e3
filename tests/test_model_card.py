"""What the README.md of a run says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fenlei import train
from fenlei.artifact import read_manifest
from fenlei.evaluation.metrics import compute_metrics
from fenlei.export.card import stock_card
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
    "data": {
        "files": {"/home/me/my_news.jsonl": "0f"},
        "rows": {"train": 80, "selecting": 2, "calibrating": 40, "test": 9},
        "classes": {"a|b": 50, "<c>": 30},
        "characters": {"median": 18, "longest": 1043},
    },
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


def test_it_says_what_it_is_for_and_what_its_rows_were() -> None:
    use, _, data = model_card(MANIFEST, METRICS, None).partition("## Intended use\n")[2].partition("## Data\n")
    assert "in 2 classes: each gets one of them, also where none fits." in use
    assert "fitted on 40 rows" in use
    assert "abstained" not in use
    assert "my\\_news.jsonl: 80 rows of train, 42 of dev (2 select, 40 calibrate), 9 of test." in data
    assert "/home" not in data, "where files lie says something of who trained"
    assert "a median of 18 characters, at most 1,043" in data
    assert "| a\\|b | 50 |\n| \\<c\\> | 30 |" in data
    several = {**MANIFEST, "problem_type": "multi_label_classification", "calibrated": False, "abstention": {"min_confidence": 0.75}}
    told = model_card({**several, "data": {name: MANIFEST["data"][name] for name in ("files", "rows")}}, METRICS, None)
    assert "each gets any number of them, maybe none" in told
    assert "not how often they are right" in told
    assert "below a confidence of 0.7500 are marked as abstained" in told
    assert "| class in the data |" not in told, "a run of an older fenlei did not write it down"


def test_rows_that_may_have_trained_a_run_measure_no_confidence() -> None:
    told = model_card({**MANIFEST, "extended_from": {"dev_may_have_trained": True}}, METRICS, None)
    assert "fitted on 40 rows, some of which it may have learned from before: it is likely surer than it should be." in told
    assert "nine in ten" not in told


def test_the_card_of_a_stock_folder_promises_what_the_folder_does() -> None:
    """Which marks no answer as abstained, and of a language model gives no calibrated confidence."""
    writes = {**MANIFEST, "abstention": {"min_confidence": 0.75}}
    classifies = {**writes, "method": "head", "head": "linear"}
    written, classified = (stock_card(model_card(one, METRICS, None), one, ["give bare texts"]) for one in (writes, classifies))
    for card in (written, classified):
        assert "abstained" not in card
        assert "Classifier.load" not in card
        assert "Where an input would be longer than 128 tokens,\n" in card
        assert card.endswith("\n## This folder beside the run\n\n- give bare texts\n")
    assert "prompt.json" in written
    assert "not how often they are right" in written
    assert not [promise for promise in ("nine in ten", "temperature", "calibrat") if promise in written.partition("## Data")[0]]
    assert "nine in ten" in classified
    assert "Confidence: calibrated, temperature 1.250" in classified
    assert "pipeline(" in classified
    assert "beside the run" not in stock_card(model_card(writes, METRICS, None), writes)


def test_a_run_writes_down_what_its_card_says(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tuning": "frozen", "max_steps": 1, "device": "cpu", "baseline": False, "dev_ratio": 0.2}
    run = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **options).out
    data = read_manifest(run)["data"]
    assert data["classes"] == {"体育": 16, "财经": 16, "科技": 16}
    assert data["characters"]["median"] <= data["characters"]["longest"]
    assert "| 体育 | 16 |" in (run / "README.md").read_text(encoding="utf-8")

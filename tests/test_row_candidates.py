"""Rows with candidates of their own: what was fitted to the run holds for each row by itself, whatever stands beside it, in any order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.errors import ArtifactError
from fenlei.inference.checksums import checksums
from fenlei.inference.prediction import Prediction
from fenlei.report.evaluation import evaluate_run

NAMES = ("体育", "财经", "科技")
TEXTS = ("国足热身赛两球取胜", "央行下调利率", "手机芯片发布", "球队夺冠股价大涨")
OFFERED: tuple[tuple[str, ...] | None, ...] = (("科技", "体育"), None, ("财经", "科技", "体育"), ("体育", "财经"))
QUICK: dict[str, Any] = {"device": "cpu", "baseline": False, "method": "generate", "tuning": "none", "max_length": 200, "dev_ratio": 0.5}


def made(folder: Path, model: Path, *, several: bool) -> Path:
    """A run whose rows offered candidates, every label with numbers of its own, put in by hand."""
    data = folder / "rows.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for at in range(140):
            label = NAMES[at % 3]
            offered = [*NAMES[at % 2 :], *NAMES[: at % 2]]
            row = {"text": f"{TEXTS[at % 3]}，第{at}条", "label": [label, offered[0]][: 1 + at % 2] if several else label}
            file.write(json.dumps({**row, "category": offered}, ensure_ascii=False) + "\n")
    asked: dict[str, Any] = {"min_confidence": 0.3} if several else {"set_coverage": 0.8, "set_by_class": True}
    train(data, model=str(model), out=folder / "run", **QUICK, **asked)
    manifest = read_manifest(folder / "run")
    assert manifest["row_candidates"]
    assert manifest["calibrated"]
    manifest["vector_scaling"] = {"scale": [0.6, 1.7, 1.1], "bias": [0.9, -0.8, 0.4]}
    if several:
        manifest["decision"]["thresholds"] = [0.35, 0.5, 0.65]
    else:
        manifest["prediction_sets"]["thresholds"] = [0.5, 0.7, 0.6]
    write_manifest(folder / "run", {**manifest, "files": checksums(folder / "run")})
    return folder / "run"


@pytest.fixture(scope="module")
def runs(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return {several: made(tmp_path_factory.mktemp("candidates"), tiny_qwen, several=several) for several in (False, True)}


def assert_alike(ours: Prediction, theirs: Prediction) -> None:
    for name in ("label", "labels", "calibrated", "prediction_set", "abstained"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.probabilities.keys() == theirs.probabilities.keys()
    for name, share in ours.probabilities.items():
        assert share == pytest.approx(theirs.probabilities[name], abs=1e-5)
    assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-5)
    assert (ours.novelty is None) == (theirs.novelty is None)
    assert ours.novelty == pytest.approx(theirs.novelty, abs=1e-5)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_a_row_is_answered_as_if_it_were_alone(runs: dict[bool, Path], several: bool, order: Sequence[int]) -> None:
    classifier = Classifier.load(runs[several], device="cpu")
    together = classifier.predict([TEXTS[at] for at in order], labels=[OFFERED[at] for at in order])
    for at, found in zip(order, together, strict=True):
        assert found.calibrated
        assert_alike(found, classifier.predict([TEXTS[at]], labels=[OFFERED[at]])[0])


@pytest.mark.parametrize("several", [False, True])
def test_a_candidate_that_the_run_does_not_know_is_its_rows_own_affair(runs: dict[bool, Path], several: bool) -> None:
    """Beside such a row the others keep what was fitted for them; it has nothing of the kind."""
    classifier = Classifier.load(runs[several], device="cpu")
    known, strange = classifier.predict(TEXTS[:2], labels=[OFFERED[0], ("天气", "财经")])
    assert_alike(known, classifier.predict([TEXTS[0]], labels=[OFFERED[0]])[0])
    assert_alike(strange, classifier.predict([TEXTS[1]], labels=[("天气", "财经")])[0])
    assert not strange.calibrated
    assert strange.prediction_set is None


def test_what_was_fitted_to_a_label_goes_with_it(runs: dict[bool, Path]) -> None:
    """By hand: scale, summand and threshold of the label, whichever column it comes in."""
    classifier = Classifier.load(runs[True], device="cpu")
    offered = ("科技", "体育")
    scores = classifier.logits([TEXTS[0]], labels=offered).logits[0]
    (found,) = classifier.predict([TEXTS[0]], labels=offered)
    own = {name: at for at, name in enumerate(classifier.labels)}
    scale, bias = np.array([0.6, 1.7, 1.1]), np.array([0.9, -0.8, 0.4])
    thresholds = [0.35, 0.5, 0.65]
    given = set()
    for name, score in zip(offered, scores, strict=True):
        share = 1 / (1 + np.exp(-(score * scale[own[name]] + bias[own[name]])))
        assert found.probabilities[name] == pytest.approx(share, abs=1e-6)
        given |= {name} if share >= thresholds[own[name]] else set()
    assert set(found.labels or ()) == given


def test_rows_may_offer_labels_that_a_run_with_several_does_not_know(runs: dict[bool, Path], tmp_path: Path) -> None:
    rows = [{"text": f"{TEXTS[at % 4]}，又{at}", "label": [NAMES[at % 3]], "category": [*NAMES, *["天气"][: at % 2]]} for at in range(12)]
    data = tmp_path / "asked.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = evaluate_run(runs[True], data, device="cpu", out=tmp_path / "report")
    assert set(found.metrics.names) == {*NAMES, "天气"}
    other = evaluate_run(runs[True], data, device="cpu", out=tmp_path / "again")
    assert other.metrics.to_json() == found.metrics.to_json()


def test_runs_are_compared_among_what_rows_offer_and_promises_counted_where_they_are_made(runs: dict[bool, Path], tmp_path: Path) -> None:
    run, other = runs[False], tmp_path / "other"
    shutil.copytree(run, other)
    rows = [{"text": f"{TEXTS[at % 4]}，又{at}", "label": NAMES[at % 3], "category": [*NAMES, *["天气"][: at % 2]]} for at in range(12)]
    data = tmp_path / "asked.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = evaluate_run(run, data, device="cpu", out=tmp_path / "report", compare_with=[other])
    assert [one.name for one in found.comparison] == ["run", "other"]
    assert found.comparison[1].metrics.to_json() == found.comparison[0].metrics.to_json()
    sets = found.confidence.sets
    assert sets is not None
    assert (sets.unpromised, sum(count for _, count in sets.sizes)) == (6, 6)
    again = evaluate_run(run, data, device="cpu", out=tmp_path / "again", compare_with=[tmp_path / "report" / "predictions.jsonl"])
    assert [one.name for one in again.comparison] == ["run", tmp_path.name]
    write_manifest(other, {**read_manifest(other), "method": "head"})
    with pytest.raises(ArtifactError, match="rows offer '天气', which it was not trained on, and a head answers with no other labels"):
        evaluate_run(run, data, device="cpu", out=tmp_path / "never", compare_with=[other])

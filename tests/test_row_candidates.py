"""Rows with candidates of their own: what was fitted to the run holds for each row by itself, whatever stands beside it, in any order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError
from fenlei.evaluation.answers import right_rows
from fenlei.inference.baseline import baseline_answers, calibrate_baseline
from fenlei.inference.checksums import checksums
from fenlei.inference.distributed import Reading
from fenlei.inference.prediction import Prediction
from fenlei.inference.windows import BulkOptions
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline
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
    with pytest.raises(ArtifactError, match="rows offer '天气', which the evaluated run was not trained on, and a head answers with no"):
        evaluate_run(other, data, device="cpu", out=tmp_path / "never", compare_with=[run])


@pytest.mark.parametrize("several", [False, True])
def test_the_baseline_answers_among_what_a_row_offers(several: bool) -> None:
    """Of texts that say nothing, each row offering its own label alone."""
    ids, labels, labelling = np.arange(60) % 3, LabelSet(NAMES), Labelling(multi_label=several)
    gold = np.eye(3, dtype=bool)[ids] if several else ids
    texts, offered = ["一条消息"] * 60, [(NAMES[at],) for at in ids]
    baseline = calibrate_baseline(Baseline.fit(texts, gold, 3), texts, gold, labelling, labels, offered)
    assert right_rows(gold, baseline_answers(baseline, texts, labelling, labels, offered)).all()
    assert not right_rows(gold, baseline_answers(baseline, texts, labelling, labels)).all()


def test_the_baseline_is_asked_among_the_same_labels_as_the_model(tiny_qwen: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"text": f"第{at}条", "label": NAMES[at % 3], "category": [NAMES[at % 3]]} for at in range(36)]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    trained = train(data, model=str(tiny_qwen), out=tmp_path / "run", **{**QUICK, "baseline": True})
    assert trained.baseline is not None
    assert trained.baseline.accuracy == trained.metrics.accuracy == 1.0
    rows = [{**row, "text": "一条消息"} for row in rows]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    evaluated = evaluate_run(tmp_path / "run", data, device="cpu")
    assert evaluated.baseline is not None
    assert evaluated.baseline.accuracy == evaluated.metrics.accuracy == 1.0


def test_the_column_that_labels_were_learned_from_offers_none(tiny_qwen: Path, tmp_path: Path) -> None:
    """Its lists are what is right, not what may be right: each row is asked among all labels of the run."""
    rows = [{"text": f"{TEXTS[at % 3]}，第{at}条", "category": [NAMES[at % 3], NAMES[(at + 1) % 3]]} for at in range(24)]
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    train(data, model=str(tiny_qwen), out=tmp_path / "run", **QUICK)
    assert read_manifest(tmp_path / "run")["label_column"] == "category"

    assert main(["predict", str(tmp_path / "run"), str(data), "--out", str(out), "--probabilities", "--device", "cpu"]) == 0
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    frame = Classifier.load(tmp_path / "run", device="cpu").predict_frame(pa.Table.from_pylist(rows[:2]), probabilities=True)
    assert [set(row["probabilities"]) for row in (*written, *frame.to_pylist())] == [set(NAMES)] * 26
    (window,) = Reading(BulkOptions(label_column="category"), True).windows(str(data))
    assert {row.candidates for row in window.examples} == {None}


def test_a_model_is_asked_among_the_labels_that_were_named_and_not_among_what_is_right(tiny_qwen: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows = [{"text": text, "category": [NAMES[at], NAMES[at - 1]]} for at, text in enumerate(TEXTS[:3])]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    named = ["--labels", ",".join(NAMES), "--probabilities", "--device", "cpu"]
    assert main(["predict", str(tiny_qwen), str(data), "--out", str(out), *named]) == 0
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [set(row["probabilities"]) for row in written] == [set(NAMES)] * 3

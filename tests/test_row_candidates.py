"""Rows with candidates of their own: what was fitted to the run holds for each row by itself, whatever stands beside it, in any order."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import write_jsonl

from fenlei import Classifier, train
from fenlei.annotation.suggest import suggest
from fenlei.artifact import read_manifest, write_manifest
from fenlei.audit.audit import audit_data
from fenlei.cli.main import main
from fenlei.cli.predict_ray import predict_on_ray
from fenlei.cli.trust import BARE_TEXTS
from fenlei.config import TrustConfig
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError
from fenlei.evaluation.answers import MultiLabelAnswers, right_rows
from fenlei.evaluation.calibration import label_probabilities, probabilities
from fenlei.inference.baseline import baseline_answers, calibrate_baseline
from fenlei.inference.bulk import predict_file
from fenlei.inference.checksums import checksums
from fenlei.inference.distributed import Reading
from fenlei.inference.prediction import Prediction
from fenlei.inference.windows import BulkOptions
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline
from fenlei.report.evaluation import evaluate_run
from fenlei.serving.model import Answered, ServedRun
from fenlei.training.teacher import answers_with, calibrated_logits

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
    data = write_jsonl(tmp_path / "asked.jsonl", rows)
    found = evaluate_run(runs[True], data, device="cpu", out=tmp_path / "report")
    assert set(found.metrics.names) == {*NAMES, "天气"}
    other = evaluate_run(runs[True], data, device="cpu", out=tmp_path / "again")
    assert other.metrics.to_json() == found.metrics.to_json()


def test_runs_are_compared_among_what_rows_offer_and_promises_counted_where_they_are_made(runs: dict[bool, Path], tmp_path: Path) -> None:
    run, other = runs[False], tmp_path / "other"
    shutil.copytree(run, other)
    rows = [{"text": f"{TEXTS[at % 4]}，又{at}", "label": NAMES[at % 3], "category": [*NAMES, *["天气"][: at % 2]]} for at in range(12)]
    data = write_jsonl(tmp_path / "asked.jsonl", rows)
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
    write_jsonl(data, rows)
    trained = train(data, model=str(tiny_qwen), out=tmp_path / "run", **{**QUICK, "baseline": True})
    assert trained.baseline is not None
    assert trained.baseline.accuracy == trained.metrics.accuracy == 1.0
    rows = [{**row, "text": "一条消息"} for row in rows]
    write_jsonl(data, rows)
    evaluated = evaluate_run(tmp_path / "run", data, device="cpu")
    assert evaluated.baseline is not None
    assert evaluated.baseline.accuracy == evaluated.metrics.accuracy == 1.0


def test_the_column_that_labels_were_learned_from_offers_none(tiny_qwen: Path, tmp_path: Path) -> None:
    """Its lists are what is right, not what may be right: each row is asked among all labels of the run."""
    rows = [{"text": f"{TEXTS[at % 3]}，第{at}条", "category": [NAMES[at % 3], NAMES[(at + 1) % 3]]} for at in range(24)]
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    write_jsonl(data, rows)
    train(data, model=str(tiny_qwen), out=run, **QUICK)
    manifest = read_manifest(run)
    assert manifest["label_column"] == "category"
    silent = {key: value for key, value in manifest.items() if key not in ("label_column", "read_from")}  # as runs of before are

    for told in (manifest, silent):
        write_manifest(run, told)
        out = tmp_path / f"{len(told)}.jsonl"
        assert main(["predict", str(run), str(data), "--out", str(out), "--probabilities", "--device", "cpu"]) == 0
        written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        frame = Classifier.load(run, device="cpu").predict_frame(pa.Table.from_pylist(rows[:2]), probabilities=True)
        assert [set(row["probabilities"]) for row in (*written, *frame.to_pylist())] == [set(NAMES)] * 26
    (window,) = Reading(BulkOptions(label_column="category"), True).windows(str(data))
    assert {row.candidates for row in window.examples} == {None}


def test_a_model_is_asked_among_the_labels_that_were_named_and_not_among_what_is_right(tiny_qwen: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows = [{"text": text, "category": [NAMES[at], NAMES[at - 1]]} for at, text in enumerate(TEXTS[:3])]
    write_jsonl(data, rows)
    named = ["--labels", ",".join(NAMES), "--probabilities", "--device", "cpu"]
    assert main(["predict", str(tiny_qwen), str(data), "--out", str(out), *named]) == 0
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [set(row["probabilities"]) for row in written] == [set(NAMES)] * 3


@pytest.mark.parametrize("several", [False, True])
def test_what_is_suggested_is_what_prediction_says(runs: dict[bool, Path], several: bool, tmp_path: Path) -> None:
    """Among what a row offers, and among all labels where it offers none."""
    rows: list[dict[str, Any]] = [{"text": f"{TEXTS[at]}，又一条", "category": [NAMES[at - 1], NAMES[at]]} for at in range(3)]
    rows.append({"text": TEXTS[3]})
    pool, out = tmp_path / "pool.jsonl", tmp_path / "out.jsonl"
    write_jsonl(pool, rows)
    classifier = Classifier.load(runs[several], device="cpu")
    predict_file(classifier, pool, out)
    predicted = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    picked = suggest(classifier, pool, 4)
    assert len(picked) == 4
    for one in picked:
        given = predicted[one.example.line - 1]
        assert one.answer == given["prediction"]
        assert one.confidence == pytest.approx(given["confidence"], abs=1e-5)
        assert set([one.answer] if isinstance(one.answer, str) else one.answer) <= set(given.get("category", NAMES))


def test_the_interface_has_the_labels_that_rows_offer_beside_the_runs_own(runs: dict[bool, Path], tmp_path: Path) -> None:
    pool, out = tmp_path / "pool.jsonl", tmp_path / "tasks.json"
    write_jsonl(pool, [{"text": TEXTS[1], "category": ["财经", "天气"]}, {"text": TEXTS[0]}])
    assert main(["suggest", str(runs[False]), str(pool), "--format", "label-studio", "--out", str(out), "--device", "cpu"]) == 0
    interface = ElementTree.fromstring(out.with_suffix(".xml").read_text(encoding="utf-8"))
    assert [one.get("value") for one in interface.iter("Choice")] == [*read_manifest(runs[False])["labels"], "天气"]


def test_a_run_judges_labels_among_what_a_row_offers(runs: dict[bool, Path], tmp_path: Path) -> None:
    """Each text stands there with both of its candidates, so one of the two rows is suspected, and the other label suggested."""
    offered = [(NAMES[at - 1], NAMES[at]) for at in range(3)]
    rows = [{"text": TEXTS[at], "label": label, "category": list(offered[at])} for at in range(3) for label in offered[at]]
    rows.append({"text": "另一条", "label": NAMES[0], "category": []})
    errors = audit_data(write_jsonl(tmp_path / "rows.jsonl", rows), run=runs[False], device="cpu").label_errors
    assert "1 rows were not judged: their list of candidate labels is empty" in errors.note
    found = errors.rows
    assert sorted(one.row // 2 for one in found) == [0, 1, 2]
    said = Classifier.load(runs[False], device="cpu").predict(TEXTS[:3], labels=offered)
    for one in found:
        answer = said[one.row // 2]
        assert {one.label, one.suggested} == set(offered[one.row // 2])
        assert one.suggested == answer.label
        assert one.probability == pytest.approx(answer.confidence, abs=1e-5)


@pytest.fixture(scope="module")
def among_two(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run none of whose rows was asked among all labels: temperature, threshold and sets are those of a choice between two."""
    folder = tmp_path_factory.mktemp("among_two")
    offered = [[NAMES[at % 3], NAMES[(at + 1) % 3]] for at in range(140)]
    rows = [{"text": f"{TEXTS[at % 3]}，第{at}条", "label": NAMES[at % 3], "category": names} for at, names in enumerate(offered)]
    data = write_jsonl(folder / "rows.jsonl", rows)
    return train(data, model=str(tiny_qwen), out=folder / "run", set_coverage=0.8, min_confidence=0.3, **QUICK).out


def test_what_was_fitted_among_a_few_labels_is_not_given_to_texts_that_are_asked_among_all(among_two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    classifier = Classifier.load(among_two, device="cpu")
    assert classifier.describe()["fitted_among_all"] is False
    for labels in (None, [None], classifier.labels, classifier.labels[::-1]):
        (one,) = classifier.predict([TEXTS[0]], labels=labels)
        assert (one.calibrated, one.prediction_set, one.abstained, one.novelty) == (False, None, None, None)
    (among,) = classifier.predict([TEXTS[0]], labels=NAMES[:2])
    assert among.calibrated
    assert among.prediction_set is not None
    mixed = [{"text": TEXTS[at], "label": NAMES[at], "category": names} for at, names in enumerate((None, NAMES[1:]))]
    predict_file(classifier, write_jsonl(tmp_path / "mixed.jsonl", mixed), out)
    with out.open(encoding="utf-8", newline="") as file:
        assert [row["prediction_set"] != "" for row in csv.DictReader(file)] == [False, True]


def test_what_texts_that_are_asked_among_all_go_without_is_said(
    among_two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fenlei.inference.distributed.predict_distributed", lambda *given, **options: None)
    ask, promise = ["predict", str(among_two), "--text", TEXTS[0], "--device", "cpu"], TrustConfig(min_confidence=0.3)
    assert main(ask) == 0
    told = capsys.readouterr().err
    assert "none of them was asked among all labels" in told
    assert BARE_TEXTS not in told
    assert main([*ask, "--min-confidence", "0.3"]) == 0
    assert BARE_TEXTS in capsys.readouterr().err
    predict_on_ray(str(among_two), "in.jsonl", "out.jsonl", None, None, None, "cpu", promise, False, False, None)
    assert BARE_TEXTS in capsys.readouterr().err


@pytest.mark.parametrize("several", [False, True])
def test_a_teacher_says_what_it_answers(runs: dict[bool, Path], several: bool, tmp_path: Path) -> None:
    """Bare texts are asked among all labels, for which nothing was fitted here: neither numbers of a label nor its threshold."""
    run = tmp_path / "run"
    shutil.copytree(runs[several], run)
    write_manifest(run, {**read_manifest(run), "fitted_among_all": False})
    teacher = Classifier.load(run, device="cpu")
    shares = teacher.predict_proba(TEXTS)
    said = calibrated_logits(teacher, TEXTS)
    np.testing.assert_allclose(label_probabilities(said) if several else probabilities(said), shares, atol=1e-6)
    answers = answers_with(teacher).answers(shares)
    given = answers.chosen if isinstance(answers, MultiLabelAnswers) else np.eye(3, dtype=bool)[answers.argmax(axis=1)]
    for one, chosen in zip(teacher.predict(TEXTS), given, strict=True):
        assert set([one.label] if one.labels is None else one.labels) == {NAMES[at] for at in np.flatnonzero(chosen)}


def test_what_labels_score_on_an_empty_text_is_read_together_where_rows_bring_many_lists(tiny_qwen: Path) -> None:
    names = ("体育", "财经", "科技", "天气")
    lists = list(permutations(names))[:12]
    classifier = Classifier.zero_shot(str(tiny_qwen), names, max_length=200)
    alone = [classifier.predict(["国足取胜"], labels=[one])[0] for one in lists]
    passes: list[Any] = []
    classifier._run.method.stock.base_model.register_forward_hook(lambda *given: passes.append(given))
    together = classifier.predict(["国足取胜"] * len(lists), labels=lists)
    assert len(passes) == 2
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


@pytest.fixture(scope="module")
def without_room(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose labels together leave no room for a text."""
    folder = tmp_path_factory.mktemp("without_room")
    rows = [{"text": f"{TEXTS[at % 3]}，第{at}条", "label": NAMES[at % 3], "category": [NAMES[at % 3], f"类别{at}"]} for at in range(60)]
    data = write_jsonl(folder / "rows.jsonl", rows)
    return train(data, model=str(tiny_qwen), out=folder / "run", **{**QUICK, "max_length": 130}).out


def test_a_run_whose_labels_leave_no_room_together_is_served(without_room: Path) -> None:
    """Each request names labels of its own; one that names none is told why it is not answered."""
    served = ServedRun(without_room, lambda folder: Classifier.load(folder, device="cpu")).load()
    (answer,) = served.answer([TEXTS[0]], ("体育", "财经"))
    assert isinstance(answer, Answered)
    assert set(answer.prediction.probabilities) == {"体育", "财经"}
    with pytest.raises(ConfigError, match=r"max_length 130 leaves no room for the text: .*\(a finished run takes them with --labels\)"):
        served.answer([TEXTS[0]], None)


def test_rows_that_name_none_are_set_aside_whatever_stands_beside_them(
    without_room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a window that has no other rows; a file of nothing else is an error."""
    monkeypatch.setattr("fenlei.inference.bulk.WINDOW_ROWS", 2)
    classifier = Classifier.load(without_room, device="cpu")
    rows = [{"text": text, **({"category": ["体育", "财经"]} if at < 2 else {})} for at, text in enumerate(TEXTS)]
    result = predict_file(classifier, write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert (result.rows, result.rejected) == (2, 2)
    with pytest.raises(ConfigError, match="max_length 130 leaves no room"):
        predict_file(classifier, write_jsonl(tmp_path / "bare.jsonl", rows[2:]), tmp_path / "never.jsonl")


def test_novelty_cannot_be_chosen_by_texts_that_are_asked_another_question(tiny_qwen: Path, tmp_path: Path) -> None:
    rows = [{"text": f"第{at}条", "label": NAMES[at % 3], "category": [NAMES[at % 3], NAMES[at % 3 - 1]]} for at in range(12)]
    data, strange = tmp_path / "rows.jsonl", tmp_path / "strange.jsonl"
    write_jsonl(data, rows)
    strange.write_text('{"text": "今天晴转多云"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="out_of_scope: its texts offer no candidates"):
        train(data, model=str(tiny_qwen), out=tmp_path / "run", out_of_scope=str(strange), **QUICK)

"""A run's promises, from training to every exit: calibrated, abstaining, with sets and novelty, and the same after loading."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_NEWS, write_jsonl
from safetensors.numpy import load_file

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.config import TrustConfig
from fenlei.data.examples import Example
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.evaluation.calibration import Calibration, probabilities
from fenlei.evaluation.novelty import auroc, energy
from fenlei.export.merged import export_merged
from fenlei.inference.bulk import predict_file
from fenlei.inference.scoring import Scores
from fenlei.inference.trust import DEV_SCORES, NOVELTY, DevScores, load_scores, load_trust, save_novelty
from fenlei.training.promises import KnownRows, make_promises, read_out_of_scope

QUICK: dict[str, Any] = {"max_steps": 30, "batch_size": 16, "device": "cpu", "baseline": False, "max_length": 48, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each toy headline six times, so that dev has 90 rows to calibrate on."""
    rows = [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
    path = tmp_path_factory.mktemp("news") / "news.jsonl"
    many = [{**row, "text": f"{row['text']}{mark}"} for mark in "。！？…，、" for row in rows]
    return write_jsonl(path, many)


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("strange") / "strange.jsonl", ({"text": f"zq {at} xv {at * 7} " * 4} for at in range(30)))


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, news: Path, strange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"set_coverage": 0.9, "min_confidence": 0.6, "out_of_scope": str(strange)}
    result = train(news, model=str(tiny_qwen), out=out, tuning="full", dev_ratio=0.5, **options, **QUICK)
    assert any("novelty by" in note for note in result.notes)
    return out


TEXTS = ["国足热身赛两球取胜", "央行下调利率", "zq 1 xv 7 zq 1 xv 7", ""]


def test_what_was_promised_is_kept_in_the_folder_and_applied_after_loading(run: Path) -> None:
    manifest = read_manifest(run)
    assert manifest["calibrated"]
    assert manifest["abstention"]["min_confidence"] == 0.6
    assert manifest["prediction_sets"]["coverage"] == 0.9
    assert manifest["novelty"] in ("energy", "mahalanobis")
    classifier = Classifier.load(run, device="cpu")
    for prediction in classifier.predict(TEXTS):
        assert prediction.abstained == (prediction.confidence < 0.6)
        threshold = 1 - manifest["prediction_sets"]["thresholds"][0]
        likely = {name for name, value in prediction.probabilities.items() if value >= threshold}
        assert set(prediction.prediction_set) == likely
        assert list(prediction.prediction_set) == sorted(likely, key=lambda name: -prediction.probabilities[name])
        assert 0 <= prediction.novelty <= 1
    assert classifier.predict(TEXTS) == Classifier.load(run, device="cpu").predict(TEXTS)


def test_the_saved_dev_scores_are_those_of_the_run_on_the_rows_it_names(run: Path, news: Path) -> None:
    manifest, scores = read_manifest(run), load_scores(run)
    lines = news.read_text(encoding="utf-8").splitlines()
    numbers = [
        line
        for part in manifest["data"]["calibrating"][str(news)].split(",")
        for first, _, last in [part.partition("-")]
        for line in range(int(first), int(last or first) + 1)
    ]
    rows = [json.loads(lines[at - 1]) for at in numbers]
    classifier = Classifier.load(run, device="cpu")
    np.testing.assert_allclose(classifier.logits([row["text"] for row in rows]).logits, scores["calibrating"].logits, atol=1e-4)
    assert [classifier.labels[at] for at in scores["calibrating"].label_ids] == [row["label"] for row in rows]
    assert len(scores["selecting"].logits) == len(scores["selecting"].label_ids) == manifest["data"]["rows"]["selecting"]


def test_novelty_is_the_rank_among_the_calibrating_rows(run: Path) -> None:
    classifier = Classifier.load(run, device="cpu")
    calibrating = load_scores(run)["calibrating"].logits
    plain = dataclasses.replace(classifier.trust.novelty, score="energy", gaussians=None, known=np.sort(energy(calibrating)))
    classifier.trust = dataclasses.replace(classifier.trust, novelty=plain)
    expected = [(energy(calibrating) < one).mean() for one in energy(classifier.logits(TEXTS).logits)]
    assert [prediction.novelty for prediction in classifier.predict(TEXTS)] == pytest.approx(expected)


def test_out_of_scope_rows_choose_the_score_that_tells_them_best(run: Path, strange: Path) -> None:
    classifier = Classifier.load(run, device="cpu")
    novel = classifier.logits([json.loads(line)["text"] for line in strange.read_text().splitlines()])
    rule = classifier.trust.novelty
    by_energy = auroc(energy(load_scores(run)["calibrating"].logits), energy(novel.logits))
    assert max(0.7, by_energy) <= auroc(rule.known, rule.raw(novel)) <= 1


def test_states_are_used_where_they_tell_more_than_logits_and_come_back_from_the_folder(strange: Path, tmp_path: Path) -> None:
    """Logits that say nothing, states that say all: in-scope texts lie at two points, others between them."""

    def score(rows: Sequence[Example], keep_states: bool) -> Scores:
        texts = [row.text for row in rows]
        rng = np.random.default_rng(len(texts))
        place = np.array([0.0 if text.startswith("zq") else 8.0 * (-1) ** at for at, text in enumerate(texts)])
        states = (rng.normal(size=(len(texts), 4)) + place[:, None]).astype(np.float32)
        return Scores(rng.normal(size=(len(texts), 2)).astype(np.float32), np.zeros(len(texts), dtype=np.int32), states)

    rows = KnownRows(*([Example(str(at), None, "f", at) for at in range(count)] for count in (100, 200)), np.arange(200) % 2)
    dev = DevScores(score(rows.calibrating, False).logits, np.arange(100) % 2)
    promises = make_promises(TrustConfig(out_of_scope=str(strange)), dev, rows, ("a", "b"), score, seed=0)
    rule = promises.trust.novelty
    assert rule.score == "mahalanobis"
    assert promises.trust.needs_states
    asked = score([Example(text, None, "f", 1) for text in ("zq", "zq", "x", "x")], True)
    assert (rule.ranks(asked)[:2] == 1.0).all()
    assert (rule.ranks(asked)[2:] < 1.0).all()
    save_novelty(tmp_path, rule)
    again = load_trust(tmp_path, {**promises.trust.to_json(), "labels": ["a", "b"]}).novelty
    np.testing.assert_array_equal(again.ranks(asked), rule.ranks(asked))


def test_out_of_scope_texts_are_read_as_the_rows_are(tmp_path: Path) -> None:
    """By the columns of the rows, where the file has them: `content` would be found before `title`, and 描述 not at all."""
    asked: list[list[str]] = []

    def score(rows: Sequence[Example], keep_states: bool) -> Scores:
        asked.append([row.text for row in rows])
        return Scores(np.random.default_rng(0).normal(size=(len(rows), 2)).astype(np.float32), np.zeros(len(rows), dtype=np.int32))

    strange = write_jsonl(tmp_path / "strange.jsonl", ({"content": "body", "title": f"zq {at}"} for at in range(5)))
    calibrating = [Example(str(at), None, "f", at) for at in range(40)]
    rows = KnownRows(calibrating, [Example("x", None, "f", 1, text_columns=("title",))], np.zeros(1, dtype=np.int64))
    dev = DevScores(score(calibrating, False).logits, np.arange(40) % 2)
    make_promises(TrustConfig(out_of_scope=str(strange)), dev, rows, ("a", "b"), score, seed=0)
    assert asked[-1] == [f"zq {at}" for at in range(5)]

    table = tmp_path / "strange.csv"
    table.write_text("描述,编号\n屏幕碎了,a1\n", encoding="utf-8")
    assert [row.text for row in read_out_of_scope(table, ("描述",))] == ["屏幕碎了"]
    with pytest.raises(ConfigError, match="out_of_scope: training needs a file or a folder, found '-'"):
        read_out_of_scope("-", ())


def test_another_threshold_can_be_asked_for_without_training_again(run: Path) -> None:
    asked = Classifier.load(run, device="cpu", trust=TrustConfig(target_accuracy=0.7))
    assert asked.trust.abstention.target_accuracy == 0.7
    assert asked.trust.sets.coverage == 0.9  # what is not asked for stays
    assert Classifier.load(run, device="cpu").trust.abstention.min_confidence == 0.6
    wider = Classifier.load(run, device="cpu", trust=TrustConfig(set_coverage=0.97, set_score="aps"))
    assert all(set(one.prediction_set) for one in wider.predict(TEXTS))
    with pytest.raises(DataError, match=r"0\.999 take at least 999 calibrating rows, there are 90"):
        Classifier.load(run, device="cpu", trust=TrustConfig(set_coverage=0.999))


def test_bulk_prediction_marks_abstained_rows_and_drops_none(run: Path, news: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(run, device="cpu", trust=TrustConfig(min_confidence=0.9))
    predict_file(classifier, news, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(news.read_text(encoding="utf-8").splitlines())
    assert [row["abstained"] for row in rows] == [row["confidence"] < 0.9 for row in rows]
    assert list(rows[0])[2:] == ["prediction", "confidence", "prediction_set", "abstained", "novelty", "calibrated", "tokens_cut"]
    predict_file(classifier, news, tmp_path / "out.csv")
    assert (
        (tmp_path / "out.csv").read_text(encoding="utf-8").startswith("text,label,prediction,confidence,prediction_set,abstained,novelty,")
    )
    taken = tmp_path / "taken.jsonl"
    taken.write_text('{"text": "x", "novelty": 1}\n')
    with pytest.raises(DataError, match="already has a column 'novelty'"):
        predict_file(classifier, taken, tmp_path / "never.jsonl")


def test_a_promise_that_too_few_rows_can_give_is_refused_before_training(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"target_accuracy 0\.99 takes at least 437 calibrating rows \(half of dev\), there are"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", target_accuracy=0.99, **QUICK)
    with pytest.raises(ConfigError, match=r"set_coverage 0\.99 takes at least 99 calibrating rows"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", set_coverage=0.99, **QUICK)
    with pytest.raises(ConfigError, match="exclude each other"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", target_accuracy=0.9, min_confidence=0.5, **QUICK)
    with pytest.raises(DataError, match=r"no-such\.txt"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", out_of_scope=str(tmp_path / "no-such.txt"), **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_promise_that_the_model_cannot_give_is_an_error_and_the_run_is_whole(tiny_qwen: Path, news: Path, tmp_path: Path) -> None:
    poor = {**QUICK, "max_steps": 1, "learning_rate": 1e-9}
    with pytest.raises(DataError, match=r"run: the run is whole, but without what cannot be promised: an accuracy of 0\.95"):
        train(news, model=str(tiny_qwen), out=tmp_path / "run", tuning="full", dev_ratio=0.6, target_accuracy=0.95, **poor)
    assert Classifier.load(tmp_path / "run", device="cpu").predict(TEXTS)[0].abstained is None


def test_what_a_run_is_worth_is_shown_before_the_promise_that_it_cannot_give(
    tiny_qwen: Path, news: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    poor = ["--max-steps", "1", "--learning-rate", "1e-9", "--batch-size", "8", "--max-length", "48", "--no-baseline", "--device", "cpu"]
    asked = ["--dev-ratio", "0.6", "--test-ratio", "0.05", "--target-accuracy", "0.95"]
    assert main(["train", str(news), "--model", str(tiny_qwen), "--tuning", "full", "--out", str(out), *asked, *poor]) == 1
    said = capsys.readouterr()
    assert "95 % interval" in said.out
    assert "On the test rows (" in said.err
    assert said.err.index("The run is in ") < said.err.index("Error: ")
    assert "an accuracy of 0.95 cannot be promised" in said.err
    assert (out / "report" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("asked", "kept", "unmet"),
    [
        (TrustConfig(target_accuracy=0.95, set_coverage=0.8), ("sets",), "an accuracy of 0.95 cannot be promised"),
        (TrustConfig(min_confidence=0.6, set_coverage=0.9, set_by_class=True), ("abstention",), "in a class, and no class has so many"),
        (TrustConfig(target_accuracy=0.95, set_coverage=0.995), (), "an accuracy of 0.95 cannot .*; sets with a coverage of 0.995 take"),
    ],
)
def test_one_promise_that_cannot_be_kept_takes_no_other_along(asked: TrustConfig, kept: tuple[str, ...], unmet: str) -> None:
    """Logits that say nothing, of 50 classes with two rows each."""
    logits = np.random.default_rng(0).normal(size=(100, 50)).astype(np.float32)
    rows = KnownRows(*([Example(str(at), None, "f", at) for at in range(100)] for _ in range(2)), np.arange(100) % 50)
    labels = tuple(f"label {at}" for at in range(50))
    dev = DevScores(logits, np.arange(100) % 50)
    promises = make_promises(asked, dev, rows, labels, lambda *_: pytest.fail("no states are needed"), seed=0)
    assert [name for name in ("abstention", "sets") if getattr(promises.trust, name) is not None] == list(kept)
    assert promises.unmet is not None
    assert re.search(unmet, str(promises.unmet))


def test_a_run_without_its_score_files_says_so(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / DEV_SCORES).unlink()
    assert Classifier.load(copy, device="cpu", trust=TrustConfig(min_confidence=0.5)).trust.abstention.coverage is None
    with pytest.raises(ArtifactError, match=DEV_SCORES):
        Classifier.load(copy, device="cpu", trust=TrustConfig(target_accuracy=0.8))
    (copy / NOVELTY).write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=NOVELTY):
        Classifier.load(copy, device="cpu")
    assert "known" in load_file(run / NOVELTY)


def with_vector_scaling(run: Path) -> Calibration:
    """The run's manifest changed to a calibration of factors and summands."""
    manifest = json.loads((run / "fenlei.json").read_text(encoding="utf-8"))
    manifest["vector_scaling"] = {"scale": [1.5, 0.5, 1.0], "bias": [0.5, -1.0, 0.0]}
    write_manifest(run, manifest)
    return Calibration.from_json(manifest)


@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_bert"])
def test_vector_scaling_is_applied_and_exported_as_far_as_the_head_can_hold_it(
    model: str, news: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    train(news, model=str(request.getfixturevalue(model)), out=tmp_path / "run", tuning="full", **{**QUICK, "max_steps": 4})
    calibration = with_vector_scaling(tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    logits = classifier.logits(TEXTS).logits.astype(np.float64)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS), probabilities(logits * [1.5, 0.5, 1.0] + [0.5, -1.0, 0.0]), atol=1e-6)
    result = export_merged(tmp_path / "run", tmp_path / "stock", texts=TEXTS[:3])
    assert result.largest_difference < 1e-3
    told = any("vector scaling has no place" in note for note in result.notes)
    assert told == (model == "tiny_qwen")
    assert any("stay with the run" in note for note in result.notes)
    card = (result.out / "README.md").read_text(encoding="utf-8")
    assert ("vector scaling has no place" in card) == (model == "tiny_qwen")
    assert calibration.scale is not None

    answered = logits[:3].argmax(axis=1)
    rarest = int(np.bincount(answered, minlength=3).argmin())  # once its summand is large, the run gives no other label
    scaling = {"scale": [1.0] * 3, "bias": [50.0 * (at == rarest) for at in range(3)]}
    write_manifest(tmp_path / "run", {**read_manifest(tmp_path / "run"), "vector_scaling": scaling})
    result = export_merged(tmp_path / "run", tmp_path / "other", texts=TEXTS[:3])
    assert result.agreement == pytest.approx((answered == rarest).mean() if told else 1.0)
    assert any("which gives another label to" in note for note in result.notes) == told

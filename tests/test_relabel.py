"""Labels of a finished run renamed, merged and dropped: probabilities change as they must, and no further."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_NEWS, write_jsonl
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.config import RunConfig, TrustConfig
from fenlei.data.examples import Example
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.evaluation.novelty import ClassGaussians
from fenlei.export.merged import export_merged
from fenlei.inference.checksums import checksums
from fenlei.inference.trust import NoveltyRule, load_scores, load_trust, save_novelty
from fenlei.labels import LabelNote, LabelSet
from fenlei.report.evaluation import evaluate_run
from fenlei.training.exemplars import load_exemplars, save_exemplars
from fenlei.training.extend import extend
from fenlei.training.label_plan import plan_labels
from fenlei.training.relabel import _kept_exemplars, add_labels, relabel

QUICK: dict[str, Any] = {"device": "cpu", "baseline": False, "max_steps": 6, "batch_size": 8, "learning_rate": 0.01}
TEXTS = ["国足热身赛两球取胜", "央行下调利率", "手机芯片发布"]


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels, calibrated, with sets, exemplars and a head in two layers, one as wide as there are labels' rows before it."""
    out = tmp_path_factory.mktemp("relabel") / "run"
    train(TOY_NEWS, model=str(tiny_qwen), out=out, tuning="lora", dev_ratio=0.5, set_coverage=0.8, store_exemplars=2, **QUICK)
    manifest = read_manifest(out)
    assert manifest["labels"] == ["体育", "财经", "科技"]
    # Vector scaling takes more rows than these: it is put in by hand, so that it is carried through everything below.
    write_manifest(out, {**manifest, "vector_scaling": {"scale": [0.9, 1.3, 1.1], "bias": [0.2, -0.1, 0.4]}, "files": checksums(out)})
    return out


def answers(folder: Path) -> np.ndarray:
    return Classifier.load(folder, device="cpu", verify=True).predict_proba(TEXTS)


def test_renaming_changes_names_alone(run: Path, tmp_path: Path) -> None:
    result = relabel(run, out=tmp_path / "out", rename={"体育": "财经", "财经": "体育"})
    assert result.labels == Classifier.load(tmp_path / "out").labels == ("财经", "体育", "科技")
    np.testing.assert_array_equal(answers(tmp_path / "out"), answers(run))
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "财经", "1": "体育", "2": "科技"}
    assert [row.label for row in load_exemplars(tmp_path / "out")] == [
        {"体育": "财经", "财经": "体育"}.get(str(row.label), row.label) for row in load_exemplars(run)
    ]
    assert read_manifest(tmp_path / "out")["prediction_sets"]["coverage"] == 0.8


def test_a_promise_that_can_still_be_made_is_kept(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    config = tmp_path / "copy" / "config.yaml"
    config.write_text(RunConfig.from_yaml(config).replace(target_accuracy=0.9).to_yaml(), encoding="utf-8")
    result = relabel(tmp_path / "copy", out=tmp_path / "out", rename={"体育": "运动"})
    assert any("does not promise all that was asked: an accuracy of 0.9 takes at least" in note for note in result.notes)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["abstention"] is None
    assert manifest["prediction_sets"]["coverage"] == 0.8


def test_a_file_of_before_is_evaluated_under_the_labels_of_now(run: Path, tmp_path: Path) -> None:
    """Through two changes, without rows of dropped labels; but not where a name has gone over to another label."""
    relabel(run, out=tmp_path / "first", rename={"体育": "运动"})
    relabel(tmp_path / "first", out=tmp_path / "second", rename={"运动": "赛事"}, drop=["科技"])
    assert read_manifest(tmp_path / "second")["relabelled_from"]["former_labels"] == {"体育": "赛事", "运动": "赛事", "科技": None}
    second = evaluate_run(tmp_path / "second", TOY_NEWS, out=tmp_path / "report", device="cpu")
    assert {one.name: one.support for one in second.metrics.classes} == {"赛事": 20, "财经": 20}
    assert any(note.startswith("20 rows are left out") for note in second.notes)
    relabel(run, out=tmp_path / "over", rename={"体育": "运动", "科技": "体育"})
    with pytest.raises(DataError, match="label '科技' is not one of"):
        evaluate_run(tmp_path / "over", TOY_NEWS, out=tmp_path / "report", device="cpu")


def test_a_file_of_before_is_evaluated_where_ids_may_stand_in_it_too(run: Path, tmp_path: Path) -> None:
    """The run was trained with a class file: what is no name of now may be an id, or a name of before."""
    shutil.copytree(run, tmp_path / "copy")
    config = tmp_path / "copy" / "config.yaml"
    config.write_text(RunConfig.from_yaml(config).replace(class_file="names.txt").to_yaml(), encoding="utf-8")
    relabel(tmp_path / "copy", out=tmp_path / "out", rename={"体育": "运动"})
    names, rows = read_manifest(run)["labels"], [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
    mixed = [{**row, "label": names.index(row["label"]) if at % 2 else row["label"]} for at, row in enumerate(rows)]
    write_jsonl(tmp_path / "rows.jsonl", mixed)
    measured = evaluate_run(tmp_path / "out", tmp_path / "rows.jsonl", out=tmp_path / "report", device="cpu").metrics
    assert {one.name: one.support for one in measured.classes} == {"运动": 20, "财经": 20, "科技": 20}


def test_probabilities_of_merged_labels_add(run: Path, tmp_path: Path) -> None:
    relabel(run, out=tmp_path / "out", merge={"经济": ["科技", "体育"]})
    was, now = answers(run), answers(tmp_path / "out")
    assert Classifier.load(tmp_path / "out").labels == ("经济", "财经")
    np.testing.assert_allclose(now[:, 0], was[:, 0] + was[:, 2], atol=1e-6)
    np.testing.assert_allclose(now[:, 1], was[:, 1], atol=1e-6)


def test_the_card_of_a_merged_run_tells_when_it_was_calibrated(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    write_manifest(tmp_path / "copy", {**read_manifest(run), "calibrated": True})
    relabel(tmp_path / "copy", out=tmp_path / "out", merge={"经济": ["科技", "体育"]})
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "calibrated before labels were merged" in card
    assert "temperature 1.000" not in card


def test_those_left_keep_their_proportions(run: Path, tmp_path: Path) -> None:
    relabel(run, out=tmp_path / "out", drop=["财经"])
    was, now = answers(run)[:, [0, 2]], answers(tmp_path / "out")
    np.testing.assert_allclose(now, was / was.sum(axis=1, keepdims=True), atol=1e-6)
    weights = load_file(tmp_path / "out" / "model" / "adapter_model.safetensors")
    assert [len(weight) for name, weight in weights.items() if "score" in name] == [2]
    assert {row.label for row in load_exemplars(tmp_path / "out")} == {"体育", "科技"}


def test_texts_of_a_dropped_label_are_none_that_novelty_knows(run: Path, tmp_path: Path) -> None:
    """Distances to the classes that are left would take the states of the rows, which are gone."""
    shutil.copytree(run, tmp_path / "copy")
    generator = np.random.default_rng(0)
    gaussians = ClassGaussians.fit(generator.normal(size=(30, 32)), np.arange(30) % 3)
    save_novelty(tmp_path / "copy", NoveltyRule("mahalanobis", np.sort(generator.random(15)), gaussians))
    write_manifest(tmp_path / "copy", {**read_manifest(run), "novelty": "mahalanobis"})
    result = relabel(tmp_path / "copy", out=tmp_path / "dropped", drop=["财经"])
    manifest = read_manifest(tmp_path / "dropped")
    novelty = load_trust(tmp_path / "dropped", manifest).novelty
    assert manifest["novelty"] == "energy"
    assert novelty is not None
    assert len(novelty.known) == len(load_scores(tmp_path / "dropped")["calibrating"].logits) < len(load_scores(run)["calibrating"].logits)
    assert any("novelty is told by energy now" in note for note in result.notes)
    relabel(tmp_path / "copy", out=tmp_path / "renamed", rename={"财经": "经济"})
    assert read_manifest(tmp_path / "renamed")["novelty"] == "mahalanobis"


@pytest.fixture(scope="module")
def four(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    rows = [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
    rows += [{"text": f"{row['text'][:8]}晴转多云{at}", "label": "天气"} for at, row in enumerate(rows[:20])]
    write_jsonl(folder / "rows.jsonl", rows)
    train(folder / "rows.jsonl", model=str(tiny_qwen), out=folder / "run", tuning="frozen", head="mlp", dev_ratio=0.5, **QUICK)
    return folder / "run"


def test_merging_twice_and_dropping_what_was_merged(four: Path, tmp_path: Path) -> None:
    relabel(four, out=tmp_path / "one", merge={"甲": ["体育", "财经"]}, rename={"科技": "数码"})
    relabel(tmp_path / "one", out=tmp_path / "two", merge={"乙": ["甲", "天气"]})
    relabel(tmp_path / "one", out=tmp_path / "three", drop=["甲"])
    was = answers(four)
    np.testing.assert_allclose(answers(tmp_path / "two")[:, 0], was[:, [0, 1, 3]].sum(axis=1), atol=1e-6)
    left = was[:, [2, 3]]
    np.testing.assert_allclose(answers(tmp_path / "three"), left / left.sum(axis=1, keepdims=True), atol=1e-6)
    assert Classifier.load(tmp_path / "three").labels == ("数码", "天气")


def test_kept_dev_scores_are_those_of_the_new_labels(four: Path, tmp_path: Path) -> None:
    """What promises are fitted on is what the changed run says of the same rows."""
    relabel(four, out=tmp_path / "out", merge={"甲": ["体育", "天气"]}, drop=["科技"])
    manifest = read_manifest(four)
    rows = [json.loads(line) for line in (four.parent / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    ranges = [pair.split("-") for pair in manifest["data"]["calibrating"][str(four.parent / "rows.jsonl")].split(",")]
    held = [rows[line - 1] for first, *last in ranges for line in range(int(first), int((last or [first])[0]) + 1)]
    held = [row for row in held if row["label"] != "科技"]
    stored = load_scores(tmp_path / "out")["calibrating"]
    classifier = Classifier.load(tmp_path / "out", device="cpu")
    np.testing.assert_allclose(stored.logits, classifier.logits([row["text"] for row in held]).logits, atol=1e-5)
    assert [classifier.labels[at] for at in stored.label_ids] == [
        "甲" if row["label"] in ("体育", "天气") else row["label"] for row in held
    ]
    assert all(0 <= one.novelty <= 1 for one in classifier.predict(TEXTS) if one.novelty is not None)


@pytest.mark.parametrize(("model", "options"), [("tiny_qwen", {}), ("tiny_bert", {})])
def test_the_stock_folder_of_a_full_run_has_the_rows_that_are_left(
    model: str, options: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    train(TOY_NEWS, model=str(request.getfixturevalue(model)), out=tmp_path / "run", tuning="full", **QUICK, **options)
    relabel(tmp_path / "run", out=tmp_path / "out", drop=["体育"], rename={"财经": "economy"})
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model")
    assert stock.config.id2label == {0: "economy", 1: "科技"}
    was = answers(tmp_path / "run")[:, 1:]
    np.testing.assert_allclose(answers(tmp_path / "out"), was / was.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_label_is_dropped_from_a_run_that_reads_in_windows(tiny_qwen: Path, tmp_path: Path) -> None:
    """What weighs the windows lies beside the head, and has no rows of labels."""
    train(TOY_NEWS, model=str(tiny_qwen), out=tmp_path / "run", tuning="lora", long="windows", max_length=24, **QUICK)
    relabel(tmp_path / "run", out=tmp_path / "out", drop=["体育"])
    was = answers(tmp_path / "run")[:, 1:]
    np.testing.assert_allclose(answers(tmp_path / "out"), was / was.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_generate_run_is_given_the_new_list(tiny_qwen: Path, tmp_path: Path) -> None:
    options = {"method": "generate", "tuning": "none", "shots": 2, "store_exemplars": 1, "device": "cpu", "baseline": False}
    train(TOY_NEWS, model=str(tiny_qwen), out=tmp_path / "run", **options)
    shown = [label for _, label in read_manifest(tmp_path / "run")["instruction"]["examples"]]
    result = relabel(tmp_path / "run", out=tmp_path / "out", rename={shown[0]: "sport"})
    assert any("fenlei evaluate" in note for note in result.notes)
    renamed = Classifier.load(tmp_path / "out", device="cpu", verify=True)
    assert set(renamed.predict(TEXTS)[0].probabilities) == set(result.labels)
    assert not renamed.predict(TEXTS)[0].calibrated
    with pytest.raises(ArtifactError, match=r"has no dev\.safetensors.*whose labels were changed has none: give min_confidence"):
        Classifier.load(tmp_path / "out", device="cpu", trust=TrustConfig(target_accuracy=0.8))
    assert read_manifest(tmp_path / "out")["instruction"]["examples"][0][1] == "sport"
    with pytest.raises(ConfigError, match=r"an example of .* stands in the run's prompt"):
        relabel(tmp_path / "run", out=tmp_path / "dropped", drop=[shown[0]])
    assert not (tmp_path / "dropped").exists()
    (tmp_path / "labels.yaml").write_text("- name: 天气\n  description: 晴雨冷暖\n", encoding="utf-8")
    assert main(["extend", str(tmp_path / "run"), str(tmp_path / "labels.yaml"), "--out", str(tmp_path / "more")]) == 0
    more = Classifier.load(tmp_path / "more", device="cpu", verify=True)
    assert more.labels == (*read_manifest(tmp_path / "run")["labels"], "天气")
    assert load_exemplars(tmp_path / "more") == load_exemplars(tmp_path / "run") != ()
    # The same as asking the run among these labels, but that the description is read too.
    assert more.predict(TEXTS)[0].probabilities != Classifier.load(tmp_path / "run").predict(TEXTS, labels=more.labels)[0].probabilities
    with pytest.raises(ConfigError, match="'天气' is a label of the run already"):
        add_labels(tmp_path / "more", {"天气": LabelNote()}, out=tmp_path / "again")


def test_labels_that_cannot_be_asked_are_refused_before_the_first_text(
    tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fenlei.text import asking

    run = tmp_path / "run"
    train(TOY_NEWS, model=str(tiny_qwen), out=run, method="generate", tuning="none", device="cpu", baseline=False, max_length=130)
    with pytest.raises(ConfigError, match="max_length 130 leaves no room for the text: the instruction with its 103 labels"):
        add_labels(run, {f"类别{at}": LabelNote() for at in range(100)}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="max_length 130 leaves no room for the text"):
        add_labels(run, {"天气": LabelNote("晴雨冷暖" * 20)}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="max_length 130 leaves no room for the text"):
        relabel(run, out=tmp_path / "out", rename={"体育": "体育" * 40})
    # A tokenizer without cases, as many have.
    whole = asking.plain_ids
    monkeypatch.setattr(asking, "plain_ids", lambda tokenizer, texts: whole(tokenizer, [text.lower() for text in texts]))
    with pytest.raises(ConfigError, match="labels 'IT' and 'it' are the same"):
        add_labels(run, {"IT": LabelNote(), "it": LabelNote()}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="labels 'IT' and 'it' are the same"):
        relabel(run, out=tmp_path / "out", rename={"体育": "IT", "财经": "it"})
    assert not (tmp_path / "out").exists()


def test_all_labels_of_a_run_whose_rows_offer_candidates_need_not_fit(tiny_qwen: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
    offered = [{**row, "category": [row["label"], f"类别{at}"]} for at, row in enumerate(rows)]
    data = write_jsonl(tmp_path / "offered.jsonl", offered)
    options = {"method": "generate", "tuning": "none", "device": "cpu", "baseline": False, "max_length": 130}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", **options)
    add_labels(tmp_path / "run", {"天气": LabelNote()}, out=tmp_path / "out")
    asked = Classifier.load(tmp_path / "out", device="cpu").predict(TEXTS, labels=["天气", "体育"])
    assert {one.label for one in asked} <= {"天气", "体育"}


def test_candidates_of_exemplars_are_called_as_labels_are(tmp_path: Path) -> None:
    rows = [Example("国足取胜", "体育", "x.jsonl", 3, candidates=("科技", "体育", "财经")), Example("央行降准", "财经", "x.jsonl", 5)]
    save_exemplars(tmp_path, rows)
    assert load_exemplars(tmp_path) == tuple(rows)
    known = LabelSet(("体育", "财经", "科技"))
    kept = _kept_exemplars(tmp_path, known, plan_labels(known, {"体育": "运动"}, {}, ["科技"]))
    assert [(row.label, row.candidates) for row in kept] == [("运动", ("运动", "财经")), ("财经", None)]
    merged, other = _kept_exemplars(tmp_path, known, plan_labels(known, {}, {"新闻": ["体育", "财经"]}, []))
    assert (merged.label, merged.candidates, other.label) == ("新闻", ("科技", "新闻"), "新闻")


def test_a_head_learns_labels_from_rows_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.yaml").write_text("- 天气\n", encoding="utf-8")
    words = ["extend", str(run), str(tmp_path / "labels.yaml"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "answers with a head, which learns labels from rows; give a file of labelled rows" in capsys.readouterr().err.replace("\n", " ")
    for more in (["--replay", str(TOY_NEWS)], ["--resume"]):
        assert main([*words, *more]) == 2
        assert "is a list of labels, from which nothing is learned" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"merge": {"x": ["体育", "财金"]}}, r"merge: label '财金' is not one of '体育', '财经', '科技'"),
        ({"drop": ["sport"]}, "drop: label 'sport' is not one of"),
        ({"rename": {"体育": "财经"}}, "two labels would be called '财经'; merge them"),
        ({"merge": {"科技": ["体育", "财经"]}}, "two labels would be called '科技'"),
        ({"merge": {"x": ["体育"]}}, "made of one label"),
        ({"rename": {"体育": "x"}, "drop": ["体育"]}, "'体育' is named twice"),
        ({"drop": ["体育", "财经"]}, "only 1 of 3 labels would be left"),
        ({"rename": {"体育": ""}}, "no name"),
        ({}, "nothing to change"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(asked: dict[str, Any], message: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        relabel(run, out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_a_merge_may_keep_one_of_its_names() -> None:
    plan = plan_labels(LabelSet(("a", "b", "c", "d")), {"d": "e"}, {"c": ["c", "a"]}, ["b"])
    assert dataclasses.astuple(plan) == (("c", "e"), ((0, 2), (3,)))
    assert not plan.only_names
    assert [plan.new_id(at) for at in range(4)] == [0, None, 0, 1]


def test_what_a_merged_run_cannot_do_is_said(run: Path, tmp_path: Path) -> None:
    relabel(run, out=tmp_path / "merged", merge={"x": ["体育", "财经"]})
    with pytest.raises(ConfigError, match="sums of several outputs"):
        export_merged(tmp_path / "merged", tmp_path / "stock")
    with pytest.raises(ConfigError, match="labels were merged"):
        extend(tmp_path / "merged", TOY_NEWS, out=tmp_path / "out")
    manifest = read_manifest(tmp_path / "merged")
    broken = {**manifest, "merged": {**manifest["merged"], "outputs": [[0, 1], [1]]}}
    shutil.copytree(tmp_path / "merged", tmp_path / "broken")
    write_manifest(tmp_path / "broken", broken)
    with pytest.raises(ArtifactError, match="do not make up the labels"):
        Classifier.load(tmp_path / "broken")


def test_the_command_lists_and_changes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", str(run)]) == 0
    assert capsys.readouterr().out.split() == ["体育", "财经", "科技"]
    words = ["labels", str(run), "--merge", "体育，科技=x", "--rename", "财经=y", "--json", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == ["x", "y"]
    assert main(words) == 1
    assert "already holds a complete run" in capsys.readouterr().err
    assert main(["labels", str(run), "--rename", "体育", "--out", str(tmp_path / "b")]) == 2
    assert main(["labels", str(run), "--drop", "体育"]) == 2
    capsys.readouterr()
    assert main(["labels", str(run), "--merge", "体育,财金=x", "--out", str(tmp_path / "b")]) == 1
    assert "财金" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_label_may_hold_the_sign_that_parts_old_from_new(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relabel(run, out=tmp_path / "one", rename={"体育": "a=b"})
    words = ["labels", str(tmp_path / "one"), "--json"]
    assert main([*words, "--rename", "a=b=c", "--out", str(tmp_path / "renamed")]) == 0
    assert json.loads(capsys.readouterr().out) == ["c", "财经", "科技"]
    assert main([*words, "--merge", "财经,a=b=c=d", "--out", str(tmp_path / "merged")]) == 0
    assert json.loads(capsys.readouterr().out) == ["c=d", "科技"]

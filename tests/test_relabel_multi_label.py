"""Labels of a run that gives a text any number of them: renamed and dropped with their thresholds, and for generate added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_jsonl

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.config import TrustConfig
from fenlei.errors import ConfigError, DataError
from fenlei.evaluation.answers import confidence_and_gold
from fenlei.inference.checksums import checksums
from fenlei.inference.trust import load_scores, load_trust
from fenlei.labels import LabelNote
from fenlei.report.evaluation import evaluate_run
from fenlei.training.relabel import add_labels, relabel

WORDS = {"体育": "球队冠军联赛", "科技##手机": "手机屏幕芯片", "科技##航天": "火箭卫星飞船"}
TEXTS = ["今天手机手机球队", "火箭卫星", "今天无事"]
QUICK: dict[str, Any] = {"device": "cpu", "baseline": False, "batch_size": 8, "learning_rate": 0.01, "level_separator": "##"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names, path = list(WORDS), tmp_path_factory.mktemp("several") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for at in range(120):
            topics = [names[(at + step) % 3] for step in range(at // 3 % 3)]
            row = {"text": "今天" + "".join(WORDS[name][:2] * 2 for name in topics) + f"第{at}条", "label": topics}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, data: Path) -> Path:
    """Labels 体育, 科技, 科技##手机, 科技##航天, each with a threshold and numbers of its own, put in by hand."""
    out = data.parent / "run"
    train(data, model=str(tiny_qwen), out=out, dev_ratio=0.5, max_steps=12, min_confidence=0.3, **QUICK)
    manifest = read_manifest(out)
    assert sorted(manifest["labels"]) == ["体育", "科技", "科技##手机", "科技##航天"]
    thresholds = {"体育": 0.2, "科技": 0.3, "科技##手机": 0.4, "科技##航天": 0.6}
    manifest["decision"]["thresholds"] = [thresholds[name] for name in manifest["labels"]]
    manifest["vector_scaling"] = {"scale": [0.9, 1.3, 1.1, 0.8], "bias": [0.2, -0.1, 0.4, 0.0]}
    write_manifest(out, {**manifest, "files": checksums(out)})
    return out


def shares(folder: Path) -> dict[str, np.ndarray]:
    classifier = Classifier.load(folder, device="cpu", verify=True)
    return dict(zip(classifier.labels, classifier.predict_proba(TEXTS).T, strict=True))


def thresholds(folder: Path) -> dict[str, float]:
    manifest = read_manifest(folder)
    return dict(zip(manifest["labels"], manifest["decision"]["thresholds"], strict=True))


def test_a_renamed_label_keeps_probability_and_threshold(run: Path, tmp_path: Path) -> None:
    relabel(run, out=tmp_path / "out", rename={"体育": "sport", "科技##手机": "科技 ## phones"})
    before, after = shares(run), shares(tmp_path / "out")
    for old, new in {"体育": "sport", "科技": "科技", "科技##手机": "科技##phones", "科技##航天": "科技##航天"}.items():
        np.testing.assert_array_equal(after[new], before[old])
        assert thresholds(tmp_path / "out")[new] == thresholds(run)[old]


def test_labels_that_are_left_answer_as_they_did(run: Path, data: Path, tmp_path: Path) -> None:
    """Each label is a question by itself: what is dropped takes nothing from the others, and rows that had it keep theirs."""
    relabel(run, out=tmp_path / "out", drop=["科技##航天", "体育"])
    before, after = shares(run), shares(tmp_path / "out")
    assert sorted(after) == ["科技", "科技##手机"]
    np.testing.assert_allclose(after["科技##手机"], before["科技##手机"], rtol=1e-6)
    assert thresholds(tmp_path / "out") == {name: thresholds(run)[name] for name in after}
    kept, whole = load_scores(tmp_path / "out")["calibrating"], load_scores(run)["calibrating"]
    columns = [read_manifest(run)["labels"].index(name) for name in read_manifest(tmp_path / "out")["labels"]]
    np.testing.assert_array_equal(kept.label_ids, whole.label_ids[:, columns])
    assert len(kept.logits) == len(whole.logits)
    trust = load_trust(tmp_path / "out", read_manifest(tmp_path / "out"))  # what it promises is told anew, of the labels left
    answers = trust.answers(trust.probabilities(kept.logits))
    confidence, right = confidence_and_gold(answers, kept.label_ids)
    assert trust.abstention is not None
    assert trust.abstention.accuracy == pytest.approx(right[confidence >= 0.3].mean())
    assert trust.abstention.accuracy != read_manifest(run)["abstention"]["accuracy"]
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    left = tmp_path / "left.jsonl"
    few = [{**row, "label": [name for name in row["label"] if name == "科技##手机"]} for row in rows]
    write_jsonl(left, few)
    assert evaluate_run(tmp_path / "out", left, device="cpu").metrics.names == tuple(after)


def test_novelty_is_measured_over_the_labels_left(run: Path, tmp_path: Path) -> None:
    assert read_manifest(run)["novelty"] == "joint energy"
    relabel(run, out=tmp_path / "out", drop=["体育"])
    ranks = [one.novelty for one in Classifier.load(tmp_path / "out", device="cpu").predict(TEXTS)]
    assert all(rank is not None and 0 <= rank <= 1 for rank in ranks)
    known = Classifier.load(tmp_path / "out", device="cpu").trust.novelty
    assert known is not None
    assert len(known.known) == len(load_scores(run)["calibrating"].logits)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"merge": {"都": ["体育", "科技##手机"]}}, "merge: a text may have several of the labels that would make up '都'"),
        ({"drop": ["科技"]}, "'科技##手机' would lie below '科技', which would be no label; rename or drop both"),
        ({"rename": {"科技": "技术"}}, "'科技##手机' would lie below '科技'"),
        ({"rename": {"体育": "运动##球"}}, "'运动##球' would lie below '运动', which would be no label"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(asked: dict[str, Any], message: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        relabel(run, out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_a_level_without_a_name_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rename: label '科技##' has a level without a name"):
        relabel(run, out=tmp_path / "out", rename={"体育": "科技##"})


def test_a_generate_run_is_asked_about_more_labels(tiny_qwen: Path, data: Path, tmp_path: Path) -> None:
    """A label further down brings the one above it; what was fitted on the former labels is gone."""
    options = {"model": str(tiny_qwen), "method": "generate", "max_length": 256, "max_steps": 2, "tuning": "lora"}
    train(data, out=tmp_path / "run", **{**QUICK, **options})
    add_labels(tmp_path / "run", {"财经##股票": LabelNote()}, out=tmp_path / "more")
    manifest = read_manifest(tmp_path / "more")
    assert manifest["labels"] == [*read_manifest(tmp_path / "run")["labels"], "财经##股票", "财经"]
    assert manifest["relabelled_from"]["added"] == ["财经##股票", "财经"]
    assert set(thresholds(tmp_path / "more").values()) == {0.5}
    told = shares(tmp_path / "more")
    assert (told["财经"] >= told["财经##股票"]).all()
    silent = Classifier.load(tmp_path / "more", device="cpu", trust=TrustConfig(min_confidence=1.0)).predict(TEXTS)
    assert [one.abstained for one in silent] == [one.confidence < 1 for one in silent]
    relabel(tmp_path / "more", out=tmp_path / "out", drop=["财经##股票", "财经", "体育"])
    assert sorted(read_manifest(tmp_path / "out")["labels"]) == ["科技", "科技##手机", "科技##航天"]

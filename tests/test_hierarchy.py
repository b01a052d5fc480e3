"""Labels that lie below one another: how their names are read, which labels rows offer, and what a request's labels imply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_jsonl

from fenlei import Classifier, train
from fenlei.audit.label_set_errors import find_set_errors
from fenlei.config import DataConfig
from fenlei.data.examples import joined
from fenlei.data.extension import load_extension
from fenlei.data.label_file import given_labels
from fenlei.data.labelling import Labelling
from fenlei.data.splits import load_dataset
from fenlei.errors import DataError, RequestError
from fenlei.hierarchy import Hierarchy
from fenlei.inference.bulk import predict_file
from fenlei.inference.scoring import Scores
from fenlei.labels import LabelSet
from fenlei.report.evaluation import evaluate_run
from fenlei.report.levels import by_level

PHONES, SPACE, SPORT = "科技##手机", "科技##航天", "体育"
WORDS = {PHONES: "手机屏幕芯片", SPACE: "火箭卫星飞船", SPORT: "球队冠军联赛"}
QUICK: dict[str, Any] = {"max_steps": 2, "batch_size": 8, "device": "cpu", "baseline": False, "level_separator": "##"}


def rows(count: int = 60, *, several: bool = False) -> list[dict[str, Any]]:
    """Each of the three topics in turn; with `several`, some rows of the first have the last as well."""
    found: list[dict[str, Any]] = []
    for at in range(count):
        name = list(WORDS)[at % 3]
        label = [name, SPORT] if at % 6 == 0 else [name]
        found.append({"text": f"今天{WORDS[name][at % 3 * 2 :][:2]}消息{at}", "label": label if several else name})
    return found


# --- names as they are read


@pytest.mark.parametrize("several", [False, True])
def test_blanks_around_a_step_do_not_make_another_label(several: bool, tmp_path: Path) -> None:
    spaced = rows(several=several)
    spaced[0]["label"] = [" 科技 ## 手机", SPORT] if several else " 科技 ## 手机"
    dataset = load_dataset(DataConfig(data=str(write_jsonl(tmp_path / "rows.jsonl", spaced)), level_separator="##"), seed=0)
    assert set(dataset.labels) == {*WORDS, *(["科技"] if several else [])}
    assert {PHONES, SPORT} >= {name for row in dataset.train for name in row.all_labels if row.line in (1, 4)} - {"科技"}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("label", ["##手机", "科技##", "科技## ##手机"])
def test_a_level_without_a_name_is_named(label: str, several: bool, tmp_path: Path) -> None:
    broken = rows(several=several)
    broken[6]["label"] = [label, SPORT] if several else label
    told = rf"rows\.jsonl:7: label '{label}' has a level without a name beside '##'; name every level, or remove the separator"
    with pytest.raises(DataError, match=told):
        load_dataset(DataConfig(data=str(write_jsonl(tmp_path / "rows.jsonl", broken)), level_separator="##"), seed=0)


def test_a_class_file_is_read_as_rows_are(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{**row, "label": list(WORDS).index(row["label"])} for row in rows()])
    notes, names = tmp_path / "names.yaml", tmp_path / "names.txt"
    notes.write_text('- {name: "科技 ## 手机", description: 打电话}\n- "科技##航天"\n- 体育\n', encoding="utf-8")
    dataset = load_dataset(DataConfig(data=str(data), class_file=str(notes), level_separator="##"), seed=0)
    assert dataset.labels.names == tuple(WORDS), "one label a row: nothing is of 科技 alone"
    assert dataset.label_notes[PHONES].description == "打电话"
    config = DataConfig(data=str(data), class_file=str(names), level_separator="##")
    names.write_text("科技##\n科技##航天\n体育\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"names\.txt: label '科技##' has a level without a name"):
        load_dataset(config, seed=0)
    names.write_text("科技##手机\n科技 ##手机\n体育\n", encoding="utf-8")
    with pytest.raises(DataError, match="these come twice: 科技##手机"):
        load_dataset(config, seed=0)


def test_ids_of_train_and_of_dev_stand_for_the_same_labels(tmp_path: Path) -> None:
    """Those of train are named once all of it is read, those of dev as they are read; else one text would seem to be under two labels."""
    (tmp_path / "class.txt").write_text("\n".join(WORDS), encoding="utf-8")
    ids = [{**row, "label": [list(WORDS).index(name) for name in row["label"]]} for row in rows(several=True)]
    data, dev = write_jsonl(tmp_path / "train.jsonl", ids), write_jsonl(tmp_path / "dev.jsonl", ids[:24])
    dataset = load_dataset(DataConfig(data=str(data), dev=str(dev), level_separator="##"), seed=0)
    label_of = {row.text: row.label for row in dataset.train}
    assert set(label_of.values()) == {"体育 + 科技 + 科技##手机", "科技 + 科技##手机", "科技 + 科技##航天", "体育"}
    assert all(label_of[row.text] == row.label for row in (*dataset.selecting, *dataset.calibrating))


def test_new_classes_are_read_as_the_known_ones_are(tmp_path: Path) -> None:
    new = write_jsonl(tmp_path / "new.jsonl", [{"text": f"电脑{at}", "label": "科技 ## 电脑"} for at in range(8)])
    replay = load_dataset(DataConfig(data=str(write_jsonl(tmp_path / "rows.jsonl", rows())), level_separator="##"), seed=0).train
    config = DataConfig(data=str(new), level_separator="##")
    found = load_extension(config, LabelSet(tuple(WORDS)), replay, (lambda row: False,) * 2, seed=0)
    assert found.labels.names == (*WORDS, "科技##电脑")


# --- one label a row


def test_the_report_of_a_run_with_levels_has_them(tiny_qwen: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", rows())
    train(data, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", **QUICK)
    found = evaluate_run(tmp_path / "run", data, device="cpu", out=tmp_path / "report")
    first, second = found.levels
    assert (first.level, first.classes, second.level, second.classes) == (1, 2, 2, 3)
    told = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert second.accuracy == np.mean([row["prediction"] == row["label"] for row in told]) == found.metrics.accuracy
    assert first.accuracy == np.mean([row["prediction"].split("##")[0] == row["label"].split("##")[0] for row in told])
    assert "By level" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_level_that_all_labels_share_is_right_everywhere() -> None:
    answers = np.array([[0.8, 0.2], [0.7, 0.3]])
    first, second = by_level(Hierarchy("##"), np.array([0, 1]), answers, LabelSet((PHONES, SPACE)))
    assert (first.classes, first.accuracy, first.macro_f1) == (1, 1.0, 1.0)
    assert (second.classes, second.accuracy) == (2, 0.5)


# --- any number of labels, among candidates


@pytest.fixture(scope="module")
def generating(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose rows offer candidates without their parents, and its data."""
    folder = tmp_path_factory.mktemp("levels")
    offered = [{**row, "category": [*WORDS] if at % 2 else "科技 ## 手机,体育,科技##航天"} for at, row in enumerate(rows(several=True))]
    data = write_jsonl(folder / "rows.jsonl", offered)
    train(data, model=str(tiny_qwen), out=folder / "run", method="generate", tuning="none", max_length=200, **QUICK)
    return folder / "run", data


def test_candidates_bring_what_they_lie_below(generating: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = generating
    classifier = Classifier.load(run, device="cpu")
    assert set(classifier.labels) == {*WORDS, "科技"}
    asked = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()][:4]
    asked[1]["category"], asked[2]["category"] = [PHONES], ["科技##", SPORT]
    source = write_jsonl(tmp_path / "asked.jsonl", asked)
    predict_file(classifier, source, tmp_path / "out.jsonl", probabilities=True)
    first, second, last = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert set(first["probabilities"]) == set(last["probabilities"]) == {*WORDS, "科技"}
    assert set(second["probabilities"]) == {PHONES, "科技"}
    (rejected,) = (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert "asked.jsonl:3: candidates: label '科技##' has a level without a name" in json.loads(rejected)["reason"]
    measured = evaluate_run(run, data, device="cpu", out=tmp_path / "report")
    assert [one.level for one in measured.levels] == [1, 2]


def test_a_label_that_a_row_does_not_offer_is_named_alone(tiny_qwen: Path, tmp_path: Path) -> None:
    offered = [{**row, "category": [PHONES, SPACE]} for row in rows(several=True)]
    with pytest.raises(
        DataError, match=r"rows\.jsonl:\d+: label '体育' is not among the row's candidates, '科技##手机', '科技##航天', '科技'"
    ):
        train(write_jsonl(tmp_path / "rows.jsonl", offered), model=str(tiny_qwen), out=tmp_path / "run", method="generate", **QUICK)


def test_a_child_brings_its_parent_among_the_labels_of_a_request(generating: tuple[Path, Path]) -> None:
    classifier = Classifier.load(generating[0], device="cpu")
    asked = [PHONES, "科技", "天气"]
    logits = np.array([[3.0, -3.0, -2.0], [-3.0, -2.0, 4.0]], dtype=np.float32)
    child, other = classifier.answer(Scores(logits, np.zeros(2, dtype=np.int32)), labels=asked)
    assert set(child.answer) == {PHONES, "科技"}
    assert child.probabilities["科技"] == child.probabilities[PHONES]
    assert other.answer == ["天气"]
    shares = classifier.predict_proba(["今天手机消息"], labels=asked)
    assert shares[0, 1] >= shares[0, 0]


def test_blanks_around_a_step_do_not_make_another_label_of_a_request(generating: tuple[Path, Path], tmp_path: Path) -> None:
    classifier, names = Classifier.load(generating[0], device="cpu"), tmp_path / "labels.yaml"
    spaced, plain = (classifier.predict(["今天手机消息"], labels=[name, SPORT])[0] for name in ("科技 ## 手机", PHONES))
    assert spaced.probabilities == pytest.approx(plain.probabilities)
    assert spaced.calibrated == plain.calibrated
    assert classifier.columns(["科技 ## 手机", SPORT], 1) == (PHONES, SPORT)
    with pytest.raises(RequestError, match="labels: label '科技##' has a level without a name"):
        classifier.predict(["今天手机消息"], labels=["科技##", SPORT])
    names.write_text('"科技 ## 手机": 打电话\n体育:\n', encoding="utf-8")
    typed = [given_labels(given, (), Labelling(hierarchy=Hierarchy("##"))) for given in (str(names), "科技 ## 手机, 体育")]
    assert [list(one) for one in typed] == [[PHONES, SPORT]] * 2
    told = classifier.with_notes({"科技 ## 手机": "打电话"}).describe()["instruction"]["notes"]
    assert told[PHONES]["description"] == "打电话"


def test_a_parent_that_a_text_is_not_asked_is_not_given(generating: tuple[Path, Path]) -> None:
    classifier = Classifier.load(generating[0], device="cpu")
    asked = [["科技", PHONES], [PHONES]]
    logits = np.array([[-3.0, -3.0], [-np.inf, 3.0]], dtype=np.float32)
    both, alone = classifier.answer(Scores(logits, np.zeros(2, dtype=np.int32)), labels=asked)
    assert both.answer == []
    assert (alone.answer, alone.label, set(alone.probabilities)) == ([PHONES], PHONES, {PHONES})
    assert alone.confidence == pytest.approx(alone.probabilities[PHONES])
    assert classifier.predict_proba(["今天手机消息"] * 2, labels=asked)[1, 0] == 0


def test_what_an_audit_suggests_is_a_set_that_a_row_may_have() -> None:
    """A label that is missing comes with what it lies below, and one too many goes with what lies below it."""
    names, ancestors = ("科技", PHONES, SPORT), ((), (0,), ())
    gold = np.array([[False, False, True], [True, True, False], [True, True, True]])
    said = np.array([[0.6, 0.95, 0.9], [0.02, 0.1, 0.2], [0.9, 0.9, 0.9]])
    found = find_set_errors([0, 1, 2], gold, said, names, "judge", ancestors=ancestors)
    assert {one.row: one.suggested for one in found.rows} == {0: joined(["科技", PHONES, SPORT]), 1: joined([])}

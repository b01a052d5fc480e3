"""The annotation loop: what is picked, what the tools get, and that what they give back is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TOY_NEWS, write_jsonl
from test_docs import ROOT, blocks

from fenlei import Classifier, train
from fenlei.annotation.exchange import SUFFIX, labelling_interface, render, write_suggestions
from fenlei.annotation.suggest import Suggestion, _pick, _strangeness, _uncertainty, suggest
from fenlei.artifact import read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.config import RunConfig
from fenlei.data.examples import Example
from fenlei.data.labelling import Labelling
from fenlei.data.readers import file_layout, read_examples
from fenlei.errors import ConfigError, DataError, FenleiError

Row = dict[str, Any]
NASTY = 'a,b\n<i>"😀"&'


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotation")
    rows = [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
    data = write_jsonl(folder / "train.jsonl", rows)
    train(data, model=str(tiny_qwen), out=folder / "run", max_steps=4, batch_size=8, device="cpu", baseline=False, max_length=48)
    return folder / "run"


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return Classifier.load(run, device="cpu")


@pytest.fixture
def pool(tmp_path: Path, toy_rows: list[Row]) -> Path:
    return write_jsonl(tmp_path / "pool.jsonl", [{"id": place, "text": row["text"]} for place, row in enumerate(toy_rows)])


def test_picks_are_distinct_rows_with_the_runs_own_answers(classifier: Classifier, pool: Path) -> None:
    picked = suggest(classifier, pool, 9)
    assert [one.reason for one in picked] == ["uncertain", "uncertain", "novel"] * 3
    assert len({one.example.line for one in picked}) == 9
    answers = classifier.predict([one.example.text for one in picked])
    assert [one.label for one in picked] == [answer.label for answer in answers]
    assert all(abs(one.confidence - answer.confidence) < 1e-5 for one, answer in zip(picked, answers, strict=True))
    everything = suggest(classifier, pool, 60)
    most = max(everything, key=lambda one: one.uncertainty)
    assert picked[0].example == most.example


def test_a_text_that_comes_twice_is_picked_once_and_a_small_pool_is_taken_whole(classifier: Classifier, tmp_path: Path) -> None:
    rows = [{"text": "央行降准"}, {"text": " 央行降准 "}, {"text": "球队夺冠"}]
    picked = suggest(classifier, write_jsonl(tmp_path / "a.jsonl", rows), 50)
    assert sorted(one.example.line for one in picked) == [1, 3]


def test_uncertainty_goes_before_and_diversity_passes_over_what_is_alike() -> None:
    texts = ["股市大涨基金净值创新高", "股市大涨基金净值创新高了", "国足客场两球取胜小组出线", "票房冠军影片今日公映啦"]
    uncertainty = np.array([0.9, 0.89, 0.5, 0.4])
    novelty = np.array([0.1, 0.0, 0.2, 0.9])
    assert [place for place, _ in _pick(texts, uncertainty, novelty, 3)] == [0, 2, 3]
    assert _pick(texts, uncertainty, novelty, 4)[3][0] == 1


def test_the_two_measures_are_those_of_every_answer(classifier: Classifier, pool: Path) -> None:
    assert _uncertainty(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])) == pytest.approx([1.0, 0.0])
    picked = suggest(classifier, pool, 4)
    texts = [one.example.text for one in picked]
    margins = np.sort(classifier.predict_proba(texts), axis=1)
    assert [one.uncertainty for one in picked] == pytest.approx((1 - (margins[:, -1] - margins[:, -2])).tolist(), abs=1e-5)
    scores = classifier.logits(texts)
    assert classifier.trust.novelty is not None
    np.testing.assert_array_equal(_strangeness(classifier, scores), classifier.trust.novelty.raw(scores))
    by_strangeness = _strangeness(classifier, scores).argsort()
    assert np.array([one.novelty for one in picked])[by_strangeness].tolist() == sorted(one.novelty for one in picked)


def test_uncertainty_is_that_of_every_fitted_number_of_the_calibration(classifier: Classifier, pool: Path) -> None:
    scaled = replace(classifier.trust.calibration, scale=(3.0, 0.2, 1.0), bias=(0.0, 2.0, -1.0))
    unlike = Classifier(classifier._run, replace(classifier.trust, calibration=scaled))
    picked = suggest(unlike, pool, 6)
    margins = np.sort(unlike.predict_proba([one.example.text for one in picked]), axis=1)
    assert [one.uncertainty for one in picked] == pytest.approx((1 - (margins[:, -1] - margins[:, -2])).tolist(), abs=1e-5)


def test_a_pool_that_is_labelled_and_a_number_that_is_none_are_refused(classifier: Classifier, tmp_path: Path, pool: Path) -> None:
    with pytest.raises(ConfigError, match="n must be at least 1, was 0"):
        suggest(classifier, pool, 0)
    with pytest.raises(DataError, match=r"a\.jsonl:2: the pool has a label already, '财经'"):
        suggest(classifier, write_jsonl(tmp_path / "a.jsonl", [{"text": "甲", "label": None}, {"text": "乙", "label": "财经"}]), 1)


@pytest.mark.parametrize(("format", "suffix"), [("jsonl", ".jsonl"), ("doccano", ".jsonl")])
def test_plain_and_doccano_rows_are_read_back_with_their_columns(
    classifier: Classifier, pool: Path, tmp_path: Path, format: Any, suffix: str
) -> None:
    picked = suggest(classifier, pool, 6)
    out = tmp_path / f"to_label{suffix}"
    assert write_suggestions(picked, out, format, classifier.labels, "run") == (out,)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert list(rows[0]) == ["id", "text", "label", "confidence", "uncertainty", "novelty", "reason"]
    assert rows[0]["label"] == (picked[0].label if format == "jsonl" else [picked[0].label])
    back = list(read_examples(out))
    assert [(row.text, row.label) for row in back] == [(one.example.text, one.label) for one in picked]


def test_label_studio_tasks_are_read_back_once_they_are_annotated(classifier: Classifier, pool: Path, tmp_path: Path) -> None:
    picked = suggest(classifier, pool, 4)
    out, interface = write_suggestions(picked, tmp_path / "tasks.json", "label-studio", classifier.labels, "run")
    choices = [one.get("value") for one in ElementTree.fromstring(interface.read_text(encoding="utf-8")).iter("Choice")]
    assert choices == list(classifier.labels)
    tasks = json.loads(out.read_text(encoding="utf-8"))
    (prediction,) = tasks[0]["predictions"]
    assert prediction["result"][0]["value"]["choices"] == [picked[0].label]
    assert prediction["score"] == pytest.approx(picked[0].confidence, abs=1e-6)
    with pytest.raises(DataError, match="none of its 4 Label Studio tasks is annotated"):
        list(read_examples(out))
    assert [row.text for row in read_examples(out, labelled=False)] == [one.example.text for one in picked]

    for task in tasks[:3]:  # as an annotator accepts the pre-annotation, and a project exports it
        task["annotations"] = [{"id": 1, "was_cancelled": False, "result": task["predictions"][0]["result"]}]
    out.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    assert file_layout(out).format == "Label Studio tasks"
    back = list(read_examples(out))
    assert [(row.text, row.label) for row in back] == [(one.example.text, one.label) for one in picked[:3]]
    assert back[0].columns["id"] == picked[0].example.columns["id"]


def task(*annotations: Any, **more: Any) -> Row:
    return {"data": {"text": "央行降准"}, "annotations": list(annotations), "predictions": [], **more}


def chosen(*names: str, cancelled: bool = False) -> Row:
    result = [{"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": list(names)}}]
    return {"was_cancelled": cancelled, "result": result}


def labels_of(tmp_path: Path, tasks: list[Row], name: str = "a.json") -> list[str | None]:
    path = tmp_path / name
    path.write_text(json.dumps(tasks, indent=1, ensure_ascii=False), encoding="utf-8")
    return [row.label for row in read_examples(path)]


def test_annotators_are_counted_and_skipped_tasks_left_out(tmp_path: Path) -> None:
    tasks = [task(chosen("财经"), chosen("体育"), chosen("财经")), task(chosen("体育", cancelled=True)), task(), task(chosen(NASTY))]
    assert labels_of(tmp_path, tasks) == ["财经", NASTY]


def test_several_choices_are_the_labels_of_a_row(tmp_path: Path) -> None:
    both = chosen("财经", "体育")
    path = tmp_path / "a.json"
    path.write_text(json.dumps([task(both, chosen("体育", "财经"), chosen("财经")), task(chosen("体育"))]), encoding="utf-8")
    assert [set(row.all_labels) for row in read_examples(path, labelling=Labelling(multi_label=True))] == [{"财经", "体育"}, {"体育"}]


def test_a_task_submitted_without_a_choice_has_no_label_where_rows_have_any_number(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    nothing, unticked, skipped = {"was_cancelled": False, "result": []}, chosen(), chosen(cancelled=True)
    tasks = [task(chosen("体育")), task(nothing), task(unticked), task(skipped), task(), task(nothing, chosen("财经"), nothing)]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    several = Labelling(multi_label=True)
    assert [row.labels for row in read_examples(path, labelling=several)] == [("体育",), (), (), ()]
    assert [row.label for row in read_examples(path)] == ["体育", "财经"]
    path.write_text(json.dumps([task(chosen("体育")), task(chosen("财经"), nothing)]), encoding="utf-8")
    with pytest.raises(DataError, match="annotators disagree: '财经' and no choice"):
        list(read_examples(path, labelling=several))
    assert [row.label for row in read_examples(path)] == ["体育", "财经"]


def test_the_id_of_a_task_is_kept_so_that_its_answer_finds_it_again(tmp_path: Path) -> None:
    tasks = [task(chosen("财经"), id=7), task(chosen("体育"), id=8, data={"id": "own", "text": "球队夺冠"}), task(chosen("体育"))]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    for labelled in (True, False):
        assert [row.columns.get("id") for row in read_examples(path, labelled=labelled)] == [7, "own", None]


def test_what_cannot_be_one_label_is_an_error_with_its_place(tmp_path: Path) -> None:
    good = task(chosen("财经"))
    with pytest.raises(DataError, match=r"a\.json:\d+: annotators disagree: '财经' and '体育'"):
        labels_of(tmp_path, [good, task(chosen("财经"), chosen("体育"))])
    with pytest.raises(DataError, match=r"a\.json:\d+: .*'财经'"):
        labels_of(tmp_path, [good, task(chosen("财经", "体育"))])
    with pytest.raises(DataError, match="expected a Label Studio task with `data`"):
        labels_of(tmp_path, [good, {"text": "央行降准", "label": "财经"}])


@pytest.mark.parametrize("choice", [None, {"x": 1}, 3])
def test_a_choice_that_is_no_text_is_not_what_label_studio_writes(choice: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json:2: `annotations` is not what Label Studio writes"):
        labels_of(tmp_path, [task(chosen("财经")), task(chosen("财经", choice))])


def asked(**answers: str) -> Row:
    """One annotator's choices by question."""
    results = [
        {"from_name": question, "to_name": "text", "type": "choices", "value": {"choices": [name]}} for question, name in answers.items()
    ]
    return {"was_cancelled": False, "result": results}


def test_choices_of_another_question_are_no_votes(tmp_path: Path) -> None:
    tasks = [task(asked(label="财经", tone="好评"), asked(label="体育"), asked(tone="差评", label="财经")), task(asked(tone="好评"))]
    assert labels_of(tmp_path, tasks) == ["财经"]
    assert labels_of(tmp_path, tasks[::-1]) == ["财经"]


@pytest.mark.parametrize(
    "tasks", [[task(asked(topic="财经", tone="好评"))], [task(asked(topic="财经")), task(asked(tone="好评"))]], ids=["in one", "in turn"]
)
def test_several_questions_are_named_where_none_is_the_label(tmp_path: Path, tasks: list[Row]) -> None:
    with pytest.raises(DataError, match=r"a\.json:\d+: expected one question, found choices for tone, topic; call the one .* 'label'"):
        labels_of(tmp_path, tasks)


@pytest.mark.parametrize(
    "broken",
    [{"annotations": [None]}, {"annotations": [{"result": ["x"]}]}, {"annotations": [{"result": [{"type": "choices", "value": 3}]}]}],
)
def test_a_task_of_another_shape_is_a_data_error(tmp_path: Path, broken: Row) -> None:
    with pytest.raises(DataError):
        labels_of(tmp_path, [{**task(), **broken}])


def test_a_file_with_a_data_column_is_no_task(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "甲", "label": "x", "data": {"source": "web"}}])
    assert [row.label for row in read_examples(path)] == ["x"]


def test_doccano_rows_nobody_labelled_are_named(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "甲", "label": ["财经"], "Comments": []}, {"id": 2, "text": "乙", "label": [], "Comments": []}]
    with pytest.raises(DataError, match=r"a\.jsonl:2: expected a label in column 'label', found none"):
        list(read_examples(write_jsonl(tmp_path / "a.jsonl", rows)))


def test_a_column_that_would_be_overwritten_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: the pool already has a column 'reason'"):
        suggest(classifier, write_jsonl(tmp_path / "a.jsonl", [{"text": "央行降准", "reason": "mine"}]), 1)
    figures = {"confidence": 1, "uncertainty": 1, "novelty": 1, "reason": "mine"}
    with pytest.raises(DataError, match=r"b\.jsonl:2: the pool already has a column 'confidence'"):
        suggest(classifier, write_jsonl(tmp_path / "b.jsonl", [{"text": "球队夺冠"}, {"text": "央行降准", **figures}]), 1)


@pytest.mark.parametrize("format", list(SUFFIX))
def test_what_an_earlier_round_wrote_is_a_pool_again(classifier: Classifier, pool: Path, tmp_path: Path, format: Any) -> None:
    earlier = [replace(one, confidence=2.0) for one in suggest(classifier, pool, 4)]
    out, *_ = write_suggestions(earlier, tmp_path / f"first{SUFFIX[format]}", format, classifier.labels, "run")
    if out.suffix == ".jsonl":  # nobody has confirmed the labels, so they are taken out
        write_jsonl(out, [{**json.loads(line), "label": []} for line in out.read_text(encoding="utf-8").splitlines()])
    again = suggest(classifier, out, 4)
    written, *_ = write_suggestions(again, tmp_path / f"second{SUFFIX[format]}", format, classifier.labels, "run")
    back = list(read_examples(written, labelled=False))
    assert sorted(row.text for row in back) == sorted(one.example.text for one in earlier)
    assert [row.columns["confidence"] for row in back] == [pytest.approx(one.confidence, abs=1e-6) for one in again]
    assert all(one.confidence <= 1.0 for one in again)


def test_the_interface_holds_any_label() -> None:
    (choice,) = ElementTree.fromstring(labelling_interface([NASTY])).iter("Choice")
    assert choice.get("value") == NASTY


def test_the_command_writes_reads_and_shows(run: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest", str(run), str(pool), "-n", "5", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    out = tmp_path / "tasks.json"
    assert main(["suggest", str(run), str(pool), "-n", "5", "--format", "label-studio", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "The run says" in told.out
    assert "tasks.xml" in told.err
    assert [one["data"]["id"] for one in json.loads(out.read_text(encoding="utf-8"))] == [row["id"] for row in rows]
    assert main(["suggest", str(run), str(pool), "--format", "label-studio", "--out", "a.jsonl"]) == 1
    assert "ends in .json" in capsys.readouterr().err


def test_the_next_training_is_told_of_the_test_rows_of_this_one(
    run: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested, out = tmp_path / "tested", tmp_path / "to_label.jsonl"
    shutil.copytree(run, tested)
    (tested / "test.jsonl").write_text('{"text": "央行降准", "label": "财经"}\n', encoding="utf-8")
    said = []
    for folder in (run, tested):
        assert main(["suggest", str(folder), str(pool), "-n", "2", "--out", str(out), "--device", "cpu"]) == 0
        said.append(capsys.readouterr().err)
    assert "fenlei train ALL_ROWS --model" in said[0]
    assert f"fenlei train ALL_ROWS --test {tested / 'test.jsonl'} --model" in said[1]


def test_old_and_new_rows_are_put_together_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\n国足热身赛两球取胜,体育\n", encoding="utf-8")
    (tmp_path / "project.json").write_text(json.dumps([task(chosen("财经"))], ensure_ascii=False), encoding="utf-8")
    (code,) = [block for block in blocks(ROOT / "docs" / "annotation.md", "python") if "next.jsonl" in block]
    exec(compile(code, "annotation.md", "exec"), {})
    assert [(row.text, row.label) for row in read_examples("next.jsonl")] == [("国足热身赛两球取胜", "体育"), ("央行降准", "财经")]


def test_the_pool_is_never_written_over(
    run: Path, classifier: Classifier, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pool.read_bytes()
    with pytest.raises(ConfigError, match="is the pool that texts are picked from"):
        write_suggestions(suggest(classifier, pool, 3), tmp_path / ".." / tmp_path.name / pool.name, "jsonl", classifier.labels, "run")
    assert main(["suggest", str(run), str(pool), "--out", str(pool), "--device", "cpu"]) == 1
    assert "is the pool that texts are picked from" in capsys.readouterr().err
    assert pool.read_bytes() == before


def test_what_was_picked_is_told_whatever_line_ends_it_holds(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "央行降准\u2028利率\x85下调"
    pool, out = write_jsonl(tmp_path / "a.jsonl", [{"text": text}]), tmp_path / "out.jsonl"
    assert main(["suggest", str(run), str(pool), "--out", str(out), "--json", "--device", "cpu"]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == [text]


def test_a_run_judges_labels_in_an_audit(run: Path, tmp_path: Path, toy_rows: list[Row], classifier: Classifier) -> None:
    from fenlei.audit.audit import audit_data

    data = write_jsonl(tmp_path / "a.jsonl", toy_rows)
    errors = audit_data(data, run=run, device="cpu").label_errors
    answers = classifier.predict([row["text"] for row in toy_rows])
    doubted = {place for place, (row, answer) in enumerate(zip(toy_rows, answers, strict=True)) if row["label"] != answer.label}
    assert {suspect.row for suspect in errors.rows} == doubted
    assert errors.judge == str(run)
    assert "was trained on rows of this file" in errors.note, "a copy of it, under another name"
    seen = audit_data(run.parent / "train.jsonl", run=run, device="cpu").label_errors
    assert "was trained on rows of this file" in seen.note
    more = write_jsonl(tmp_path / "b.jsonl", [*toy_rows, {"text": "甲", "label": "别的"}])
    strange = audit_data(more, run=run, device="cpu").label_errors
    assert "1 rows were not judged" in strange.note
    with pytest.raises(FenleiError, match="no such folder"):
        audit_data(data, run=tmp_path / "nowhere")


def test_ids_in_an_audit_are_those_of_the_run(run: Path, tmp_path: Path, toy_rows: list[Row]) -> None:
    from fenlei.audit.audit import audit_data

    manifest = read_manifest(run)
    told = shutil.copytree(run, tmp_path / "run")
    write_manifest(told, {**manifest, "data": {**manifest["data"], "label_ids": True}})  # as of a run that was trained with a class file
    ids = [{**row, "label": manifest["labels"].index(row["label"])} for row in toy_rows]
    by_id = audit_data(write_jsonl(tmp_path / "ids.jsonl", ids), run=told, device="cpu")
    by_name = audit_data(write_jsonl(tmp_path / "names.jsonl", toy_rows), run=run, device="cpu")
    assert by_id.classes.counts == by_name.classes.counts
    assert by_id.label_errors.rows == by_name.label_errors.rows


def record(*answers: Any, question: str = "label", **more: Any) -> Row:
    """As Argilla's `records.to_json` writes one."""
    responses = {question: [{"value": value, "user_id": str(place)} for place, value in enumerate(answers)]} if answers else {}
    suggestions = {"label": {"value": "体育", "score": 0.5, "agent": "run"}}
    own = {"id": "7", "fields": {"text": "央行降准"}, "metadata": {"source": "rss"}, "suggestions": suggestions, "responses": responses}
    return {**own, "vectors": {}, "status": "completed", "_server_id": "f3", **more}


def flat(*answers: Any, states: Sequence[str] = ()) -> Row:
    """As `records.to_list(flatten=True)` gives one."""
    return {
        "id": "7",
        "status": "completed",
        "_server_id": "f3",
        "text": "央行降准",
        "source": "rss",
        "label.responses": list(answers),
        "label.responses.users": [str(place) for place, _ in enumerate(answers)],
        "label.responses.status": list(states) or ["submitted"] * len(answers),
        "label.suggestion": "体育",
        "label.suggestion.score": 0.5,
        "label.suggestion.agent": "run",
    }


def test_argilla_records_are_read_back_once_they_are_answered(classifier: Classifier, pool: Path, tmp_path: Path) -> None:
    picked = suggest(classifier, pool, 4)
    out = tmp_path / "records.json"
    assert write_suggestions(picked, out, "argilla", classifier.labels, "run") == (out,)
    records = json.loads(out.read_text(encoding="utf-8"))
    assert records[0]["fields"] == {"text": picked[0].example.text}
    assert records[0]["id"] == str(picked[0].example.columns["id"])
    assert records[0]["suggestions"]["label"]["value"] == picked[0].label
    assert list(records[0]["metadata"]) == ["confidence", "uncertainty", "novelty", "reason"]
    with pytest.raises(DataError, match="none of its 4 Argilla records is answered"):
        list(read_examples(out))
    for one in records[:3]:
        one["responses"] = {"label": [{"value": one["suggestions"]["label"]["value"], "user_id": "1"}]}
    out.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    assert file_layout(out).format == "Argilla records"
    back = list(read_examples(out))
    assert [(row.text, row.label) for row in back] == [(one.example.text, one.label) for one in picked[:3]]
    assert [row.text for row in read_examples(out, labelled=False)] == [one.example.text for one in picked]


@pytest.mark.parametrize(
    ("model", "agent"),
    [("news-v2.1", "news-v2.1"), ("新闻v2", "__v2"), ("新闻", "fenlei"), ("", "fenlei"), ("a" * 300, "a" * 200)],
)
def test_argilla_is_told_the_run_by_a_name_that_its_server_takes(model: str, agent: str) -> None:
    one = Suggestion(Example("央行降准", None, "pool.jsonl", 1), "财经", 0.5, 0.5, 0.5, "uncertain")
    (written,) = json.loads(render([one], "argilla", model))
    assert written["suggestions"] == {"label": {"value": "财经", "score": 0.5, "agent": agent}}


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([record("财经", "财经", "体育"), record(), record("体育")], ["财经", "体育"]),
        ([record("体育", question="topic"), record()], ["体育"]),
        ([record(["财经"])], ["财经"]),
        ([record("财经", None)], ["财经"]),
        ([flat("财经"), flat(), flat("体育", "财经", states=["submitted", "discarded"])], ["财经", "体育"]),
    ],
)
def test_argilla_both_forms_and_the_vote_of_its_annotators(tmp_path: Path, rows: list[Row], labels: list[str]) -> None:
    read = list(read_examples(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert [row.label for row in read] == labels
    assert read[0].text == "央行降准"
    assert {"id": "7", "text": "央行降准", "source": "rss"}.items() <= read[0].columns.items()
    assert not [name for name in read[0].columns if "." in name or name in ("responses", "_server_id")]


def test_argilla_records_of_a_data_set_on_a_hub_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([flat("财经"), flat(), flat("体育", "财经", states=["submitted", "discarded"])]), path)
    assert file_layout(path).format == "Argilla records"
    read = list(read_examples(path))
    assert [(row.text, row.label) for row in read] == [("央行降准", "财经"), ("央行降准", "体育")]
    assert list(read[0].columns) == ["id", "text", "source", "label"]
    assert len(list(read_examples(path, labelled=False))) == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (record("财经", "体育"), "annotators disagree"),
        (
            record("财经", responses={"a": [{"value": "x"}], "b": [{"value": "y"}]}),
            "found answers to a, b; call the one that is meant 'label'",
        ),
        (record(responses={"label": [3]}), "is not what Argilla writes"),
    ],
)
def test_argilla_what_is_no_answer_is_said(tmp_path: Path, row: Row, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read_examples(write_jsonl(tmp_path / "a.jsonl", [row])))


def test_argilla_questions_that_are_answered_in_turn_are_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record("财经", question="topic"), record("好评", question="tone")])
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected one question, found answers to tone, topic; call the one .* 'label'"):
        list(read_examples(path))


def test_argilla_answers_to_another_question_are_no_labels(tmp_path: Path) -> None:
    records = [record("财经"), record("看不懂", question="comment")]
    for rows in (records, records[::-1]):
        assert [row.label for row in read_examples(write_jsonl(tmp_path / "a.jsonl", rows))] == ["财经"]


def test_argilla_metadata_that_is_none_is_left_out(tmp_path: Path) -> None:
    (row,) = read_examples(write_jsonl(tmp_path / "a.jsonl", [record("财经", metadata=[1])]))
    assert dict(row.columns) == {"id": "7", "text": "央行降准", "label": "财经"}


def test_a_column_called_text_that_the_run_does_not_read_alone_is_not_lost(classifier: Classifier, tmp_path: Path) -> None:
    pool = write_jsonl(tmp_path / "a.jsonl", [{"title": "央行降准", "text": "正文一段"}])
    for text_column in ("title", "title,text"):
        picked = suggest(classifier, pool, 1, text_column=text_column)
        for format in ("doccano", "label-studio", "argilla"):
            with pytest.raises(DataError, match=r"a\.jsonl:1: the pool has a column 'text' that is not the whole text that the run reads"):
                render(picked, format, "run")  # type: ignore[arg-type]
        assert json.loads(render(picked, "jsonl", "run"))["text"] == "正文一段"
    answered = record("财经", metadata={"text": "正文一段", "source": "rss"})
    (row,) = read_examples(write_jsonl(tmp_path / "b.jsonl", [answered]))
    assert (row.text, row.columns["source"]) == ("央行降准", "rss")


@pytest.mark.parametrize("name", ["Label", " LABEL"])
def test_a_column_of_labels_is_one_whatever_its_case(classifier: Classifier, tmp_path: Path, name: str) -> None:
    picked = suggest(classifier, write_jsonl(tmp_path / "a.jsonl", [{name: "", "text": "央行降准"}]), 1)
    out = tmp_path / "out.jsonl"
    for format in ("jsonl", "doccano"):
        out.write_text(render(picked, format, "run"), encoding="utf-8")  # type: ignore[arg-type]
        assert [row.label for row in read_examples(out)] == [picked[0].label]
    with pytest.raises(DataError, match="the pool has a label already, '财经'"):
        suggest(classifier, write_jsonl(tmp_path / "b.jsonl", [{name: "财经", "text": "央行降准"}]), 1)


def test_the_id_of_no_class_is_no_label_where_a_file_names_classes(classifier: Classifier, tmp_path: Path) -> None:
    pool, info = tmp_path / "pool.parquet", {"features": {"label": {"names": list(classifier.labels), "_type": "ClassLabel"}}}

    def written(*ids: int) -> Path:
        table = pa.table({"text": [f"央行降准{place}" for place in range(len(ids))], "label": list(ids)})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": info})}), pool)
        return pool

    (one,) = json.loads(f"[{render(suggest(classifier, written(-1, -1), 1), 'jsonl', 'run')}]")
    assert one["label"] in classifier.labels
    with pytest.raises(DataError, match="the pool has a label already"):
        suggest(classifier, written(-1, 1), 1)
    with pytest.raises(DataError, match="the pool has a label already, -1"):
        suggest(classifier, write_jsonl(tmp_path / "a.jsonl", [{"text": "央行降准", "label": -1}]), 1)


def test_what_is_answered_already_is_not_picked_again(classifier: Classifier, tmp_path: Path) -> None:
    texts = ("央行降准", "球队夺冠", "手机发布")
    tasks = [{**task(), "data": {"text": text}} for text in texts]
    tasks[1]["annotations"] = [chosen("体育")]
    two_asked = [*tasks[:1], {**tasks[1], "annotations": [asked(topic="财经", tone="好评")]}, *tasks[2:]]
    records = [record(fields={"text": text}, id=text) for text in texts]
    records[1]["responses"] = {"label": [{"value": "体育"}, {"value": "财经"}]}  # nobody need ask again, though it settles nothing
    for rows in (tasks, two_asked, records):
        pool = tmp_path / "pool.json"
        pool.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        told: list[str] = []
        picked = suggest(classifier, pool, 3, announce=told.append)
        assert {one.example.text for one in picked} == {texts[0], texts[2]}
        assert told == ["1 texts are left out: they are annotated already"]
    pool.write_text(json.dumps(tasks[1:2], ensure_ascii=False), encoding="utf-8")
    with pytest.raises(DataError, match="expected texts to label, found 1 that are annotated already"):
        suggest(classifier, pool, 3)


def test_a_pool_that_comes_through_a_pipe_is_read_once(classifier: Classifier, pool: Path) -> None:
    with subprocess.Popen(["cat", str(pool)], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        piped = suggest(classifier, f"/dev/fd/{cat.stdout.fileno()}", 3)
    assert [one.example.text for one in piped] == [one.example.text for one in suggest(classifier, pool, 3)]


def test_a_pool_has_its_texts_where_the_run_has_learned_them(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {**classifier.describe(), "read_from": ["描述"]}
    monkeypatch.setattr(classifier, "describe", lambda: told)
    (one,) = suggest(classifier, write_jsonl(tmp_path / "a.jsonl", [{"描述": "央行降准"}]), 1)
    assert one.example.text == "央行降准"
    with pytest.raises(DataError, match="the pool has a label already, -1"):
        suggest(classifier, write_jsonl(tmp_path / "b.jsonl", [{"描述": "央行降准", "label": -1}]), 1)


def test_argilla_is_given_an_id_of_its_own_for_each_row(classifier: Classifier, tmp_path: Path) -> None:
    first, second = "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"
    write_jsonl(tmp_path / first, [{"text": "央行降准", "id": 1}, {"text": "球队夺冠"}, {"text": "手机发布", "id": None}])
    write_jsonl(tmp_path / second, [{"text": "利率下调", "id": 1}, {"text": "国足取胜"}, {"text": "芯片发布", "id": "7"}])
    picked = suggest(classifier, tmp_path, 6)
    ids = {one["id"] for one in json.loads(render(picked, "argilla", "run"))}
    assert ids == {f"{first}:1", f"{first}:2", f"{first}:3", f"{second}:1", f"{second}:2", "7"}


def test_argilla_answers_with_the_same_labels_in_another_order_are_one(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record(["财经", "体育"], ["体育", "财经"])])
    assert [set(row.all_labels) for row in read_examples(path, labelling=Labelling(multi_label=True))] == [{"财经", "体育"}]


def test_an_audit_by_a_run_reads_the_columns_of_the_run(run: Path, tmp_path: Path, toy_rows: list[Row]) -> None:
    from fenlei.audit.audit import audit_data

    other = tmp_path / "other"
    shutil.copytree(run, other)
    config = RunConfig.from_yaml(run / "config.yaml").replace(text_column="title,body")
    (other / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    rows = [{"title": row["text"], "body": "正文", "label": row["label"]} for row in toy_rows]
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", rows), run=other, device="cpu")
    assert audit.rows.examples[0].whole == f"{toy_rows[0]['text']}\n正文"


def test_an_audit_by_a_run_reads_the_column_that_its_texts_were_learned_from(run: Path, tmp_path: Path, toy_rows: list[Row]) -> None:
    """It was found by its name; here `content` would be found before it."""
    from fenlei.audit.audit import audit_data

    shutil.copytree(run, tmp_path / "other")
    write_manifest(tmp_path / "other", {**read_manifest(run), "read_from": ["title"]})
    rows = [{"content": "正文", "title": row["text"], "label": row["label"]} for row in toy_rows]
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", rows), run=tmp_path / "other", device="cpu")
    assert [row.whole for row in audit.rows.examples] == [row["text"] for row in toy_rows]

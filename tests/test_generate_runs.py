"""The generate method from a file to a run and back: training, zero-shot, candidates, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_NEWS, write_jsonl

from fenlei import Classifier, train
from fenlei.artifact import read_manifest
from fenlei.cli.main import main
from fenlei.errors import ConfigError, DataError, RequestError
from fenlei.inference.trust import load_scores
from fenlei.report.evaluation import evaluate_run
from fenlei.training.dry_run import dry_run
from fenlei.training.held_out import numbers
from fenlei.training.objectives import label_loss

QUICK: dict[str, Any] = {"method": "generate", "max_steps": 4, "batch_size": 8, "device": "cpu", "baseline": False, "max_length": 200}
TOO_MANY = [f"类别{at}" for at in range(200)]
TEXTS = ["国足热身赛两球取胜", "央行下调利率"]


def copy_of(file: Path) -> str:
    """The same rows as a dev file: enough of them to calibrate."""
    return str(shutil.copy(file, file.with_name("dev.jsonl")))


@pytest.fixture(scope="module")
def fudan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with candidates of their own, as a list or joined by commas; 军事 is never the answer."""
    toy = TOY_NEWS.read_text(encoding="utf-8").splitlines()
    toy_rows = [json.loads(line) for line in toy]
    names = sorted({row["label"] for row in toy_rows})
    rows = []
    for at, row in enumerate(toy_rows):
        other = next(name for name in names if name != row["label"])
        offered = [row["label"], "军事", other][:: 1 if at % 3 else -1]
        rows.append({"text": row["text"], "category": offered if at % 2 else ", ".join(offered), "output": row["label"]})
    return write_jsonl(tmp_path_factory.mktemp("fudan") / "fudan.jsonl", rows)


@pytest.fixture(scope="module")
def fudan_run(fudan_file: Path, tiny_qwen: Path) -> Path:
    """What was trained on them, and asks each row among its candidates."""
    out = fudan_file.with_name("run")
    return train(fudan_file, dev=copy_of(fudan_file), model=str(tiny_qwen), out=out, tuning="lora", **QUICK).out


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny_qwen", {"tuning": "full"}),
        ("tiny_qwen", {"tuning": "lora", "objective": "tokens"}),
        ("tiny_llama", {"tuning": "lora", "layers": 1, "prior_correction": True, "shots": 2}),
        ("tiny_qwen", {"tuning": "none"}),
    ],
)
def test_a_run_answers_as_it_was_measured(
    model: str, options: dict[str, Any], toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base: Path = request.getfixturevalue(model)
    result = train(toy_file, model=str(base), out=tmp_path / "run", **QUICK, **options)
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    manifest = read_manifest(tmp_path / "run")
    assert manifest["method"] == "generate"
    assert manifest["tuning"] == options["tuning"]
    assert (result.trainable == 0) == (options["tuning"] == "none")
    assert classifier.labels == result.labels
    lines, stored = numbers(manifest["data"]["calibrating"][str(toy_file)]), load_scores(tmp_path / "run")["calibrating"]
    calibrating = [row["text"] for line, row in enumerate(toy_rows, start=1) if line in lines]
    np.testing.assert_allclose(classifier.logits(calibrating).logits, stored.logits, atol=1e-5)
    proba = classifier.predict_proba(TEXTS)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)
    report = evaluate_run(tmp_path / "run", toy_file, device="cpu")
    assert report.metrics.rows == 60


def test_batch_tokens_change_memory_not_gradients(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    for tokens in (60, 4096):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / str(tokens), batch_tokens=tokens, tuning="full", **QUICK)
    few, many = (Classifier.load(tmp_path / name, device="cpu").logits(TEXTS).logits for name in ("60", "4096"))
    np.testing.assert_allclose(few, many, atol=2e-3)  # saved in bfloat16 or float32 products, by the machine


def test_zero_shot_is_the_untuned_run_without_its_temperature(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="none", **QUICK)
    run = Classifier.load(tmp_path / "run", device="cpu")
    zero = Classifier.zero_shot(str(tiny_qwen), run.labels, device="cpu", max_length=200)
    np.testing.assert_array_equal(zero.logits(TEXTS).logits, run.logits(TEXTS).logits)
    assert not any(one.calibrated for one in zero.predict(TEXTS))
    told = [note for note in evaluate_run(tmp_path / "run", toy_file, device="cpu").notes if "flattered" in note]
    assert [("trained" in note, "calibrated" in note) for note in told] == [(False, True)]  # the rows outside dev have taught nothing


def test_the_prior_is_what_labels_score_on_an_empty_text(tiny_qwen: Path) -> None:
    labels = ["体育", "财经", "科技新闻"]
    plain = Classifier.zero_shot(str(tiny_qwen), labels, device="cpu", prior_correction=False)
    corrected = Classifier.zero_shot(str(tiny_qwen), labels, device="cpu")
    raw = plain.logits([*TEXTS, ""]).logits
    np.testing.assert_allclose(corrected.logits(TEXTS).logits, raw[:2] - raw[2], atol=1e-5)
    np.testing.assert_allclose(corrected.predict_proba([""]), 1 / 3, atol=1e-5)


def test_labels_with_a_request(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, dev=copy_of(toy_file), model=str(tiny_qwen), out=tmp_path / "run", tuning="lora", **QUICK)
    run = Classifier.load(tmp_path / "run", device="cpu")
    own = run.predict(TEXTS)
    assert all(one.calibrated for one in own)
    other = ["军事", "教育"]
    answers = run.predict(TEXTS, labels=other)
    assert all(one.label in other and list(one.probabilities) == other and not one.calibrated for one in answers)
    np.testing.assert_array_equal(run.predict_proba(TEXTS, labels=other), [list(one.probabilities.values()) for one in answers])
    mixed = run.predict(TEXTS, labels=[other, None])
    assert (mixed[0].label in other, mixed[0].calibrated) == (True, False)
    assert (mixed[1].label, mixed[1].calibrated) == (own[1].label, True)
    assert mixed[1].confidence == pytest.approx(own[1].confidence, abs=1e-4)
    assert run.predict(TEXTS, labels=run.labels) == own
    assert run.predict(TEXTS, labels=np.array(other)) == answers
    assert run.predict(TEXTS, labels=[np.array(other), np.array(other)]) == run.predict(TEXTS, labels=[other, other])
    for wrong in ([], "军事", [["军事"]], [["军事", "教育"], []], [1, 2]):
        with pytest.raises(RequestError, match="labels"):
            run.predict(TEXTS, labels=wrong)


def test_rows_are_answered_inside_their_candidates(fudan_run: Path, fudan_file: Path, tmp_path: Path) -> None:
    assert "军事" in read_manifest(fudan_run)["labels"]
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(fudan_run), str(fudan_file), "--out", str(out), "--probabilities", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 60
    for row in rows:
        offered = row["category"] if isinstance(row["category"], list) else row["category"].split(", ")
        assert row["prediction"] in offered
        assert list(row["probabilities"]) == [name for name in row["probabilities"] if name in offered]
        assert row["calibrated"]
    report = evaluate_run(fudan_run, fudan_file, device="cpu")
    assert sum(row["prediction"] == row["output"] for row in rows) == round(report.metrics.accuracy * 60)
    others = [fudan_run, fudan_run / "report" / "predictions.jsonl"]  # each row among its candidates there as well
    compared = evaluate_run(fudan_run, fudan_file, device="cpu", out=tmp_path / "again", compare_with=others).comparison
    for one in compared:
        if one.name != "TF-IDF baseline":
            assert one.metrics.log_loss == pytest.approx(report.metrics.log_loss, abs=1e-3), one.name


def test_a_head_says_that_it_reads_no_candidates_and_takes_no_labels(tiny_qwen: Path, fudan_file: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    options = QUICK | {"method": "head", "tuning": "frozen"}
    train(fudan_file, dev=copy_of(fudan_file), model=str(tiny_qwen), out=tmp_path / "run", announce=notes.append, **options)
    assert sum("candidates of rows are not read" in note for note in notes) == 1
    measured = evaluate_run(tmp_path / "run", fudan_file, device="cpu")
    assert sum("candidates of rows are not read" in note for note in measured.notes) == 1
    with pytest.raises(RequestError, match="answers with a head that knows its 3 labels and no other"):
        Classifier.load(tmp_path / "run", device="cpu").predict(TEXTS, labels=["军事", "教育"])


def test_a_row_that_cannot_be_asked_among_its_candidates_is_set_aside(fudan_run: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "category": ["体育", *TOO_MANY] if at == 1 else "体育，财经、军事"} for at, text in enumerate([*TEXTS, "好"])]
    source, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["predict", str(fudan_run), str(source), "--out", str(out), "--device", "cpu"]) == 0
    assert [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()] == [TEXTS[0], "好"]
    (rejected,) = (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rejected)["line"] == 2
    assert "in.jsonl:2: max_length 200 leaves no room for the text" in json.loads(rejected)["reason"]


@pytest.mark.parametrize(
    ("category", "message"),
    [
        (["体育"], r"fudan.jsonl:2: label '财经' is not among the row's candidates, '体育'"),
        ([], "fudan.jsonl:2: the list of candidate labels"),
        (["财经", *TOO_MANY], "fudan.jsonl:2: max_length 200 leaves no room for the text"),
    ],
)
def test_a_row_without_its_label_among_the_candidates_is_named(category: list[str], message: str, tiny_qwen: Path, tmp_path: Path) -> None:
    rows = [{"text": f"文本{at}", "category": ["体育", "财经"], "output": ("体育", "财经")[at % 2]} for at in range(8)]
    rows[1]["category"] = category
    data = write_jsonl(tmp_path / "fudan.jsonl", rows)
    with pytest.raises(DataError, match=message):
        train(data, model=str(tiny_qwen), out=tmp_path / "run", **QUICK)


def test_zero_shot_from_the_command_line(tiny_qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.yaml"
    labels.write_text("- name: 体育\n  description: 比赛和球队\n  aliases: [运动]\n- 财经\n", encoding="utf-8")
    for given in ("体育, 财经", "体育，财经", "体育、财经", str(labels)):
        assert main(["predict", str(tiny_qwen), "--labels", given, "--text", TEXTS[0], "--device", "cpu", "--json", "--probabilities"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert list(row["probabilities"]) == ["体育", "财经"]
        assert row["calibrated"] is False
    described = Classifier.zero_shot(str(tiny_qwen), labels, device="cpu").describe()
    assert described["instruction"]["notes"]["体育"] == {"description": "比赛和球队", "aliases": ["运动"]}
    assert main(["predict", str(tiny_qwen), "--text", TEXTS[0]]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuning": "frozen"}, "tuning 'frozen' belongs to method head"),
        ({"head": "mlp"}, "head 'mlp' belongs to method head"),
        ({"method": "head", "tuning": "none"}, "tuning 'none' belongs to method generate"),
        ({"method": "head", "shots": 3}, "belong to method generate"),
        ({"objective": "tokens", "label_smoothing": 0.1}, "label_smoothing"),
        ({"prompt": "{text}: {labels}"}, "{labels} at most once and before it"),
        ({"prompt": "{example_1} {labels} {text}"}, "prompt has a place {example_1}, which fenlei fills by itself"),
        ({"max_length": 40}, "max_length 40 leaves no room for the text: the instruction with its 3 labels"),
        ({"shots": 51}, "shots 51 would take all 51 training rows"),
    ],
)
def test_what_cannot_work_is_said(options: dict[str, Any], message: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **QUICK | options)


def test_smoothing_spreads_over_candidates_alone() -> None:
    gold = torch.tensor([0, 2])
    logits = torch.randn(2, 3)
    ours = label_loss(logits, gold, smoothing=0.2)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, gold, reduction="sum", label_smoothing=0.2))
    wide = torch.cat([logits, torch.full((2, 1), -torch.inf)], dim=1)
    torch.testing.assert_close(label_loss(wide, gold, smoothing=0.2), ours)


@pytest.mark.parametrize("options", [{"tuning": "none"}, {"tuning": "lora", "objective": "tokens"}])
def test_a_dry_run_shows_the_whole_prompt(options: dict[str, Any], tiny_qwen: Path, toy_file: Path) -> None:
    plan = dry_run(toy_file, model=str(tiny_qwen), **QUICK, **options)
    assert all(shown.startswith("<|im_start|>user\n请判断") and shown.endswith("<|im_start|>assistant\n") for shown in plan.inputs)
    assert (plan.steps == 0) == (options["tuning"] == "none")

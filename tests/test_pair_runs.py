"""Runs on pairs of texts, from a file to answers and exports: an encoder with token types, and a decoder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import transformers
from conftest import write_jsonl
from serving import running

from fenlei import Classifier, train
from fenlei.artifact import read_manifest
from fenlei.audit.audit import audit_data
from fenlei.cli.display import asking
from fenlei.cli.main import main
from fenlei.errors import ConfigError, DataError, RequestError
from fenlei.export.merged import export_merged
from fenlei.export.onnx_folder import export_onnx
from fenlei.inference.bulk import predict_file
from fenlei.report.evaluation import evaluate_run
from fenlei.serving.client import Client
from fenlei.text.prompts import special_ids
from fenlei.training.distill import distill
from fenlei.training.extend import extend

LETTERS = "国足热身赛两球取胜主帅称赞年轻后卫"
QUICK: dict[str, Any] = {"text_column": "a", "pair_column": "b", "max_steps": 12, "batch_size": 16, "device": "cpu", "max_length": 24}
MODELS = ("tiny_bert", "tiny_qwen")


def rows_of(seed: int, count: int = 80, labels: tuple[str, ...] = ("胜", "败")) -> list[dict[str, str]]:
    """Only the second text says which label a row has; a premise comes more than once."""
    draw = random.Random(seed)
    rows = []
    for at in range(count):
        label = labels[at % len(labels)]
        first = "".join(draw.choices(LETTERS, k=3 + at % 9))
        rows.append({"a": first, "b": f"{label}{''.join(draw.choices(LETTERS, k=4))}", "label": label, "id": str(at)})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "nli.jsonl", rows_of(1))


@pytest.fixture(scope="module", params=MODELS)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / request.param
    train(data, model=str(request.getfixturevalue(request.param)), out=out, learning_rate=0.01, **QUICK)
    return out


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return Classifier.load(run, device="cpu")


def pairs(seed: int = 2, count: int = 30) -> list[tuple[str, str]]:
    return [(row["a"], row["b"]) for row in rows_of(seed, count)]


def test_the_run_says_that_it_reads_pairs(run: Path, classifier: Classifier) -> None:
    manifest = read_manifest(run)
    assert (manifest["text_column"], manifest["pair_column"], manifest["format_version"]) == ("a", "b", 3)
    assert manifest["length_rule"].startswith("the longer text of the pair is shortened first")
    assert classifier.pairs
    assert asking(run).endswith(" --text ... --pair ...")
    assert 'predict([("...", "...")])' in (run / "README.md").read_text(encoding="utf-8")


def test_the_order_of_a_pair_matters(classifier: Classifier) -> None:
    asked = pairs()
    assert (
        np.abs(classifier.logits(asked).logits - classifier.logits([(b, a) for a, b in asked]).logits).max() > 5e-5
    )  # rounding is below 1e-5


def test_a_pair_is_answered_alone_as_among_others(classifier: Classifier) -> None:
    asked = pairs()
    together = classifier.logits(asked).logits
    alone = np.concatenate([classifier.logits([pair]).logits for pair in asked])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@torch.inference_mode()
def test_answers_are_those_of_transformers_own_pairs(run: Path, classifier: Classifier) -> None:
    """The saved weights, opened by plain transformers: token types and all for the encoder; the line break is ours for the decoder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run / "model", dtype=torch.float32).eval()
    asked = [*pairs(), ("国" * 30, "足" * 3), ("国" * 30, "足" * 40), ("国" * 2, "足" * 40)]
    ours = classifier.logits(asked).logits
    for pair, logits in zip(asked, ours, strict=True):
        if "token_type_ids" in tokenizer.model_input_names:
            inputs = tokenizer(*pair, truncation="longest_first", max_length=24, return_tensors="pt")
            assert inputs["token_type_ids"].max() == 1
        else:
            between = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (pair[0], "\n", pair[1])]
            parts = [special_ids(tokenizer)[0], *between]
            if sum(map(len, parts)) > 24:
                continue
            inputs = {"input_ids": torch.tensor([[token for ids in parts for token in ids]])}
        np.testing.assert_allclose(model(**inputs).logits[0].numpy(), logits, atol=1e-4)


def test_what_was_cut_is_counted(classifier: Classifier) -> None:
    assert [one.tokens_cut > 0 for one in classifier.predict([("国足", "赛"), ("国足" * 40, "赛")])] == [False, True]


def test_the_baseline_reads_both_texts(run: Path, data: Path) -> None:
    """Rows are told apart by their second text alone."""
    evaluation = evaluate_run(run, data)
    assert evaluation.baseline is not None
    assert evaluation.baseline.accuracy > 0.95
    assert evaluation.metrics.rows == 80


def test_a_file_is_predicted_without_naming_its_columns(classifier: Classifier, tmp_path: Path) -> None:
    rows = rows_of(3, 20)
    result = predict_file(classifier, write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "out.jsonl")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = classifier.predict([(row["a"], row["b"]) for row in rows])
    assert result.rows == 20
    assert [list(row)[:4] for row in written] == [["a", "b", "label", "id"]] * 20
    assert [row["prediction"] for row in written] == [one.label for one in expected]
    renamed = write_jsonl(tmp_path / "renamed.jsonl", [{"x": row["a"], "y": row["b"]} for row in rows])
    predict_file(classifier, renamed, tmp_path / "two.jsonl", text_column="x", pair_column="y")
    again = [json.loads(line)["prediction"] for line in (tmp_path / "two.jsonl").read_text(encoding="utf-8").splitlines()]
    assert again == [row["prediction"] for row in written]


def test_a_frame_is_predicted_as_a_file_is(classifier: Classifier) -> None:
    frame = classifier.predict_frame(pandas.DataFrame(rows_of(3, 20)))
    assert list(frame["prediction"]) == [one.label for one in classifier.predict([(row["a"], row["b"]) for row in rows_of(3, 20)])]


def test_rows_without_a_second_text_are_set_aside(classifier: Classifier, tmp_path: Path) -> None:
    rows = rows_of(3, 4)
    rows[2]["b"] = " "
    result = predict_file(classifier, write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "out.jsonl")
    assert (result.rows, result.rejected) == (3, 1)
    assert "new.jsonl:3: expected a second text in column 'b'" in (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="no column 'b', found columns 'a'"):
        predict_file(classifier, write_jsonl(tmp_path / "one.jsonl", [{"a": "甲"}]), tmp_path / "none.jsonl")


def test_single_texts_are_refused(classifier: Classifier) -> None:
    with pytest.raises(
        RequestError, match=r"text 0 is one text, '国足'; this run was trained on pairs of texts, so write \(first, second\)"
    ):
        classifier.predict(["国足"])


def test_the_command_line(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "--text", "国足", "--pair", "胜", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["text"], said["pair"]) == ("国足", "胜")
    assert main(["predict", str(run), str(data), "--out", str(tmp_path / "p.jsonl")]) == 0
    assert len((tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()) == 80
    assert main(["evaluate", str(run), str(data), "--json"]) == 0
    capsys.readouterr()
    assert main(["predict", str(run), "--text", "国足"]) == 1
    assert "this run was trained on pairs of texts" in capsys.readouterr().err
    assert main(["predict", str(run), "--text", "国足", "--text", "球", "--pair", "胜"]) == 2
    assert "1 second texts to 2 --text" in capsys.readouterr().err
    assert main(["suggest", str(run), str(data), "-n", "2"]) == 1
    assert "suggest looks at single texts" in " ".join(capsys.readouterr().err.split())


def test_a_run_on_single_texts_refuses_pairs(tiny_qwen: Path, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", max_steps=1, device="cpu", max_length=24, baseline=False)
    with pytest.raises(RequestError, match="expected a string; this run was not trained on pairs"):
        Classifier.load(tmp_path / "run", device="cpu").predict([("a", "b")])
    for command in ("predict", "evaluate"):
        assert main([command, str(tmp_path / "run"), str(toy_file), "--pair-column", "label"]) == 1
        assert "this run reads single texts" in capsys.readouterr().err
    assert read_manifest(tmp_path / "run")["format_version"] == 1


def test_the_stock_pipeline_takes_pairs(run: Path, classifier: Classifier, tmp_path: Path) -> None:
    result = export_merged(run, tmp_path / "stock", texts=None if run.name == "tiny_qwen" else pairs())
    assert result.agreement == 1.0
    assert result.largest_difference < 1e-4
    told = [note for note in result.notes if "text_pair" in note]
    assert bool(told) == (run.name == "tiny_qwen")
    ask = transformers.pipeline("text-classification", model=str(tmp_path / "stock"), top_k=None, device="cpu")
    asked = [*pairs(), ("国" * 30, "足" * 3), ("国" * 30, "足" * 40)]
    for (first, second), expected in zip(asked, classifier.predict_proba(asked), strict=True):
        answers = {one["label"]: one["score"] for one in ask({"text": first, "text_pair": second}, truncation=True)}
        np.testing.assert_allclose([answers[label] for label in classifier.labels], expected, atol=1e-3)
    assert '"text_pair": "..."' in (tmp_path / "stock" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="an ONNX folder reads single texts"):
        export_onnx(run, tmp_path / "onnx")


def test_the_service_takes_pairs(run: Path, classifier: Classifier) -> None:
    asked = pairs(4, 6)
    with running(run) as service:
        reply = service.post("/v1/classify", {"texts": [list(pair) for pair in asked]})
        assert reply.status == 200
        expected = [one.label for one in classifier.predict(asked)]
        assert [one["label"] for one in reply.json["results"]] == expected
        assert [one.label for one in Client(service.url).predict(asked)] == expected
        for path, body in (("/v1/classify", {"texts": ["国足"]}), ("/predict", {"inputs": "国足"})):
            refused = service.post(path, body)
            assert 400 <= refused.status < 500
            assert "this run was trained on pairs" in refused.body.decode()
        assert service.post("/v1/classify", {"texts": [["a", "b", "c"]]}).status == 422


@pytest.mark.parametrize("long", ["truncate", "head-tail"])
def test_the_generate_method_reads_pairs(long: str, tiny_qwen: Path, data: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_length": 120, "max_steps": 4}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", method="generate", tuning="full", long=long, **options)
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    asked = pairs()
    scores = classifier.logits(asked).logits
    assert np.abs(scores - classifier.logits([(b, a) for a, b in asked]).logits).max() > 1e-4
    np.testing.assert_allclose(np.concatenate([classifier.logits([pair]).logits for pair in asked]), scores, atol=1e-4)
    assert classifier.predict([("国足" * 60, "赛")])[0].tokens_cut > 0
    assert export_merged(tmp_path / "run", tmp_path / "stock", force=long != "truncate").agreement >= 0.995
    assert "{text}\n{pair}" in json.loads((tmp_path / "stock" / "prompt.json").read_text(encoding="utf-8"))["prompt"]


def test_a_run_with_a_prompt_and_a_frozen_backbone(tiny_qwen: Path, data: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_length": 60, "baseline": False}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", prompt="{text} / {pair}?", tuning="frozen", **options)
    with pytest.raises(ConfigError, match="reads pairs inside a prompt"):
        export_merged(tmp_path / "run", tmp_path / "stock")
    assert export_merged(tmp_path / "run", tmp_path / "stock", force=True, texts=pairs()).agreement >= 0.995


def test_the_same_premise_under_two_labels_is_no_conflict(tmp_path: Path) -> None:
    rows = [{"text": "甲", "b": f"乙{at}", "label": "xy"[at % 2]} for at in range(4)] + [{"text": "甲", "b": "乙0", "label": "y"}]
    assert len(audit_data(write_jsonl(tmp_path / "nli.jsonl", rows)).conflicts) == 1
    found = audit_data(write_jsonl(tmp_path / "nli.jsonl", rows), pair_column="b")
    assert [one.rows for one in found.conflicts] == [(0, 4)]


@pytest.mark.usefixtures("asked_once")
def test_a_pair_run_teaches_and_grows(tiny_bert: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(data, model=str(tiny_bert), out=out, store_exemplars=4, **QUICK)
    new = write_jsonl(tmp_path / "new.jsonl", rows_of(5, 12, ("平",)))
    grown = extend(out, new, out=tmp_path / "grown", max_steps=2, device="cpu").training.out
    assert Classifier.load(grown, device="cpu").predict([("国", "足")])[0].probabilities.keys() == {"胜", "败", "平"}
    student = distill(out, to=str(tiny_bert), out=tmp_path / "small", max_steps=2, device="cpu", max_length=24).training.out
    assert Classifier.load(student, device="cpu").pairs

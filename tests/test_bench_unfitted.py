"""Which rows a run's confidence is measured on, and that it is asked about them but once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_NEWS, write_jsonl

from bench.unfitted import unfitted_rows, unfitted_scores
from fenlei import Classifier, train
from fenlei.artifact import read_manifest
from fenlei.report.evaluation import evaluate_run

Row = dict[str, str]


@pytest.fixture
def dev(tmp_path: Path, toy_rows: list[Row]) -> Path:
    """Line ends inside a text, and the rows that will fit the run last."""
    others = [{**row, "text": row["text"] + "\u2028之二"} for row in toy_rows]
    return write_jsonl(tmp_path / "dev.jsonl", [*others, *toy_rows[:30]])


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unfitted")
    fitting = folder / "fitting.jsonl"
    fitting.write_text("".join(TOY_NEWS.read_text(encoding="utf-8").splitlines(keepends=True)[:30]), encoding="utf-8")
    options = {"tuning": "frozen", "max_steps": 4, "device": "cpu", "baseline": False}
    return train(TOY_NEWS, dev=str(fitting), model=str(tiny_bert), out=folder / "run", **options).out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy, in whose folder answers are kept."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_rows_that_the_run_says_fitted_it_are_left_out_wherever_they_stand(run: Path, dev: Path, toy_rows: list[Row]) -> None:
    rows = unfitted_rows(read_manifest(run), dev)
    assert rows == [(row["text"] + "\u2028之二", row["label"]) for row in toy_rows]


def test_answers_come_from_an_evaluation_else_from_the_run_once(run: Path, dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = unfitted_scores(run, dev)
    texts = [text for text, _ in unfitted_rows(read_manifest(run), dev)]
    np.testing.assert_allclose(np.exp(asked.logits), Classifier.load(run, device="cpu").predict_proba(texts), atol=2e-6)

    def refuse(*_: object, **__: object) -> Classifier:
        raise AssertionError("asked again")

    monkeypatch.setattr("bench.unfitted.Classifier.load", refuse)
    again = unfitted_scores(run, dev)
    np.testing.assert_array_equal(again.logits, asked.logits)
    np.testing.assert_array_equal(again.label_ids, asked.label_ids)


def test_what_was_cut_off_is_gone_on_with(run: Path, dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = Classifier.predict
    calls: list[int] = []

    def second_window_fails(self: Classifier, texts: Any, **options: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(self, texts, **options)

    monkeypatch.setattr("fenlei.inference.bulk.WINDOW_ROWS", 40)
    monkeypatch.setattr(Classifier, "predict", second_window_fails)
    with pytest.raises(KeyboardInterrupt):
        unfitted_scores(run, dev)
    assert unfitted_scores(run, dev).logits.shape == (60, 3)
    assert calls == [40, 20, 20]


def test_an_evaluation_on_all_of_dev_is_enough(run: Path, dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_run(run, dev, device="cpu")
    monkeypatch.setattr("bench.unfitted.Classifier.load", None)
    assert unfitted_scores(run, dev).logits.shape == (60, 3)

"""New labels for a run that generates: it goes on with its own prompt, in which nothing but the list of labels grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_jsonl
from extending import NEW, weather
from extending import QUICK as FAST

from fenlei import train
from fenlei.artifact import read_manifest
from fenlei.config import RunConfig
from fenlei.data.examples import Example
from fenlei.data.extension import read_rows
from fenlei.errors import ConfigError
from fenlei.evaluation.calibration import Calibration
from fenlei.inference.loading import load_run
from fenlei.inference.scoring import score
from fenlei.labels import LabelSet
from fenlei.text.asking import QuestionEncoder
from fenlei.training.extend import _build, _extended_config, extend
from fenlei.training.former_answers import former_answers
from fenlei.training.lessons import Taught
from fenlei.training.setup import Setup, prepare

QUICK: dict[str, Any] = {**FAST, "max_steps": 1}
OPTIONS: dict[str, Any] = {"method": "generate", "tuning": "lora", "lora_rank": 2, "batch_size": 8, "max_length": 300, **QUICK}
YAML = "- name: 科技\n  description: 芯片和航天\n- name: 体育\n  aliases: [运动]\n- 财经\n"


def question_encoder(run: Path) -> QuestionEncoder:
    encoder = load_run(run, device="cpu").encoder
    assert isinstance(encoder, QuestionEncoder)
    return encoder


def prompt(run: Path, labels: LabelSet | None = None) -> str:
    """What is read before the text; of an extended run, as it was asked among `labels`."""
    encoder = question_encoder(run)
    return str(encoder._tokenizer.decode(encoder.with_labels(labels or encoder.labels).question().before))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "new.jsonl", weather())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts under which the run is asked before it learns."""
    from fenlei.training import extend as module

    told, ask = [], module.former_answers

    def listening(setup: Setup, answered: Calibration, known: LabelSet, *rest: Any) -> Any:
        assert isinstance(setup.encoder, QuestionEncoder)
        told.append(str(setup.tokenizer.decode(setup.encoder.with_labels(known).question().before)))
        return ask(setup, answered, known, *rest)

    monkeypatch.setattr(module, "former_answers", listening)
    return told


def test_what_is_known_of_labels_stays_and_more_is_told_of_new_ones(
    tiny_qwen: Path, toy_file: Path, new: Path, asked: list[str], tmp_path: Path
) -> None:
    labels, more = tmp_path / "labels.yaml", tmp_path / "more.yaml"
    labels.write_text(YAML, encoding="utf-8")
    more.write_text(f"{NEW}: 气温和降水\n", encoding="utf-8")
    run = train(toy_file, model=str(tiny_qwen), class_file=str(labels), out=tmp_path / "run", **OPTIONS).out
    out = extend(run, new, replay=toy_file, class_file=str(more), out=tmp_path / "out", **QUICK).training.out
    before = prompt(run)
    assert "- 科技：芯片和航天" in before
    assert set(asked) == {before}
    assert prompt(out) == before.replace("- 财经", f"- 财经\n- {NEW}：气温和降水")


def test_the_language_stays(tiny_qwen: Path, toy_rows: list[dict[str, str]], new: Path, asked: list[str], tmp_path: Path) -> None:
    english = {"体育": "sport", "财经": "finance", "科技": "science"}
    data = write_jsonl(tmp_path / "data.jsonl", [{**row, "label": english[row["label"]]} for row in toy_rows])
    run = train(data, model=str(tiny_qwen), out=tmp_path / "run", **OPTIONS).out
    out = extend(run, new, replay=data, out=tmp_path / "out", **QUICK).training.out
    assert "Decide which category" in prompt(run)
    assert set(asked) == {prompt(run)} == {prompt(out, LabelSet(tuple(read_manifest(run)["labels"])))}
    assert f", {NEW}" in prompt(out)


def test_examples_stay_and_are_not_learned_from(tiny_qwen: Path, toy_file: Path, new: Path, asked: list[str], tmp_path: Path) -> None:
    run = train(toy_file, model=str(tiny_qwen), shots=3, out=tmp_path / "run", **OPTIONS).out
    training = extend(run, new, replay=toy_file, out=tmp_path / "out", **QUICK).training
    examples = question_encoder(run).instruction.examples
    assert len(examples) == 3
    assert question_encoder(training.out).instruction.examples == examples
    assert set(asked) == {prompt(run)}
    told = read_manifest(training.out)["data"]["rows"]
    replayed = 60 - len(examples)  # 20 of each class and more are replayed, where there are so many
    assert told["train"] + told["selecting"] + told["calibrating"] == 20 + replayed


def test_another_prompt_is_refused(tiny_qwen: Path, toy_file: Path, new: Path, tmp_path: Path) -> None:
    run = train(toy_file, model=str(tiny_qwen), prompt="zh", out=tmp_path / "run", **OPTIONS).out
    with pytest.raises(ConfigError, match="prompt: a run goes on with the prompt that it was trained with"):
        extend(run, new, replay=toy_file, out=tmp_path / "out", prompt="en", **QUICK)
    extend(run, new, replay=toy_file, out=tmp_path / "out", prompt="zh", **QUICK)


def test_before_it_learns_a_run_is_asked_among_those_candidates_that_it_knows(tiny_qwen: Path, toy_file: Path) -> None:
    setup = prepare(RunConfig().replace(data=str(toy_file), model=str(tiny_qwen), **OPTIONS))
    known = setup.dataset.labels
    first, second, third = known.names
    offered = ((first, second), (third, NEW), None, (NEW,))
    rows = [Example("国足两球取胜", third, "x", at + 1, candidates=names) for at, names in enumerate(offered)]
    said = former_answers(setup, Calibration(), known, rows).logits
    assert np.isneginf(said[:3]).tolist() == [[False, False, True], [True, True, False], [False, False, False]]
    assert np.isfinite(said[3]).any()


def test_rows_are_asked_among_their_candidates_before_and_after(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """All labels that the run knows would not even leave room for a text."""
    data = write_jsonl(tmp_path / "data.jsonl", [{**row, "category": [row["label"], f"类别{at}"]} for at, row in enumerate(toy_rows)])
    rows = [{**row, "category": [NEW, "体育"][: 1 + at % 2]} for at, row in enumerate(weather())]
    run = train(data, model=str(tiny_qwen), out=tmp_path / "run", store_exemplars=20, **{**OPTIONS, "max_length": 130}).out
    result = extend(run, write_jsonl(tmp_path / "offered.jsonl", rows), replay=data, out=tmp_path / "out", **QUICK)
    assert result.training.labels[-1] == NEW
    assert result.changes[0].rows > 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "are asked among these, and were asked among those of them that the run knew:" in card
    data.unlink()  # the rows that the run keeps offer what they did
    result = extend(run, tmp_path / "offered.jsonl", out=tmp_path / "again", **QUICK)
    assert result.changes[0].rows > 0
    assert read_manifest(tmp_path / "again")["row_candidates"]


def test_a_prior_is_learned_from_as_training_sees_it(tiny_qwen: Path, toy_file: Path, new: Path, tmp_path: Path) -> None:
    run = train(toy_file, model=str(tiny_qwen), prior_correction=True, out=tmp_path / "run", **OPTIONS).out
    manifest, config = read_manifest(run), _extended_config(run, new, QUICK)
    known = LabelSet(tuple(manifest["labels"]))
    setup, _ = _build(run, manifest, config, read_rows(toy_file, config.data), known)
    assert isinstance(setup.encoder, QuestionEncoder)
    asked = setup.encoder.with_labels(known).encode([row.input for row in setup.dataset.train])
    in_training = score(setup.method.train(), asked, len(known), autocast=setup.scoring_autocast).logits
    assert isinstance(setup.lessons.targets, Taught)
    np.testing.assert_allclose(setup.lessons.targets.teacher.numpy(), in_training, atol=1e-3)
    answered = score(setup.method.eval(), asked, len(known), autocast=setup.scoring_autocast).logits
    assert np.abs(answered - in_training).max() > 0.1, "answers are without it"

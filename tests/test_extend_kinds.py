"""New classes for runs of every kind: what each of them has to bring along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_NEWS, write_jsonl
from extending import NEW, QUICK, weather, with_other_files

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.data.examples import Example
from fenlei.data.extension import MAY_HAVE_TRAINED, OF_A_SAMPLE
from fenlei.errors import ConfigError
from fenlei.evaluation.calibration import Calibration, fit_calibration
from fenlei.inference.loading import POOLING_FILE, load_run
from fenlei.inference.scoring import Scores, score
from fenlei.inference.trust import load_scores
from fenlei.report.evaluation import evaluate_run
from fenlei.training.exemplars import choose_exemplars
from fenlei.training.extend import extend
from fenlei.training.growth import take_over
from fenlei.training.held_out import DEV
from fenlei.training.lessons import TEACHER_SHARE, Taught, taught, taught_loss, teacher_divergence
from fenlei.training.objectives import Loss
from fenlei.training.promises import make_promises

LORA: dict[str, Any] = {"tuning": "lora", "lora_rank": 4}


def logits(run: Path, texts: list[str]) -> np.ndarray:
    loaded = load_run(run, device="cpu", fold=True)
    return score(loaded.method, loaded.encoder.encode(texts), len(loaded.labels)).logits


@pytest.mark.usefixtures("exact")  # a few large steps: what a processor computes in decides where they end
def test_windows_are_joined_as_the_run_joined_them(
    tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What joins windows has weights of its own: the grown network has the run's, and goes on from them."""
    rows = [{**row, "text": (row["text"] + "。") * 12} for row in toy_rows]
    data = write_jsonl(tmp_path / "long.jsonl", rows)
    options = {"long": "windows", "max_length": 64, "learning_rate": 0.005, "max_steps": 20, "batch_size": 8}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", **options, **LORA, **QUICK)
    run = load_run(tmp_path / "run", device="cpu", fold=True).method
    pooling = {name: weight.clone() for name, weight in run.state_dict().items() if name.startswith("pooling.")}
    assert pooling
    grown: list[dict[str, torch.Tensor]] = []

    def seen(method: Any, *given: Any) -> Any:
        names = take_over(method, *given)
        grown.append({name: method.state_dict()[name].clone() for name in pooling})
        return names

    monkeypatch.setattr("fenlei.training.extend.take_over", seen)
    new = write_jsonl(tmp_path / "new.jsonl", [{**row, "text": (row["text"] + "。") * 12} for row in weather()])
    result = extend(tmp_path / "run", new, replay=data, out=tmp_path / "out", max_steps=24, learning_rate=5e-3, batch_size=16, **QUICK)
    assert all(torch.equal(grown[0][name], weight) for name, weight in pooling.items())
    assert (tmp_path / "out" / "model" / POOLING_FILE).exists()
    assert result.changes[0].after > result.changes[0].before - 0.3
    answers = Classifier.load(tmp_path / "out", device="cpu").predict([(row["text"] + "。") * 12 for row in weather()])
    assert np.mean([one.label == NEW for one in answers]) > 0.6


def test_a_hierarchy_stays_one(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """A new label below a known one is measured at both levels, as those of the run were."""
    above = {"体育": "社会", "财经": "社会", "科技": "自然"}
    data = write_jsonl(tmp_path / "levels.jsonl", [{**row, "label": f"{above[row['label']]}##{row['label']}"} for row in toy_rows])
    train(data, model=str(tiny_qwen), out=tmp_path / "run", level_separator="##", max_steps=4, **LORA, **QUICK)
    new = write_jsonl(tmp_path / "new.jsonl", [{**row, "label": f"自然##{NEW}"} for row in weather()])
    (tmp_path / "names.txt").write_text(f"自然 ## {NEW}\n", encoding="utf-8")
    extend(tmp_path / "run", new, replay=data, out=tmp_path / "out", class_file=str(tmp_path / "names.txt"), max_steps=2, **QUICK)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["labels"] == [*read_manifest(tmp_path / "run")["labels"], f"自然##{NEW}"]
    assert manifest["level_separator"] == "##"
    measured = evaluate_run(tmp_path / "out", new, device="cpu")
    assert [(one.level, one.classes) for one in measured.levels] == [(1, 2), (2, 4)]
    assert measured.levels[0].accuracy >= measured.levels[1].accuracy


@pytest.fixture(scope="module")
def calibrated(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with dev rows enough to calibrate, its data beside it, and dev rows of the new class too."""
    folder = tmp_path_factory.mktemp("calibrated")
    rows = [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
    data = write_jsonl(folder / "train.jsonl", rows)
    dev = write_jsonl(folder / "dev.jsonl", [{**row, "text": f"{row['text']}。"} for row in rows])
    options = {"learning_rate": 0.02, "batch_size": 16, "max_steps": 40, "dev": str(dev)}
    train(data, model=str(tiny_qwen), out=folder / "run", **options, **LORA, **QUICK)
    write_jsonl(folder / "new.jsonl", weather())
    write_jsonl(folder / "all_dev.jsonl", [*rows, *({**row, "text": f"{row['text']}。"} for row in weather())])
    return folder


def extended(calibrated: Path, out: Path, **options: Any) -> Path:
    given = {"replay": calibrated / "train.jsonl", "dev": str(calibrated / "all_dev.jsonl"), "batch_size": 16, **options}
    return extend(calibrated / "run", calibrated / "new.jsonl", out=out, **given, **QUICK).training.out


@pytest.mark.usefixtures("exact")  # a few large steps: what a processor computes in decides where they end
def test_what_the_run_says_of_known_classes_is_learned_too(calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the run as a teacher the new one says of the old labels more nearly what the run said than with labels alone."""
    texts = [json.loads(line)["text"] for line in (calibrated / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    said = torch.from_numpy(logits(calibrated / "run", texts))
    apart: dict[float, float] = {}
    for share in (0.0, TEACHER_SHARE):
        monkeypatch.setattr("fenlei.training.lessons.TEACHER_SHARE", share)
        out = extended(calibrated, tmp_path / f"out{share}", max_steps=20, learning_rate=0.01)
        apart[share] = float(teacher_divergence(torch.from_numpy(logits(out, texts)), said).mean())
    assert apart[TEACHER_SHARE] < 0.8 * apart[0.0]


def test_the_teacher_is_the_run_itself(calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loss is given beside the labels are the run's own logits of the rows, over the labels it knows."""
    told: list[Taught] = []

    def recorded(labels_alone: Loss) -> Loss:
        loss = taught_loss(labels_alone)

        def recording(logits: torch.Tensor, rows: Any) -> torch.Tensor:
            told.append(rows)
            return loss(logits, rows)

        return recording

    monkeypatch.setattr("fenlei.training.extend.taught_loss", recorded)
    extended(calibrated, tmp_path / "out", max_steps=2)
    rows = [
        json.loads(line) for name in ("new", "train") for line in (calibrated / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    said = logits(calibrated / "run", [row["text"] for row in rows])
    for batch in told:
        for teacher in batch.teacher.numpy():
            assert np.abs(said - teacher).max(axis=1).min() < 1e-4
    assert {3} < {int(label) for batch in told for label in batch.gold}


def test_the_teacher_says_what_the_run_answers_with(calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier extension took back of its new classes is not learned again."""
    shutil.copytree(calibrated / "run", tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    scaling = {"scale": [1 / manifest["temperature"]] * 3, "bias": [0.0, 0.0, -1.5]}
    write_manifest(tmp_path / "run", {**manifest, "vector_scaling": scaling})
    told: list[torch.Tensor] = []
    monkeypatch.setattr("fenlei.training.extend.taught", lambda gold, teacher: told.append(teacher) or taught(gold, teacher))
    given = {"replay": calibrated / "train.jsonl", "dev": str(calibrated / "all_dev.jsonl"), "batch_size": 16, "max_steps": 1}
    for run in (calibrated / "run", tmp_path / "run"):
        extend(run, calibrated / "new.jsonl", out=tmp_path / f"out_{len(told)}", **given, **QUICK)
    taken_back = torch.tensor([0.0, 0.0, -1.5 * manifest["temperature"]])
    torch.testing.assert_close(told[1], told[0] + taken_back, atol=1e-4, rtol=1e-4)


def test_rows_of_the_replay_say_nothing_of_how_often_classes_come(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No summand is fitted to dev rows that were set aside from new rows and a thinned replay; a file has classes as often as they come."""
    found: dict[str, Any] = {}

    def seen(*given: Any, **named: Any) -> Any:
        found.update(known=given[-1], **named)
        return make_promises(*given, **named)

    monkeypatch.setattr("fenlei.training.finish.make_promises", seen)
    monkeypatch.setattr("fenlei.evaluation.calibration.VECTOR_ROWS", 5)
    monkeypatch.setattr("fenlei.evaluation.calibration._explains_better", lambda *given: True)
    run = with_other_files(calibrated / "run", tmp_path / "run")
    given = {"replay": calibrated / "train.jsonl", "batch_size": 16, "max_steps": 1, "dev_ratio": 0.8, "min_confidence": 0.5, **QUICK}
    aside = extend(run, calibrated / "new.jsonl", out=tmp_path / "aside", **given).training
    assert not found["dev_is_natural"]
    assert read_manifest(aside.out)["calibrated"]
    assert read_manifest(aside.out)["vector_scaling"] is None
    assert OF_A_SAMPLE in aside.notes
    flattered = next(note for note in aside.notes if note.startswith("replayed rows may have trained the run"))
    assert "and so are the confidence, the threshold and the sets" in flattered
    card = (aside.out / "README.md").read_text(encoding="utf-8")
    assert "some of which it may have learned from before" in card
    assert "nothing else was chosen by" not in card
    file = extended(calibrated, tmp_path / "file", max_steps=1)
    assert found == {"known": 3, "dev_is_natural": True}
    assert read_manifest(file)["vector_scaling"] is not None


@pytest.mark.parametrize(
    "command", [["predict", "RUN", "in.jsonl", "--engine", "ray"], ["evaluate", "RUN", "in.jsonl"]], ids=lambda one: one[0]
)
def test_what_dev_is_of_is_said_again_where_a_promise_is_asked_for(
    command: list[str], calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stops(*given: Any, **options: Any) -> None:
        raise ConfigError("far enough")

    monkeypatch.setattr("fenlei.inference.distributed.predict_distributed", stops)
    monkeypatch.setattr("fenlei.report.evaluation.evaluate_run", stops)
    shutil.copytree(calibrated / "run", tmp_path / "run")
    origin = {"dev_is_natural": False, "dev_may_have_trained": True}
    write_manifest(tmp_path / "run", {**read_manifest(tmp_path / "run"), "extended_from": origin})
    asked = [str(tmp_path / "run") if word == "RUN" else word for word in command]
    for promise in ([], ["--min-confidence", "0.5"]):
        for words in (asked, ["predict", str(tmp_path / "run"), "--text", "晴"]):
            main([*words, "--device", "cpu", *promise])
            told = capsys.readouterr().err
            assert [note in told for note in (OF_A_SAMPLE, MAY_HAVE_TRAINED)] == [bool(promise)] * 2


def test_dev_of_known_classes_is_that_of_the_run_where_its_file_lies(calibrated: Path, tmp_path: Path) -> None:
    """The replay has trained the run, which is right on nearly all of it: confidence, threshold and sets are not to be fitted there."""
    given = {"replay": calibrated / "train.jsonl", "batch_size": 16, "max_steps": 1, **QUICK}
    out = extend(calibrated / "run", calibrated / "new.jsonl", out=tmp_path / "out", **given).training.out
    before, after = read_manifest(calibrated / "run"), read_manifest(out)
    for part in DEV:
        own = before["data"][part]
        assert after["data"][part].keys() == {*own, str(calibrated / "new.jsonl")}
        assert after["data"][part].items() > own.items()
    assert after["calibrated"]
    assert not after["extended_from"]["dev_may_have_trained"]
    assert "nothing else was chosen by" in (out / "README.md").read_text(encoding="utf-8")


def test_an_extended_run_is_calibrated_anew(calibrated: Path, tmp_path: Path) -> None:
    out = extended(calibrated, tmp_path / "out", max_steps=4)
    before, after = read_manifest(calibrated / "run"), read_manifest(out)
    assert before["calibrated"]
    assert after["calibrated"]
    dev = load_scores(out)["calibrating"]
    assert dev.logits.shape[1] == 4
    fitted = fit_calibration(dev.logits, dev.label_ids, known=3)
    assert Calibration.from_json(after) == fitted != Calibration.from_json(before)


def test_exemplars_of_rows_with_candidates_are_chosen_and_not_just_taken() -> None:
    """A label that a row does not offer scores -inf, and no mean is near to that."""
    rows = [Example(f"{at}", "a", "x", at + 1) for at in range(30)]
    likely = {row.text: 0.9 if at % 3 else 0.1 for at, row in enumerate(rows)}

    def said(asked: Sequence[Example], states: bool) -> Scores:
        shares = np.array([[likely[row.text], 1 - likely[row.text], 0.0] for row in asked], dtype=np.float32)
        with np.errstate(divide="ignore"):
            return Scores(np.log(shares), np.zeros(len(asked), dtype=np.int32))

    for seed in range(5):
        chosen = choose_exemplars(rows, 3, said, seed)
        assert sorted(likely[row.text] for row in chosen) == [0.1, 0.9, 0.9]

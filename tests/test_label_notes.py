"""Labels that say more than their name, from a labels.yaml to the prompt: in training, zero-shot, and for a run that is there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_NEWS, write_jsonl

from fenlei import Classifier, Client, train
from fenlei.artifact import read_manifest
from fenlei.cli.main import main
from fenlei.cli.predict import _reach
from fenlei.cli.predict_ray import predict_on_ray
from fenlei.config import RunConfig, TrustConfig
from fenlei.data.label_file import given_labels, read_label_file
from fenlei.errors import ConfigError
from fenlei.inference.distributed import RunToLoad
from fenlei.inference.loading import load_run
from fenlei.labels import LabelNote
from fenlei.text.asking import QuestionEncoder
from fenlei.training.setup import UNREAD_NOTES, prepare

QUICK: dict[str, Any] = {"method": "generate", "tuning": "none", "device": "cpu", "baseline": False, "max_length": 300}
TEXTS = ["国足热身赛两球取胜", "央行下调利率"]
YAML = "- name: 科技\n  description: 芯片和航天\n- name: 体育\n  description: 比赛和球队\n  aliases: [运动]\n- 财经\n"
SPORT = {"description": "比赛和球队", "aliases": ["运动"]}


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy rows, thrice: enough of them to calibrate."""
    rows = TOY_NEWS.read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("news")
    for part in ("train", "dev"):
        (folder / f"{part}.jsonl").write_text(rows, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def plain(tiny_qwen: Path, news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows names alone."""
    return train(
        str(news / "train.jsonl"), dev=str(news / "dev.jsonl"), model=str(tiny_qwen), out=tmp_path_factory.mktemp("plain") / "run", **QUICK
    ).out


@pytest.fixture(scope="module")
def described(tiny_qwen: Path, news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained with what its labels mean."""
    folder = tmp_path_factory.mktemp("described")
    (folder / "labels.yaml").write_text(YAML, encoding="utf-8")
    options = QUICK | {"dev": str(news / "dev.jsonl"), "model": str(tiny_qwen), "class_file": str(folder / "labels.yaml")}
    return train(str(news / "train.jsonl"), out=folder / "run", **options).out


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def prompt(run: Path | Classifier) -> str:
    """What is read before the text."""
    encoder = load_run(run, device="cpu").encoder if isinstance(run, Path) else run._run.encoder
    assert isinstance(encoder, QuestionEncoder)
    return str(encoder._tokenizer.decode(encoder.question().before))


def test_a_run_is_trained_with_what_its_labels_mean(described: Path, labels: Path) -> None:
    manifest = read_manifest(described)
    assert manifest["labels"] == ["科技", "体育", "财经"], "the order is that of the file"
    assert manifest["instruction"]["notes"]["体育"] == SPORT
    assert "比赛和球队" in prompt(described)
    (row,) = Classifier.load(described, device="cpu").with_notes(read_label_file(labels)).predict(TEXTS[:1], labels=manifest["labels"])
    assert row.calibrated, "nothing is said but what it was calibrated with"


def test_a_run_is_told_what_labels_mean(plain: Path, labels: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, ({"text": text} for text in TEXTS))
    command = ["predict", str(plain), str(source), "--out", str(out), "--labels", str(labels), "--device", "cpu", "--probabilities"]
    assert main(command) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    run, names = Classifier.load(plain, device="cpu"), ["科技", "体育", "财经"]
    told = run.with_notes(read_label_file(labels))
    for row, expected, nameless in zip(rows, told.predict(TEXTS, labels=names), run.predict(TEXTS, labels=names), strict=True):
        assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        assert row["probabilities"] != pytest.approx(nameless.probabilities, abs=1e-5)
        assert not row["calibrated"]
    assert "比赛和球队" in prompt(told)
    assert told.describe() == RunToLoad(str(plain), "cpu", notes=read_label_file(labels)).describe() != run.describe()


def test_promises_are_asked_for_among_the_labels_of_the_run_alone(plain: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", str(plain), "--text", TEXTS[0], "--json", "--device", "cpu", "--min-confidence", "0.5", "--labels"]
    for given in ("科技,体育", str(labels)):
        assert main([*command, given]) == 1
        assert "hold for the labels that the run was calibrated on" in " ".join(capsys.readouterr().err.split())
    own = Classifier.load(plain, device="cpu").labels
    assert main([*command, ",".join(reversed(own))]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["calibrated"]
    assert row["abstained"] is (row["confidence"] < 0.5)


def test_a_cluster_keeps_promises_where_nothing_else_is_said_of_the_labels(
    described: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    distributed = "fenlei.inference.distributed.predict_distributed"
    monkeypatch.setattr(distributed, lambda *given, labels, **options: asked.append(labels))
    command = (str(described), "in.jsonl", "out.jsonl", None, None, None, "cpu", TrustConfig(min_confidence=0.3), False, False)
    predict_on_ray(*command, str(labels))  # type: ignore[arg-type]
    assert asked == [["科技", "体育", "财经"]]
    labels.write_text(YAML.replace("球队", "胜负"), encoding="utf-8")
    with pytest.raises(ConfigError, match="hold for the labels that the run was calibrated on"):
        predict_on_ray(*command, str(labels))  # type: ignore[arg-type]


def test_what_was_calibrated_is_said_as_before(plain: Path, labels: Path) -> None:
    run = Classifier.load(plain, device="cpu")
    assert run.predict(TEXTS)[0].calibrated
    told = run.with_notes(read_label_file(labels))
    assert not told.predict(TEXTS)[0].calibrated
    assert not told.predict(TEXTS, labels=run.labels)[0].calibrated
    named = run.with_notes({name: LabelNote() for name in run.labels})
    assert named.describe() == run.describe()
    assert named.predict(TEXTS) == run.predict(TEXTS)
    other = run.with_notes({"天气": LabelNote("晴雨冷暖")})
    assert other.predict(TEXTS) == run.predict(TEXTS), "nothing else is said of the run's own labels"


def test_a_head_says_that_it_learns_from_rows_alone(tiny_qwen: Path, news: Path, labels: Path) -> None:
    options = {"data": str(news / "train.jsonl"), "model": str(tiny_qwen), "tuning": "frozen", "device": "cpu"}
    assert UNREAD_NOTES in prepare(RunConfig.from_options({**options, "class_file": str(labels)})).notes
    assert UNREAD_NOTES not in prepare(RunConfig.from_options(options)).notes


def test_codes_are_names_as_they_are_written(tmp_path: Path) -> None:
    """To YAML 0111 is octal, 12:30 a number of base 60, and 0x1F one of base 16."""
    path = tmp_path / "labels.yaml"
    path.write_text("0111: 稻谷种植\n0112: 小麦种植\n12:30: 0x1F\n", encoding="utf-8")
    assert read_label_file(path) == {"0111": LabelNote("稻谷种植"), "0112": LabelNote("小麦种植"), "12:30": LabelNote("0x1F")}
    path.write_text("- 010\n- 8\n- {name: 1_000, aliases: [00]}\n", encoding="utf-8")
    assert read_label_file(path) == {"010": LabelNote(), "8": LabelNote(), "1_000": LabelNote("", ("00",))}


def test_labels_are_named_or_in_a_file(labels: Path) -> None:
    assert given_labels("财经，体育、科技, 财经") == dict.fromkeys(("财经", "体育", "科技"), LabelNote())
    assert given_labels(str(labels)) == read_label_file(labels)
    names = labels.with_name("class.txt")
    names.write_text("财经\n体育，彩票\n", encoding="utf-8")
    assert list(given_labels(str(names))) == ["财经", "体育，彩票"]
    assert list(given_labels("财经,体育，彩票", {"财经", "体育，彩票"})) == ["财经", "体育，彩票"]
    for one in ("财经", "no-such.txt", "财经,财经", ","):
        with pytest.raises(ConfigError, match="at least two labels to choose among, found"):
            given_labels(one, {"体育", "科技"})
    assert list(given_labels("财经", {"财经", "体育"})) == ["财经"]  # a run with several labels a text may be asked for one
    assert len(given_labels(",".join(f"类别{at}" for at in range(5000)))) == 5000  # longer than a file's name may be


def test_a_service_is_told_names_alone_and_that_is_said(
    labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "takes_labels", True)
    monkeypatch.setattr(Client, "labels", ())
    for given, said in ((str(labels), True), ("体育,财经", False)):
        _, among = _reach("http://127.0.0.1:1", given)
        assert among is not None
        assert set(among) <= {"科技", "体育", "财经"}
        assert ("descriptions and aliases stay here" in " ".join(capsys.readouterr().err.split())) is said


def test_zero_shot_on_a_file_from_the_command_line(tiny_qwen: Path, labels: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("id,text\n" + "".join(f"{at},{text}\n" for at, text in enumerate(TEXTS)), encoding="utf-8")
    command = ["predict", str(tiny_qwen), str(source), "--out", str(out), "--labels", str(labels), "--device", "cpu"]
    assert main(command) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    expected = Classifier.zero_shot(str(tiny_qwen), labels, device="cpu").predict(TEXTS)
    assert [(row["id"], row["text"], row["prediction"]) for row in rows] == [
        (str(at), text, one.label) for at, (text, one) in enumerate(zip(TEXTS, expected, strict=True))
    ]
    assert not any(row["calibrated"] for row in rows)


def test_zero_shot_is_shown_examples_as_a_run_is(tiny_qwen: Path, news: Path, tmp_path: Path) -> None:
    options = QUICK | {"dev": str(news / "dev.jsonl"), "model": str(tiny_qwen)}
    run = Classifier.load(train(str(news / "train.jsonl"), shots=3, out=tmp_path / "run", **options).out, device="cpu")
    shown = [(text, label) for text, label in run.describe()["instruction"]["examples"]]
    assert len(shown) == 3
    zero = Classifier.zero_shot(str(tiny_qwen), run.labels, examples=shown, device="cpu", max_length=300)
    assert all(text in prompt(zero) for text, _ in shown)
    np.testing.assert_array_equal(zero.logits(TEXTS).logits, run.logits(TEXTS).logits)
    with pytest.raises(ConfigError, match="examples: label '天气' is not one of"):
        Classifier.zero_shot(str(tiny_qwen), run.labels, examples=[("明日有雨", "天气")])
    with pytest.raises(ConfigError, match="one label each"):
        Classifier.zero_shot(str(tiny_qwen), run.labels, examples=shown, multi_label=True)


def test_zero_shot_reads_single_texts(tiny_qwen: Path) -> None:
    with pytest.raises(ConfigError, match="a place for a second text"):
        Classifier.zero_shot(str(tiny_qwen), ["体育", "财经"], prompt="{labels} {text} {pair}")


def test_notes_may_be_plain_descriptions_and_labels_are_texts(tiny_qwen: Path) -> None:
    plain, notes = {"科技": "芯片和航天", "体育": "比赛和球队"}, {"科技": LabelNote("芯片和航天"), "体育": LabelNote("比赛和球队")}
    described = prompt(Classifier.zero_shot(str(tiny_qwen), notes, device="cpu"))
    assert "芯片和航天" in described
    assert prompt(Classifier.zero_shot(str(tiny_qwen), plain, device="cpu")) == described
    assert prompt(Classifier.zero_shot(str(tiny_qwen), list(plain), device="cpu").with_notes(plain)) == described
    labels: Any
    for labels, wrong in (([0, 1], "0"), (["科技", None], "None")):
        with pytest.raises(ConfigError, match=f"labels: {wrong} is no label"):
            Classifier.zero_shot(str(tiny_qwen), labels)

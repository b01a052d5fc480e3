"""New classes for a finished run: what is kept, what grows, what is said of the old ones, and what cannot be."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
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
from fenlei.config import DataConfig, RunConfig
from fenlei.data.examples import Example
from fenlei.data.extension import LEAST_REPLAYED, load_extension
from fenlei.data.splits import Dataset
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.evaluation.change import RecallChange, recall_changes
from fenlei.evaluation.metrics import ClassMetrics
from fenlei.inference.loading import load_run
from fenlei.inference.scoring import score
from fenlei.labels import LabelSet
from fenlei.models.backbone import load_tokenizer
from fenlei.report.evaluation import evaluate_run
from fenlei.text.prompts import special_ids
from fenlei.training.exemplars import herd, load_exemplars
from fenlei.training.extend import REPORT, _extended_config, _untested, _with_passes, extend
from fenlei.training.extension_report import Cost, Extension, card_section
from fenlei.training.former_answers import former_answers
from fenlei.training.growth import settle_new_rows, take_over
from fenlei.training.held_out import DEV, numbers
from fenlei.training.replay_prior import counts_of_all, prior_of_replay, under_prior
from fenlei.training.setup import prepare

TEXTS = ["国足热身赛两球取胜", "央行下调利率", "今天晴转多云气温回升"]
NO_DEV = (lambda row: False,) * 2
"""Of rows none of which selected, nor calibrated, a run."""


@pytest.fixture(scope="module")
def old(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run that has learned the toy rows, which keeps exemplars, its data beside it."""
    folder = tmp_path_factory.mktemp("old")
    data = folder / "toy_news.jsonl"
    data.write_bytes(TOY_NEWS.read_bytes())
    options = {"tuning": "lora", "lora_rank": 4, "learning_rate": 0.02, "batch_size": 16, "max_steps": 60, "dev_ratio": 0.3}
    train(data, model=str(tiny_qwen), out=folder / "run", store_exemplars=5, **options, **QUICK)
    write_jsonl(folder / "new.jsonl", weather())
    return folder


@pytest.fixture(scope="module")
def extended(old: Path) -> Any:
    options = {"learning_rate": 1e-4, "max_steps": 10, "batch_size": 16}
    return extend(old / "run", old / "new.jsonl", replay=old / "toy_news.jsonl", out=old / "extended", **options, **QUICK)


def test_the_new_class_is_learned_and_the_old_ones_are_kept(old: Path, extended: Any) -> None:
    manifest = read_manifest(old / "extended")
    assert manifest["labels"] == [*read_manifest(old / "run")["labels"], NEW]
    classifier = Classifier.load(old / "extended", device="cpu")
    assert np.mean([one.label == NEW for one in classifier.predict([row["text"] for row in weather()])]) > 0.6
    before, after = extended.changes[0].before, extended.changes[0].after
    assert before > 0.5
    assert after > before - 0.3


@pytest.mark.parametrize(("tuning", "learns"), [("lora", "lora_"), ("frozen", "score")])
def test_a_run_trained_in_int8_is_extended(tuning: str, learns: str, old: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    options = {"tuning": tuning, "lora_rank": 4, "int8": True, "max_steps": 4}
    train(old / "toy_news.jsonl", model=str(tiny_qwen), out=tmp_path / "run", **options, **QUICK)
    extend(tmp_path / "run", old / "new.jsonl", replay=old / "toy_news.jsonl", out=tmp_path / "extended", max_steps=2, **QUICK)
    before, after = (load_run(tmp_path / name, device="cpu", fold=True).method.state_dict() for name in ("run", "extended"))
    frozen = [name for name in before if "base_layer" in name or "embed_tokens" in name]
    assert frozen
    for name in frozen:
        assert torch.equal(before[name], after[name])
    assert any(learns in name and not torch.equal(weight, after[name][: len(weight)]) for name, weight in before.items())


def test_the_run_it_comes_from_is_left_alone(old: Path, extended: Any) -> None:
    manifest = read_manifest(old / "run")
    Classifier.load(old / "run", device="cpu", verify=True)
    assert NEW not in manifest["labels"]


def test_rows_that_were_dev_stay_dev(old: Path, extended: Any) -> None:
    """The data file is the replay: what the run kept from training stays out of it, and the report stands on it."""
    before, after = read_manifest(old / "run")["data"], read_manifest(old / "extended")["data"]
    source = str(old / "toy_news.jsonl")
    for part in DEV:
        assert after[part][source] == before[part][source], "what chose the weights that are gone on with calibrates nothing"
    assert extended.changes[0].rows == sum(len(numbers(before[part][source])) for part in DEV)


def test_new_rows_give_dev_the_share_that_known_ones_gave(old: Path, extended: Any, tmp_path: Path) -> None:
    """With another share, a summand would be fitted to how often new classes are in dev, which is not how often they come."""
    manifest = read_manifest(old / "extended")
    assert sum(len(numbers(manifest["data"][part][str(old / "new.jsonl")])) for part in DEV) == 6
    assert manifest["extended_from"]["dev_is_natural"]
    fewer = {"replay": old / "toy_news.jsonl", "dev_ratio": 0.1, "max_steps": 1, **QUICK}
    out = extend(old / "run", old / "new.jsonl", out=tmp_path / "fewer", **fewer).training.out
    assert not read_manifest(out)["extended_from"]["dev_is_natural"]


def test_rows_set_aside_for_test_are_never_learned(
    toy_file: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data file is the replay: what is to test the run is in no part of the extended run, nor of the one after it."""
    options = {"tuning": "frozen", "test_ratio": 0.2, "store_exemplars": 2, "max_steps": 1}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run0", **options, **QUICK)
    tested = {row["text"] for row in json_rows(tmp_path / "run0" / "test.jsonl")}
    assert len(tested) == 12
    learned: list[Dataset] = []

    def seen(*given: Any, **named: Any) -> Any:
        learned.append(named["dataset"])
        return prepare(*given, **named)

    monkeypatch.setattr("fenlei.training.extend.prepare", seen)
    replay = [toy_file]
    for number, name in enumerate((NEW, "交通")):
        new = write_jsonl(tmp_path / f"new{number}.jsonl", [{"text": f"{name}{row['text']}", "label": name} for row in weather()])
        said: list[str] = []
        given = {"replay": replay, "out": tmp_path / f"run{number + 1}", "max_steps": 1, "announce": said.append}
        extend(tmp_path / f"run{number}", new, **given, **QUICK)
        dataset = learned[-1]
        assert not tested & {row.text for row in (*dataset.train, *dataset.selecting, *dataset.calibrating)}
        assert {row.label for row in dataset.train} == {*read_manifest(tmp_path / f"run{number}")["labels"], name}  # of every file
        assert "12 rows of the replay are test rows of the run, and are left out" in said
        replay = [*replay, new]
    shutil.copytree(tmp_path / "run0", tmp_path / "all")
    manifest = read_manifest(tmp_path / "run0")
    write_manifest(tmp_path / "all", {**manifest, "data": {**manifest["data"], "test": {str(toy_file): "1-60"}}})
    with pytest.raises(DataError, match="every row of the replay is one of its test rows"):
        extend(tmp_path / "all", new, replay=toy_file, out=tmp_path / "out", **QUICK)
    del manifest["data"]["test"]  # as an older fenlei wrote it
    write_manifest(tmp_path / "all", manifest)
    extend(tmp_path / "all", new, replay=toy_file, out=tmp_path / "out", max_steps=1, announce=said.append, **QUICK)
    assert any("did not write down which 12 rows were set aside for test" in note for note in said)
    exemplars = load_exemplars(tmp_path / "all")
    assert _untested(tmp_path / "all", manifest, exemplars) == (exemplars, [])  # none of them is a test row


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """What each extension would learn from; it ends, with "enough", before its network is built."""
    found: list[Dataset] = []

    def seen(*given: Any, dataset: Dataset, **named: Any) -> Any:
        found.append(dataset)
        raise DataError("enough")

    monkeypatch.setattr("fenlei.training.extend.prepare", seen)
    return found


def test_texts_are_read_from_the_column_that_the_run_reads(
    tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path, datasets: list[Dataset]
) -> None:
    """It was found by its name; in the new rows and the replay `content` would be found before it."""
    titles = write_jsonl(tmp_path / "titles.jsonl", [{"title": row["text"], "label": row["label"]} for row in toy_rows])
    train(titles, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", max_steps=1, **QUICK)
    replay, new, dev = (
        write_jsonl(tmp_path / name, [{"content": "正文", "title": row["text"], "label": row["label"]} for row in rows])
        for name, rows in (("replay.jsonl", toy_rows), ("new.jsonl", weather()), ("dev.jsonl", [*toy_rows[:20], *weather(4)]))
    )
    for options in ({}, {"dev": str(dev)}):
        with pytest.raises(DataError, match="enough"):
            extend(tmp_path / "run", new, replay=replay, out=tmp_path / "out", **options, **QUICK)
        rows = (*datasets[-1].train, *datasets[-1].selecting, *datasets[-1].calibrating)
        assert {row.text_columns for row in rows} == {("title",)}


def test_a_copy_of_the_file_gives_no_dev_row_away(old: Path, tmp_path: Path, datasets: list[Dataset]) -> None:
    """A row was added, so none of its rows is known by its line; dev is that of the file itself, and its texts are not learned."""
    copy = write_jsonl(tmp_path / "copy.jsonl", [*json_rows(old / "toy_news.jsonl"), {"text": "主场又赢一球", "label": "体育"}])
    with pytest.raises(DataError, match="enough"):
        extend(old / "run", old / "new.jsonl", replay=copy, out=tmp_path / "out", **QUICK)
    (dataset,) = datasets
    dev = [row for row in (*dataset.selecting, *dataset.calibrating) if row.label != NEW]
    assert {row.source for row in dev} == {str(old / "toy_news.jsonl")}
    assert len(dev) == sum(len(numbers(read_manifest(old / "run")["data"][part][str(old / "toy_news.jsonl")])) for part in DEV)
    assert str(copy) in {row.source for row in dataset.train}
    assert not {row.text for row in dev} & {row.text for row in dataset.train}


def test_exemplars_are_enough_where_the_files_of_before_have_other_columns(old: Path, tmp_path: Path) -> None:
    """The run was extended from rows with these columns, and so its dev rows of the first file are not to be read."""
    run = old / "run"
    for name, told in ((NEW, False), ("交通", True)):
        new = write_jsonl(tmp_path / f"{name}.jsonl", [{"body": f"{name}{row['text']}", "kind": name} for row in weather()])
        given = {"text_column": "body", "label_column": "kind", "max_steps": 1, **QUICK}
        run = extend(run, new, out=tmp_path / name, **given).training.out
        assert read_manifest(run)["extended_from"]["dev_may_have_trained"] is told


def test_other_files_are_read_as_those_that_the_first_run_learned_from(old: Path, tmp_path: Path) -> None:
    """And not as the new rows, whose columns may have other names."""
    new = write_jsonl(tmp_path / "new.jsonl", [{"content": row["text"], "类别": row["label"]} for row in weather()])
    given = {"replay": old / "toy_news.jsonl", "max_steps": 1, **QUICK}
    manifest = read_manifest(extend(old / "run", new, out=tmp_path / "out", **given).training.out)
    assert (manifest["read_from"], manifest["label_column"]) == (["text"], "label")


def test_the_report_counts_what_it_says(old: Path, extended: Any) -> None:
    """Before and after, taken anew from both folders."""
    told = json.loads((old / "extended" / REPORT).read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (old / "toy_news.jsonl").read_text(encoding="utf-8").splitlines()]
    data = read_manifest(old / "run")["data"]
    ranges = [pair for part in ("selecting", "calibrating") for pair in data[part][str(old / "toy_news.jsonl")].split(",")]
    held = [rows[line - 1] for pair in ranges for line in range(int(pair.split("-")[0]), int(pair.split("-")[-1]) + 1)]
    for folder, key in (("run", "before"), ("extended", "after")):
        answers = Classifier.load(old / folder, device="cpu").predict([row["text"] for row in held])
        right = np.mean([one.label == row["label"] for one, row in zip(answers, held, strict=True)])
        assert told["known_classes"][0][key] == pytest.approx(right)
    for one in told["known_classes"]:
        assert one["interval"][0] <= one["change"] <= one["interval"][1]
    assert told["new_classes"][0]["name"] == NEW
    assert told["cost"]["new_rows"] + told["cost"]["replayed_rows"] == read_manifest(old / "extended")["data"]["rows"]["train"]
    assert 0 < told["cost"]["share_of_retraining"]
    assert "## Extended" in (old / "extended" / "README.md").read_text(encoding="utf-8")


def test_texts_are_read_as_the_run_has_read_them(old: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is older than the first token goes on without one, and what it said before is what it says."""
    with monkeypatch.context() as patch:
        patch.setattr("fenlei.training.choices.set_first_token", lambda tokenizer, prompt: None)
        train(old / "toy_news.jsonl", model=str(tiny_qwen), out=tmp_path / "run", tuning="lora", lora_rank=4, max_steps=2, **QUICK)
    said: list[tuple[list[str], np.ndarray]] = []

    def heard(setup: Any, answered: Any, known: LabelSet, rows: Any, *encoded: Any) -> Any:
        found = former_answers(setup, answered, known, rows, *encoded)
        said.append(([row.text for row in rows], found.logits))
        return found

    monkeypatch.setattr("fenlei.training.extend.former_answers", heard)
    extend(tmp_path / "run", old / "new.jsonl", replay=old / "toy_news.jsonl", out=tmp_path / "extended", max_steps=1, **QUICK)
    assert [special_ids(load_tokenizer(tmp_path / name / "model")) for name in ("run", "extended")] == [([], [])] * 2
    texts, logits = said[0]
    np.testing.assert_allclose(logits, Classifier.load(tmp_path / "run", device="cpu").logits(texts).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny_qwen", {"tuning": "full"}),
        ("tiny_qwen", {"tuning": "lora", "lora_rank": 2}),
        ("tiny_qwen", {"tuning": "frozen", "head": "mlp"}),
        ("tiny_bert", {"tuning": "lora"}),
    ],
)
def test_the_network_grows_and_keeps_every_weight(
    model: str, options: dict[str, Any], toy_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Before it learns, the grown network gives the old labels the logits that the run gives them."""
    base: Path = request.getfixturevalue(model)
    train(toy_file, model=str(base), out=tmp_path / "run", max_steps=3, learning_rate=0.01, **options, **QUICK)
    run = load_run(tmp_path / "run", device="cpu", fold=True)
    rows = write_jsonl(tmp_path / "all.jsonl", [*json_rows(toy_file), *weather()])

    setup = prepare(RunConfig().replace(data=str(rows), model=str(base), device="cpu", **options))
    assert setup.dataset.labels.names[:3] == run.labels.names
    grown = take_over(setup.method, run.method, 3, 4)
    assert all("score" in name or "classifier" in name for name in grown)
    assert grown
    setup.method.eval()
    ours, theirs = (score(one, run.encoder.encode(TEXTS), n).logits for one, n in ((setup.method, 4), (run.method, 3)))  # type: ignore[arg-type]
    np.testing.assert_allclose(ours[:, :3], theirs, atol=1e-6)


def test_new_rows_settle_and_nothing_else_moves(old: Path, tiny_qwen: Path) -> None:

    rows = [json.loads(line) for line in (old / "toy_news.jsonl").read_text(encoding="utf-8").splitlines()]
    both = write_jsonl(old / "both.jsonl", [*rows, *weather()])
    config = RunConfig().replace(data=str(both), model=str(tiny_qwen), device="cpu", tuning="lora", lora_rank=4)
    setup = prepare(config)
    grown = take_over(setup.method, load_run(old / "run", device="cpu", fold=True).method, 3, 4)
    before = {name: weight.clone() for name, weight in setup.method.state_dict().items()}
    states = torch.randn(40, 32)
    states[:20] += 3.0
    ids = np.repeat([3, 0], 20)
    settle_new_rows(setup.method, grown, states.numpy(), ids, 3, torch.zeros(4))  # type: ignore[arg-type]
    for name, weight in setup.method.state_dict().items():
        kept = weight[:3] if name in grown else weight
        assert torch.equal(kept, before[name][: len(kept)] if name in grown else before[name]), name
    with torch.inference_mode():
        assert (setup.method.classify(states).argmax(1)[:20] == 3).all()  # type: ignore[union-attr, operator]
    assert all(weight.grad is None for weight in setup.method.parameters())


def test_new_rows_settle_for_how_often_classes_come(old: Path, tiny_qwen: Path) -> None:
    """Of states that say nothing, the new class gets less where the known ones come four times as often as in training."""
    config = RunConfig().replace(data=str(old / "both.jsonl"), model=str(tiny_qwen), device="cpu", tuning="lora", lora_rank=4)
    write_jsonl(old / "both.jsonl", [*map(json.loads, (old / "toy_news.jsonl").read_text(encoding="utf-8").splitlines()), *weather()])
    setup = prepare(config)
    grown = take_over(setup.method, load_run(old / "run", device="cpu", fold=True).method, 3, 4)
    torch.manual_seed(0)
    states, ids = torch.randn(200, 32), np.tile([3, 0], 100)
    shares = []
    for prior in (torch.zeros(4), torch.tensor([-1.386, -1.386, -1.386, 0.0])):
        settle_new_rows(setup.method, grown, states.numpy(), ids, 3, prior)  # type: ignore[arg-type]
        with torch.inference_mode():
            shares.append(float(setup.method.classify(states).softmax(1)[:, 3].mean()))  # type: ignore[union-attr, operator]
    assert shares[1] < 0.8 * shares[0]


def test_three_times_in_a_row_from_exemplars_alone(old: Path, tmp_path: Path) -> None:
    """No file of the old rows; what the run keeps is carried on, and grows."""
    run, names = with_other_files(old / "run", tmp_path / "first"), ["天气", "交通", "饮食"]
    for number, name in enumerate(names):
        rows = [{"text": f"{row['text'][:-4]}{name}{at}", "label": name} for at, row in enumerate(weather(12))]
        out = tmp_path / f"run{number}"
        result = extend(run, write_jsonl(tmp_path / f"{number}.jsonl", rows), out=out, max_steps=2, **QUICK)
        assert {one.name for one in result.changes} == {None, *read_manifest(run)["labels"]}  # each known class has dev rows
        told = read_manifest(out)["extended_from"]
        assert (told["dev_is_natural"], told["dev_may_have_trained"]) == (False, True)
        kept = Counter(row.label for row in load_exemplars(out))
        assert kept == dict.fromkeys([*read_manifest(old / "run")["labels"], *names[: number + 1]], 5)
        assert {row.where for row in load_exemplars(run)} <= {row.where for row in load_exemplars(out)}
        first = read_manifest(old / "run")["data"]["rows"]["train"]
        assert result.cost.retraining_rows > first + 6 * number
        run = out
    assert read_manifest(run)["labels"][3:] == names
    assert all((old / "toy_news.jsonl").samefile(row.source) for row in load_exemplars(run)[:15])
    Classifier.load(run, device="cpu", verify=True)


def test_exemplars_stand_for_as_many_rows_as_were_learned_from(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many are kept of each class; how often it came the run says, and the extended run goes on to say."""
    shutil.copytree(old / "run", tmp_path / "run0")
    manifest = read_manifest(tmp_path / "run0")
    learned = dict(zip(manifest["labels"], (300, 100, 100), strict=True))
    write_manifest(tmp_path / "run0", {**manifest, "data": {**manifest["data"], "classes": learned}})
    priors: list[torch.Tensor] = []
    monkeypatch.setattr("fenlei.training.extend.under_prior", lambda loss, prior: priors.append(prior) or under_prior(loss, prior))
    for number, name in enumerate((NEW, "交通")):
        new = write_jsonl(tmp_path / f"new{number}.jsonl", [{"text": f"{name}{row['text']}", "label": name} for row in weather()])
        extend(tmp_path / f"run{number}", new, out=tmp_path / f"run{number + 1}", max_steps=1, **QUICK)
        extended = read_manifest(tmp_path / f"run{number + 1}")
        learned[name] = extended["data"]["classes"][name]
        assert extended["extended_from"]["all_classes"] == learned
        assert float(priors[-1][1] - priors[-1][0]) == pytest.approx(np.log(3), abs=1e-5)


def test_herding_follows_the_mean() -> None:
    states = np.random.default_rng(0).normal(size=(200, 8)) + 2.0
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    chosen = herd(states, 12)
    assert len(set(chosen)) == 12
    apart = np.linalg.norm(unit[chosen].mean(0) - unit.mean(0))
    drawn = [np.linalg.norm(unit[np.random.default_rng(seed).permutation(200)[:12]].mean(0) - unit.mean(0)) for seed in range(50)]
    assert apart < min(drawn)
    assert herd(states, 12)[:5] == herd(states, 5)  # any beginning is the best of its length
    assert sorted(herd(states[:4], 9)) == [0, 1, 2, 3]


def test_nothing_is_kept_unasked(toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", max_steps=1, **QUICK)
    assert not (tmp_path / "run" / "exemplars.jsonl").exists()
    with pytest.raises(DataError, match=r"keeps no rows of its 3 classes.*--replay"):
        extend(tmp_path / "run", write_jsonl(tmp_path / "new.jsonl", weather()), out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("was", "asked"), [("full", "frozen"), ("frozen", "full"), ("full", "lora")])
def test_a_run_goes_on_as_it_was_trained(was: str, asked: str, toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """Frozen over a tuned backbone, the head alone would be stored, and vectors of the tuned one kept as those of the base model."""
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning=was, max_steps=1, **QUICK)
    new = write_jsonl(tmp_path / "new.jsonl", weather())
    with pytest.raises(ConfigError, match=rf"tuning '{asked}': .*run goes on as it was trained, '{was}'"):
        extend(tmp_path / "run", new, replay=toy_file, out=tmp_path / "out", tuning=asked, **QUICK)
    assert not (tmp_path / "out").exists()


def rows_of(label: str, count: int, source: str) -> tuple[Example, ...]:
    return tuple(Example(f"{label}{at}", label, source, at + 1) for at in range(count))


@pytest.fixture
def extension(tmp_path: Path) -> Callable[..., Any]:
    def load(new: int, replay: tuple[Example, ...], **options: Any) -> Any:
        rows = [{"text": f"新{at}", "label": "新"} for at in range(new)]
        config = DataConfig(data=str(write_jsonl(tmp_path / "new.jsonl", rows)), **options)
        return load_extension(config, LabelSet(("a", "b")), replay, NO_DEV, seed=0)

    return load


def test_as_many_rows_are_replayed_as_are_new(extension: Callable[..., Any]) -> None:
    found = extension(100, (*rows_of("a", 500, "x"), *rows_of("b", 30, "x")))
    counts = Counter(row.label for part in (found.train, found.selecting, found.calibrating) for row in part)
    assert counts == {"新": 100, "a": 70, "b": 30}
    assert {row.label for row in found.selecting} == {row.label for row in found.calibrating} == {"a", "b", "新"}
    few = extension(4, rows_of("a", 500, "x"))
    assert Counter(row.label for part in (few.train, few.selecting, few.calibrating) for row in part)["a"] == LEAST_REPLAYED
    assert any("known classes is replayed" in note for note in few.notes)


@pytest.mark.parametrize(
    ("new", "replay", "message"),
    [
        (
            [("x", "体育"), ("y", "体育")],
            None,
            r"new\.jsonl: expected rows of a new class, found only classes that the run knows \('体育'\)",
        ),
        (
            [("x", NEW), ("y", NEW), ("z", "体育")],
            None,
            r"new\.jsonl:3: '体育' is a class of the run already, as 1 of the 3 rows are; .*--replay",
        ),
        ([("x", NEW)], None, r"new\.jsonl:1: '天气' has this row alone"),
        ([("x", NEW), ("y", NEW)], [("x", NEW)], r"replay\.jsonl:1: '天气' is a new class; its rows belong with the new ones"),
        ([("x", NEW), ("y", NEW)], [("x", "体肓")], r"replay\.jsonl:1: label '体肓' is not one of '体育'"),
    ],
)
def test_rows_on_the_wrong_side_are_named(
    new: list[tuple[str, str]], replay: list[tuple[str, str]] | None, message: str, old: Path, tmp_path: Path
) -> None:
    def as_file(name: str, rows: list[tuple[str, str]]) -> Path:
        return write_jsonl(tmp_path / name, [{"text": text, "label": label} for text, label in rows])

    given = old / "toy_news.jsonl" if replay is None else as_file("replay.jsonl", replay)
    with pytest.raises(DataError, match=message):
        extend(old / "run", as_file("new.jsonl", new), replay=given, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_a_name_much_like_a_known_one_is_told(tmp_path: Path) -> None:
    config = DataConfig(data=str(write_jsonl(tmp_path / "new.jsonl", [{"text": "x", "label": "Sport"}] * 8)))
    found = load_extension(config, LabelSet(("Sports", "b")), rows_of("b", 30, "x"), NO_DEV, seed=0)
    assert any("'Sport' is spelt much like 'Sports'" in note for note in found.notes)


def json_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_how_few_rows_are_replayed_says_nothing_of_their_class(old: Path, tmp_path: Path) -> None:
    many = write_jsonl(tmp_path / "new.jsonl", [{"text": f"{row['text']}{at}", "label": NEW} for at in range(30) for row in weather()[:10]])
    said: list[str] = []
    extend(old / "run", many, out=tmp_path / "out", max_steps=1, announce=said.append, **QUICK)
    assert any("replayed rows" in note for note in said)
    assert not any("uneven" in note for note in said)
    few = write_jsonl(tmp_path / "few.jsonl", [*json_rows(many), *({"text": f"{at}号列车晚点", "label": "交通"} for at in range(6))])
    extend(old / "run", few, out=tmp_path / "uneven", max_steps=1, announce=said.append, **QUICK)
    assert any("uneven classes: the largest has" in note for note in said)


def test_changes_are_of_the_same_rows() -> None:
    gold = np.array([0, 0, 0, 0, 1, 1, 2])
    before, after = np.array([0, 0, 0, 1, 1, 0, 0]), np.array([0, 0, 2, 2, 1, 1, 2])
    whole, first, second = recall_changes(gold, before, after, LabelSet(("a", "b")))
    assert (whole.name, whole.rows, whole.before, whole.after) == (None, 6, 4 / 6, 4 / 6)
    assert (first.name, first.rows, first.change) == ("a", 4, -0.25)
    assert (second.name, second.before, second.after) == ("b", 0.5, 1.0)
    assert first.interval[0] <= -0.25 <= first.interval[1] <= 0
    assert recall_changes(np.array([5]), np.array([0]), np.array([5]), LabelSet(("a", "b"))) == ()


def test_names_of_classes_cannot_break_the_tables_of_the_card() -> None:
    changes = tuple(RecallChange(name, 4, 0.5, 0.75, (0.0, 0.5)) for name in (None, "<b>|c"))
    new = (ClassMetrics("a|b", 1.0, 0.5, 0.67, 2), ClassMetrics("*d*", 1.0, 1.0, 1.0, 2))
    card = card_section(Extension(None, changes, new, 8, Cost(2, 4, 1.0, 0.1, 20, 3.0)))  # type: ignore[arg-type]
    tables = [block.splitlines() for block in card.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [4, 4]
    for table in tables:
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    assert not re.search(r"(?<!\\)[<*]", card)


def test_a_head_of_ones_own_cannot_grow(old: Path, tmp_path: Path) -> None:

    manifest = read_manifest(old / "run")
    (tmp_path / "run").mkdir()
    write_manifest(tmp_path / "run", {**manifest, "head": "custom"})
    with pytest.raises(ConfigError, match="a head of your own"):
        extend(tmp_path / "run", old / "new.jsonl", out=tmp_path / "out")


def test_a_multi_label_run_cannot_grow(old: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_manifest(tmp_path / "run", {**read_manifest(old / "run"), "problem_type": "multi_label_classification"})
    with pytest.raises(ConfigError, match="gives several labels a text; rows of new classes say nothing of its old ones"):
        extend(tmp_path / "run", old / "new.jsonl", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_file_of_new_rows_is_named(old: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empty\.jsonl: expected at least one row, found none"):
        extend(old / "run", write_jsonl(tmp_path / "empty.jsonl", []), replay=old / "toy_news.jsonl", out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_a_generate_run_learns_new_labels_with_a_replay(old: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    data = old / "toy_news.jsonl"
    options = {"method": "generate", "tuning": "lora", "lora_rank": 2, "max_steps": 2, "batch_size": 8}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", **options, **QUICK)
    result = extend(tmp_path / "run", old / "new.jsonl", replay=data, out=tmp_path / "out", max_steps=2, **QUICK)
    assert result.training.labels[-1] == NEW
    assert read_manifest(tmp_path / "out")["calibrated"] == (read_manifest(tmp_path / "out")["data"]["rows"]["calibrating"] >= 30)
    assert Classifier.load(tmp_path / "out", device="cpu").predict_proba(TEXTS).shape == (3, 4)


def test_an_extended_run_is_compared_with_the_one_it_comes_from(old: Path, extended: Any, tmp_path: Path) -> None:
    """Which is wrong on the rows of the class that it does not know, and right as often as before on all others."""
    data = write_jsonl(tmp_path / "all.jsonl", [*json_rows(old / "toy_news.jsonl"), *weather()])
    measured = evaluate_run(old / "extended", data, out=tmp_path / "report", device="cpu", compare_with=[old / "run"])
    now, before = measured.comparison
    assert [one.name for one in measured.comparison] == ["extended", "run"]
    alone = evaluate_run(old / "run", old / "toy_news.jsonl", out=tmp_path / "alone", device="cpu")
    assert before.metrics.accuracy == pytest.approx(alone.metrics.accuracy * 60 / 80)
    assert now.to_json()["metrics"]["log_loss"] is not None
    assert before.to_json()["metrics"]["log_loss"] is None
    assert any(note.startswith("run does not know '天气'") for note in measured.notes)
    with pytest.raises(ArtifactError, match="the evaluated run does not know '天气'"):
        evaluate_run(old / "run", old / "toy_news.jsonl", out=tmp_path / "alone", device="cpu", compare_with=[old / "extended"])


def test_the_command_prints_what_changed(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["extend", str(old / "run"), str(old / "new.jsonl"), "--out", str(tmp_path / "out"), "--max-steps", "1", "--no-baseline"]
    more = write_jsonl(tmp_path / "more.jsonl", json_rows(old / "toy_news.jsonl")[:4])
    assert main([*words, "--replay", str(old / "toy_news.jsonl"), "--replay", str(more), "--device", "cpu"]) == 0
    assert str(more) in read_manifest(tmp_path / "out")["data"]["files"]
    told = capsys.readouterr()
    assert "all of them" in told.out
    assert NEW in told.out
    assert "of the cost of training again" in told.err
    assert main(words) == 1
    assert "already holds a complete run" in capsys.readouterr().err


def test_options_of_the_run_give_way_to_their_rivals_and_to_the_machine(old: Path, tmp_path: Path) -> None:
    trained = RunConfig.from_yaml(old / "run" / "config.yaml")
    assert trained.optimization.batch_tokens is not None
    (tmp_path / "config.yaml").write_text(trained.replace(target_accuracy=0.9, baseline=True).to_yaml(), encoding="utf-8")
    config = _extended_config(tmp_path, "new.jsonl", {"min_confidence": 0.6})
    assert (config.trust.min_confidence, config.trust.target_accuracy) == (0.6, None)
    assert config.optimization.batch_tokens is None
    assert _extended_config(tmp_path, "new.jsonl", {}).trust.target_accuracy == 0.9
    assert _extended_config(tmp_path, "new.jsonl", {"batch_tokens": 512}).optimization.batch_tokens == 512
    assert not config.optimization.baseline  # it would see little of what the run has seen
    assert _extended_config(tmp_path, "new.jsonl", {"baseline": True}).optimization.baseline
    for name, value in (("test", "test.jsonl"), ("test_ratio", 0.1), ("max_train_rows", 10), ("label_separator", ";")):
        with pytest.raises(ConfigError, match=f"{name}: an extension makes train and dev out of new rows and a replay"):
            _extended_config(tmp_path, "new.jsonl", {name: value})


@pytest.mark.parametrize(
    ("rows", "affordable", "passes", "batch_size"),
    [(4000, 0.4, 1.0, 32), (4000, 1.7, 1.5, 32), (4000, 1.375, 1.25, 32), (4000, 9.0, 3.0, 32), (200, 0.4, 4.0, 8), (1600, 2.0, 2.0, 16)],
)
def test_there_are_as_many_passes_as_are_cheap(rows: int, affordable: float, passes: float, batch_size: int) -> None:
    config = RunConfig.from_options({"data": "new.jsonl", "model": "nano", "tuning": "full"})
    chosen = _with_passes(config, rows, affordable).optimization
    assert (chosen.epochs, chosen.batch_size) == (passes, batch_size)
    asked = RunConfig.from_options({"data": "new.jsonl", "model": "nano", "tuning": "full", "epochs": 2.0})
    assert _with_passes(asked, rows, affordable).optimization.epochs == 2.0


def test_known_classes_count_as_often_as_they_are() -> None:
    """A quarter of two known classes is replayed: in training alone their logits are lower by log 4; a class that is not there is left."""
    known, replay = LabelSet(("a", "b", "c")), [Example(text="x", label=label, source="r", line=1) for label in "aaab"]
    counts = np.array([75, 25, 0, 100])
    assert counts_of_all(counts, known, replay, 400, {"a": 60, "b": 340, "c": 9}).tolist() == [75, 340, 9, 100]
    of_all = counts_of_all(counts, known, replay, 400, {})
    assert of_all.tolist() == [300, 100, 0, 100]
    prior = prior_of_replay(counts, of_all)
    np.testing.assert_allclose(prior.numpy(), [-np.log(4), -np.log(4), 0.0, 0.0], atol=1e-6)
    logits, gold = torch.randn(5, 4), torch.tensor([0, 1, 3, 3, 0])
    loss = under_prior(lambda given, ids: torch.nn.functional.cross_entropy(given, ids), prior)
    torch.testing.assert_close(loss(logits, gold), torch.nn.functional.cross_entropy(logits + prior, gold))

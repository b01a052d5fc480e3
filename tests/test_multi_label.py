"""Multi-label: from lists in a file to answers, figures, the report and the service."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_jsonl

from fenlei.config import DataConfig, RunConfig, TrustConfig
from fenlei.data.examples import Example
from fenlei.data.labelling import Labelling
from fenlei.data.readers import read_examples
from fenlei.data.splits import load_dataset
from fenlei.errors import ConfigError, DataError
from fenlei.evaluation.answers import answers_of, right_rows
from fenlei.evaluation.bootstrap import SEED, of_label_counts
from fenlei.evaluation.calibration import Calibration, label_probabilities
from fenlei.evaluation.decision import Decision, best_threshold, fit_decision, plain_decision
from fenlei.evaluation.multi_label import compute_multi_label_metrics
from fenlei.evaluation.novelty import joint_energy
from fenlei.evaluation.platt import fit_label_calibration
from fenlei.evaluation.reliability import reliability
from fenlei.hierarchy import Hierarchy
from fenlei.inference.bulk import write_rows
from fenlei.inference.prediction import Prediction
from fenlei.labels import LabelSet

WORDS = {"财经": "股市利率基金", "体育": "球队冠军联赛", "科技##手机": "手机屏幕芯片", "科技##航天": "火箭卫星飞船"}


def rows(count: int = 240) -> list[dict[str, Any]]:
    """Texts that name what they are about: none, one or two of four topics in turn."""
    names = list(WORDS)
    found = []
    for at in range(count):
        topics = [names[(at + step) % 4] for step in range((0, 1, 1, 2)[at // 4 % 4])]
        found.append({"text": f"今天{''.join(WORDS[name][at % 3 * 2 :][:2] * 2 for name in topics)}消息{at}", "label": topics})
    return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(found: Sequence[dict[str, Any]], name: str = "multi.jsonl") -> Path:
        return write_jsonl(tmp_path / name, found)

    return to_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of `nano` with a hierarchy, and its data."""
    from fenlei.training.fit import train

    folder = tmp_path_factory.mktemp("multi")
    data = write_jsonl(folder / "multi.jsonl", rows())
    train(data, out=folder / "run", model="nano", epochs=6, dev_ratio=0.4, level_separator="##", target_accuracy=0.8, batch_size=16)
    return folder / "run", data


# --- data


def test_lists_in_a_file_are_seen_and_said(write: Callable[..., Path]) -> None:
    dataset = load_dataset(DataConfig(data=str(write(rows()))), seed=0)
    assert dataset.multi_label
    assert any("multi-label" in note and ":13" in note for note in dataset.notes)  # the first row with two
    assert set(dataset.labels) == set(WORDS)
    gold = dataset.gold(dataset.train)
    assert gold.shape == (len(dataset.train), 4)
    for carried, row in zip(gold, dataset.train, strict=True):
        assert {dataset.labels.name(at) for at in carried.nonzero()[0]} == set(row.labels or ())


def annotated(labels: list[str], text: str) -> dict[str, Any]:
    """As Label Studio exports a task."""
    choices = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": labels}}
    return {"data": {"text": text}, "annotations": [{"result": [choices]}]}


def answered(labels: list[str], text: str) -> dict[str, Any]:
    """As Argilla exports a record."""
    return {"fields": {"text": text}, "responses": {"label": [{"value": labels, "user_id": "1"}]}}


@pytest.mark.parametrize("made", [annotated, answered])
def test_several_answers_of_an_annotator_are_seen_and_said(write: Callable[..., Path], made: Callable[..., dict[str, Any]]) -> None:
    dataset = load_dataset(DataConfig(data=str(write([made(row["label"], row["text"]) for row in rows()]))), seed=0)
    assert dataset.multi_label
    assert any("multi-label" in note and ":13" in note for note in dataset.notes)
    assert set(dataset.labels) == set(WORDS)


def test_tasks_with_one_choice_each_have_one_label(write: Callable[..., Path]) -> None:
    single = [annotated(row["label"], row["text"]) for row in rows() if len(row["label"]) == 1]
    single[0]["annotations"].append({"result": []})  # a tie, if rows had any number of labels
    assert not load_dataset(DataConfig(data=str(write(single))), seed=0).multi_label


def test_lists_of_one_label_are_one_label(write: Callable[..., Path]) -> None:
    single = [row for row in rows() if len(row["label"]) == 1]
    assert not load_dataset(DataConfig(data=str(write(single))), seed=0).multi_label
    assert load_dataset(DataConfig(data=str(write(single)), multi_label=True), seed=0).multi_label


@pytest.mark.parametrize("separator", [",", "|", "##"])
def test_labels_joined_by_an_option(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "joined.tsv"
    path.write_text(f"text\tlabel\n甲\t财经{separator} 体育\n乙\t\n丙\t体育{separator}体育\n", encoding="utf-8")
    labelling = Labelling(multi_label=True, separator=separator)
    found = list(read_examples(path, labelling=labelling))
    assert [row.labels for row in found] == [("财经", "体育"), (), ("体育",)]
    assert [row.label for row in found] == ["体育 + 财经", "(none)", "体育"]


def test_lists_in_cells_of_a_table_are_lists(tmp_path: Path) -> None:
    """As bulk prediction writes them into CSV."""
    found = [{**row, "category": list(WORDS)} for row in rows()]
    path = tmp_path / "lists.csv"
    places = [Example(row["text"], None, str(path), at) for at, row in enumerate(found)]
    write_rows(path, places, found)
    dataset = load_dataset(DataConfig(data=str(path)), seed=0)
    assert set(dataset.labels) == set(WORDS)
    for separator in (None, ",", "##"):
        read = list(read_examples(path, labelling=Labelling(multi_label=True, separator=separator)))
        assert [list(row.labels or ()) for row in read] == [row["label"] for row in found]
        assert {row.candidates for row in read} == {tuple(WORDS)}


def test_cells_that_list_one_label_are_that_label_and_other_brackets_are_names(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text('text,label\n甲,"[""a""]"\n乙,[a]\n丙,[1]\n丁,"[""b"", 1]"\n', encoding="utf-8")
    assert [row.label for row in read_examples(path)] == ["a", "[a]", "[1]", '["b", 1]']
    path.write_text('text,label\n甲,"[""a""]"\n乙,[]\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"one\.csv:3: expected a label .* found none"):
        list(read_examples(path))
    assert [row.label for row in read_examples(path, blanks=True)] == ["a", None]
    path.write_text('text,label\n甲,"[""a"", ""b""]"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"one\.csv:2: expected one label .* found a list, \['a', 'b'\]"):
        list(read_examples(path))


def fasttext(path: Path, labels: Sequence[Sequence[str]]) -> Path:
    """A row of fastText for each list of labels."""
    lines = ["".join(f"__label__{name} " for name in names) + f"消息{at}\n" for at, names in enumerate(labels)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("labels", [[["a", "b"], ["a"], [], ["b"]], [["a"], ["a", "b"], ["b"], []]])
def test_fasttext_rows_of_several_one_and_no_label(tmp_path: Path, labels: list[list[str]]) -> None:
    path = fasttext(tmp_path / "ft.txt", labels * 10)
    dataset = load_dataset(DataConfig(data=str(path)), seed=0)
    assert dataset.multi_label
    found = list(read_examples(path, labelling=Labelling(multi_label=True)))
    assert [list(row.labels or ()) for row in found] == labels * 10
    predicted = list(read_examples(path, labelled=False))
    assert [row.columns["label"] for row in predicted] == labels * 10, "labels of one kind are written back"


def test_a_fasttext_file_of_one_label_a_row_is_read_as_either(tmp_path: Path) -> None:
    path = fasttext(tmp_path / "ft.txt", [["a"], ["b"]] * 10)
    assert not load_dataset(DataConfig(data=str(path)), seed=0).multi_label
    assert [row.columns["label"] for row in read_examples(path)][:2] == ["a", "b"]
    assert [row.labels for row in read_examples(path, labelling=Labelling(multi_label=True))][:2] == [("a",), ("b",)]


def test_a_plain_string_in_a_multi_label_file_is_named(write: Callable[..., Path]) -> None:
    broken = rows()
    broken[36]["label"] = "财经"
    told = r"multi\.jsonl:37: expected a list of labels in column 'label' \(multi-label\), found '财经'.*--label-separator"
    with pytest.raises(DataError, match=told):
        load_dataset(DataConfig(data=str(write(broken))), seed=0)


def test_a_row_that_says_nothing_is_named(write: Callable[..., Path]) -> None:
    broken = rows()
    broken[4]["label"] = None  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"multi\.jsonl:5: .*write \[\] for a row without labels"):
        load_dataset(DataConfig(data=str(write(broken))), seed=0)


@pytest.mark.parametrize("nothing", [None, "", "财经"])
def test_a_first_row_without_a_list_is_named_and_not_the_lists_below_it(write: Callable[..., Path], nothing: str | None) -> None:
    broken = rows()
    broken[0]["label"] = nothing  # type: ignore[assignment]
    told = r"multi\.jsonl:1: expected a list of labels .*" + (r"write \[\] for a row without labels" if nothing is None else "write a list")
    with pytest.raises(DataError, match=told):
        load_dataset(DataConfig(data=str(write(broken))), seed=0)


@pytest.mark.parametrize("place", [0, 1, 30])
def test_one_list_among_plain_labels_is_named(write: Callable[..., Path], place: int) -> None:
    found: list[dict[str, Any]] = [{"text": f"消息{at}", "label": "ab"[at % 2]} for at in range(40)]
    found[place]["label"] = ["a", "b"]
    with pytest.raises(DataError, match=rf"multi\.jsonl:{place + 1}: expected one label .* found a list"):
        load_dataset(DataConfig(data=str(write(found))), seed=0)


def test_lists_of_one_label_or_none_say_the_option(write: Callable[..., Path]) -> None:
    found = [{"text": f"消息{at}", "label": [["a"], ["b"], []][at % 3]} for at in range(30)]
    with pytest.raises(DataError, match=r"multi\.jsonl:3: expected a label .* found none; fill it in .* --multi-label"):
        load_dataset(DataConfig(data=str(write(found))), seed=0)
    assert load_dataset(DataConfig(data=str(write(found)), multi_label=True), seed=0).multi_label


def test_several_labels_where_one_was_expected_say_the_cure(write: Callable[..., Path]) -> None:
    found = [*({"text": "甲", "label": "a"} for _ in range(12)), {"text": "乙", "label": ["a", "b"]}]
    with pytest.raises(DataError, match=r":13: expected one label .*--multi-label"):
        list(read_examples(write(found)))


def test_every_part_has_every_label(write: Callable[..., Path]) -> None:
    rare = rows()
    for at in range(8):
        rare[at * 7]["label"] = [*rare[at * 7]["label"], "少见"]
    dataset = load_dataset(DataConfig(data=str(write(rare)), test_ratio=0.2), seed=0)
    for part in (dataset.train, dataset.selecting, dataset.calibrating, dataset.test):
        assert dataset.gold(part).any(axis=0).all()
        assert any(not row.labels for row in part)


def test_rows_that_stay_in_train_are_told_by_their_rarest_label(write: Callable[..., Path]) -> None:
    found: list[dict[str, Any]] = [{"text": f"消息{at}", "label": [["a"], ["a", "b"]][at % 2]} for at in range(40)]
    few = [{"text": f"少{at}", "label": ["a", "c"] if at else []} for at in range(3)]
    data = load_dataset(DataConfig(data=str(write([*found, *few]))), seed=0)
    told = "all rows whose rarest label is 'c' and all rows without labels stay in train: fewer than 4, too few for every part"
    assert told in data.notes
    everywhere = [{"text": f"消息{at}", "label": ["a", f"{at // 3}"]} for at in range(12)]
    with pytest.raises(DataError, match="no label is the rarest one of the 4 rows it takes to set some aside"):
        load_dataset(DataConfig(data=str(write(everywhere))), seed=0)


def test_separators_that_contradict() -> None:
    with pytest.raises(ConfigError, match="label_separator and level_separator must differ"):
        RunConfig.from_options({"label_separator": "##", "level_separator": "##"})
    with pytest.raises(ConfigError, match="belongs to multi_label, which is off"):
        RunConfig.from_options({"label_separator": ",", "multi_label": False})


# --- evaluation


def test_figures_agree_with_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, f1_score, hamming_loss, precision_score

    generator = np.random.default_rng(0)
    gold, shares = generator.random((50, 6)) < 0.3, generator.random((50, 6)).astype(np.float32)
    answers = answers_of(Decision((0.6,) * 6), shares)
    found = compute_multi_label_metrics(gold, answers, LabelSet(tuple("abcdef")), uncertainty=True)
    for kind in ("micro", "macro", "weighted"):
        assert getattr(found, f"{kind}_f1") == pytest.approx(f1_score(gold, answers.chosen, average=kind, zero_division=0))
        assert getattr(found, f"{kind}_precision") == pytest.approx(precision_score(gold, answers.chosen, average=kind, zero_division=0))
    assert found.samples_f1 == pytest.approx(f1_score(gold, answers.chosen, average="samples", zero_division=1))
    assert found.hamming_loss == pytest.approx(hamming_loss(gold, answers.chosen))
    assert found.accuracy == pytest.approx((gold == answers.chosen).all(axis=1).mean())
    assert found.mean_average_precision == pytest.approx(average_precision_score(gold, shares, average="macro"))
    assert found.average_precision == pytest.approx(average_precision_score(gold, shares, average=None))
    assert found.intervals["micro_f1"][0] < found.micro_f1 < found.intervals["micro_f1"][1]


def test_the_interval_of_macro_f1_holds_it_where_labels_have_few_rows() -> None:
    gold, labels = np.eye(100, dtype=bool), LabelSet(tuple(map(str, range(100))))
    found = compute_multi_label_metrics(gold, answers_of(plain_decision(100), np.eye(100)), labels, uncertainty=True)
    low, high = found.intervals["macro_f1"]
    assert low <= found.macro_f1 <= high


def test_the_interval_of_macro_f1_holds_it_where_labels_of_two_rows_are_half_right() -> None:
    """A ratio of few rows comes out below itself when they are drawn again."""
    at = np.arange(600)
    gold, chosen = np.eye(300, dtype=bool)[at % 300], np.eye(300, dtype=bool)[(at + (at >= 300)) % 300]
    low, high = of_label_counts(gold & chosen, chosen, gold)["macro_f1"]
    assert low <= 0.5 <= high


def test_intervals_of_very_many_rows_lie_around_the_figures_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where every n-th row, and no other, is wrong."""
    gold = np.eye(3, dtype=bool)[np.arange(3000) % 3]
    answers = answers_of(plain_decision(3), np.where(np.arange(3000)[:, None] % 30, gold, 0.0))
    slow = compute_multi_label_metrics(gold, answers, LabelSet(tuple("abc")), uncertainty=True).intervals
    monkeypatch.setattr("fenlei.evaluation.bootstrap.MANY_ROWS", 100)
    found = compute_multi_label_metrics(gold, answers, LabelSet(tuple("abc")), uncertainty=True)
    for name, figure in (("micro_f1", found.micro_f1), ("macro_f1", found.macro_f1)):
        assert found.intervals[name][0] <= figure <= found.intervals[name][1]
        assert found.intervals[name] == pytest.approx(slow[name], abs=0.01)


def test_an_interval_of_very_many_rows_ends_where_its_figure_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenlei.evaluation.bootstrap.MANY_ROWS", 100)
    gold = np.ones((300, 1), dtype=bool)
    chosen = gold.copy()
    chosen[np.random.default_rng(SEED).permutation(300)[0]] = False  # one that is in the sample
    found = of_label_counts(gold & chosen, chosen, gold)
    assert all(low < 1 - 1 / 599 < high <= 1 for low, high in found.values())


def test_a_label_without_rows_has_no_average_precision() -> None:
    from sklearn.metrics import average_precision_score

    generator = np.random.default_rng(0)
    gold, shares = generator.random((50, 3)) < 0.3, generator.random((50, 3)).astype(np.float32)
    gold[:, 1] = False
    found = compute_multi_label_metrics(gold, answers_of(plain_decision(3), shares), LabelSet(tuple("abc")))
    assert found.average_precision[1] is None
    assert found.mean_average_precision == pytest.approx(average_precision_score(gold[:, [0, 2]], shares[:, [0, 2]], average="macro"))


def test_an_empty_answer_to_an_empty_row_is_right() -> None:
    gold = np.array([[False, False], [True, False]])
    answers = answers_of(Decision((0.5, 0.5)), np.array([[0.1, 0.2], [0.3, 0.1]]))
    found = compute_multi_label_metrics(gold, answers, LabelSet(("a", "b")))
    assert (found.accuracy, found.samples_f1, found.micro_f1, found.hamming_loss) == (0.5, 0.5, 0.0, 0.25)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_the_raw_network_answers_by_nothing_that_was_fitted(threshold: float) -> None:
    """Each label from one half on; that none is less probable than one below it was not fitted, and holds for it too."""
    from fenlei.inference.trust import Trust
    from fenlei.report.confidence import measure_confidence

    logits, above = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32), ((), (0,), ())
    gold = np.random.default_rng(1).random((200, 3)) < 0.5
    trust = Trust(Calibration(multi_label=True), False, decision=Decision((threshold,) * 3, above))
    plain = answers_of(plain_decision(3, above), trust.probabilities(logits))
    predictions = [Prediction("a", 0.5, {}, False, 0)] * 200
    found = measure_confidence(logits, trust.answers(trust.probabilities(logits)), gold, predictions, trust, ("a", "a##b", "c"))
    assert found.before == reliability(plain.confidence, right_rows(gold, plain))
    assert (found.before == found.after) == (threshold == 0.5)


def test_calibration_finds_what_was_done_to_the_logits() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(-1, 2, size=(4000, 5))
    gold = generator.random(logits.shape) < label_probabilities(logits)
    fitted = fit_label_calibration(3 * logits + 1, gold)
    assert fitted.multi_label
    assert fitted.probabilities(3 * logits + 1) == pytest.approx(label_probabilities(logits), abs=0.02)


def test_thresholds_are_those_of_the_highest_f1() -> None:
    scores, gold = np.array([0.9, 0.8, 0.3, 0.2, 0.2, 0.1]), np.array([True, True, True, False, False, False])
    assert best_threshold(scores, gold) == pytest.approx(0.25)
    assert best_threshold(scores, np.zeros(6, dtype=bool)) == 0.5
    tied = best_threshold(np.full(4, 0.7), np.array([True, False, False, False]))
    assert tied < 0.7  # nothing lies between equal scores


def test_a_label_with_few_rows_shares_its_threshold() -> None:
    generator = np.random.default_rng(1)
    gold = generator.random((400, 4)) < np.array([0.3, 0.3, 0.01, 0.01])
    shares = np.clip(gold * np.array([0.4, 0.8, 0.8, 0.8]) + generator.random(gold.shape) * 0.1, 0, 1)
    thresholds = fit_decision(shares, gold).thresholds
    assert thresholds[2] == thresholds[3]
    assert thresholds[0] < thresholds[1]


def test_confidence_is_that_the_whole_answer_is_right() -> None:
    decision = Decision((0.5, 0.5, 0.5))
    assert decision.confidence(np.array([[0.9, 0.2, 0.4]])) == pytest.approx([0.9 * 0.8 * 0.6])


def test_joint_energy_is_higher_for_what_fits_no_label() -> None:
    known, strange = joint_energy(np.array([[6.0, -5.0, 4.0], [-4.0, -5.0, -6.0]]))
    assert strange > known


# --- hierarchy


def test_a_child_brings_its_parent_in_data_and_answers() -> None:
    hierarchy = Hierarchy("##")
    labels = LabelSet(("a##b##c", "a", "a##b", "d"))
    assert hierarchy.closed(["a##b##c"]) == ("a##b##c", "a", "a##b")
    ancestors = hierarchy.ancestor_ids(labels)
    assert ancestors == ((1, 2), (), (1,), ())
    decision = plain_decision(4, ancestors)
    shares = np.array([[0.8, 0.1, 0.2, 0.3]])
    assert decision.chosen(shares).tolist() == [[True, True, True, False]]
    coherent = decision.coherent(shares)
    assert coherent[0].tolist() == [0.8, 0.8, 0.8, 0.3]
    # The parents of a label that is given add no doubt of their own.
    assert decision.confidence(coherent) == pytest.approx([0.8 * 0.7])
    # Nor do the children of one that is not.
    assert decision.confidence(np.array([[0.1, 0.2, 0.15, 0.9]])) == pytest.approx([0.8 * 0.9])


def test_levels_of_one_label_a_row() -> None:
    from fenlei.report.levels import by_level

    labels = LabelSet(("a##b", "a##c", "d"))
    gold = np.array([0, 0, 1, 2])
    shares = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.1, 0.1, 0.8]])
    first, second = by_level(Hierarchy("##"), gold, shares, labels)
    assert (first.classes, first.accuracy, second.classes, second.accuracy) == (2, 0.75, 3, 0.5)
    assert by_level(None, gold, shares, labels) == ()


# --- the whole way


def test_a_run_says_what_it_is(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    manifest = json.loads((run / "fenlei.json").read_text(encoding="utf-8"))
    assert manifest["problem_type"] == "multi_label_classification"
    assert manifest["format_version"] == 2
    assert json.loads((run / "model" / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert set(manifest["labels"]) == {*WORDS, "科技"}
    assert manifest["abstention"]["target_accuracy"] == 0.8


def test_answers_are_sets_that_hold_together(trained: tuple[Path, Path]) -> None:
    from fenlei.inference.classifier import Classifier

    run, _ = trained
    classifier = Classifier.load(run)
    space, both, nothing = classifier.predict(["今天火箭火箭消息", "今天球队球队股市股市消息", "今天消息"])
    assert set(space.answer) == {"科技", "科技##航天"}
    assert set(both.answer) == {"体育", "财经"}
    assert nothing.answer == []
    assert space.probabilities["科技"] >= space.probabilities["科技##航天"]
    assert nothing.abstained is not None
    alone = classifier.predict(["今天火箭火箭消息"])[0]
    assert alone.confidence == pytest.approx(space.confidence, abs=1e-4)


def test_evaluation_tells_sets_and_levels(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from fenlei.report.evaluation import evaluate_run

    run, data = trained
    wrong = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()][:60]
    wrong[4]["label"] = ["体育", "科技##手机"]
    asked = write_jsonl(tmp_path / "asked.jsonl", wrong)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "confusion.png").write_bytes(b"of an earlier evaluation, of another run")
    found = evaluate_run(run, asked, out=tmp_path / "report", compare_with=[run])
    assert found.metrics.to_json()["micro_f1"] > 0.9
    assert [one.level for one in found.levels] == [1, 2]
    assert [one.classes for one in found.levels] == [3, 2]
    assert any(one.example.line == 5 and "科技##手机" in one.missed for one in found.mistakes)
    assert found.comparison[-1].metrics.accuracy == found.comparison[0].metrics.accuracy
    told = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told[4]["gold"] == ["体育", "科技##手机", "科技"]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "micro F1" in page
    assert "By level" in page
    assert not (tmp_path / "report" / "confusion.png").exists()
    joined = tmp_path / "joined.csv"
    joined.write_text("text,label\n" + "".join(f"{row['text']},{'|'.join(row['label'])}\n" for row in wrong), encoding="utf-8")
    assert evaluate_run(run, joined, out=tmp_path / "joined", label_separator="|").metrics == found.metrics
    again = evaluate_run(run, asked, out=tmp_path / "again", compare_with=[tmp_path / "report" / "predictions.jsonl"])
    assert again.comparison[-1].metrics.accuracy == again.metrics.accuracy


def test_files_are_predicted_with_lists(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from fenlei.inference.bulk import predict_file
    from fenlei.inference.classifier import Classifier

    run, data = trained
    predict_file(Classifier.load(run), data, tmp_path / "out.jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["label"] == first["prediction"] == []


def test_sets_of_one_label_have_no_meaning(trained: tuple[Path, Path]) -> None:
    from fenlei.inference.classifier import Classifier

    with pytest.raises(ConfigError, match=r"set_coverage: .*any number of them"):
        Classifier.load(trained[0], trust=TrustConfig(set_coverage=0.9))


def test_an_export_answers_alike(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import pipeline

    from fenlei.export.merged import export_merged
    from fenlei.inference.classifier import Classifier

    done = export_merged(trained[0], tmp_path / "stock", texts=["今天火箭火箭消息", "今天消息"])
    assert done.agreement == 1.0
    assert any("thresholds" in note and "a label brings those it lies below" in note for note in done.notes)
    classify: Any = pipeline("text-classification", str(tmp_path / "stock"), device="cpu")
    scores = {one["label"]: one["score"] for one in classify("今天火箭火箭消息", top_k=None)}
    assert sum(scores.values()) > 1.05  # each label by itself: transformers took the sigmoid
    assert scores["科技##航天"] > 0.5
    assert Classifier.load(trained[0]).predict(["今天火箭火箭消息"])[0].probabilities["科技##航天"] > 0.5


def test_suggestions_carry_lists(trained: tuple[Path, Path], write: Callable[..., Path]) -> None:
    from fenlei.annotation.exchange import labelling_interface, render
    from fenlei.annotation.suggest import suggest
    from fenlei.inference.classifier import Classifier

    pool = write([{"text": row["text"]} for row in rows(40)], "pool.jsonl")
    picked = suggest(Classifier.load(trained[0]), pool, 5)
    assert all(isinstance(json.loads(line)["label"], list) for line in render(picked, "doccano", "").splitlines())
    assert 'choice="multiple"' in labelling_interface(["a"], multi_label=True)


def test_argilla_is_given_several_labels_without_a_score_and_none_not_at_all() -> None:
    """Its server refuses a list that has one score, and an empty list."""
    from fenlei.annotation.exchange import render
    from fenlei.annotation.suggest import Suggestion

    row = Example("今天消息", None, "pool.jsonl", 1)
    picked = [Suggestion(row, "", 0.5, 0.5, 0.5, "uncertain", labels) for labels in [("体育", "财经"), ()]]
    several, none = json.loads(render(picked, "argilla", "run"))
    assert several["suggestions"] == {"label": {"value": ["体育", "财经"], "agent": "run"}}
    assert none["suggestions"] == {}
    assert none["metadata"]["confidence"] == 0.5


def test_choices_confirmed_in_label_studio_are_read_back(trained: tuple[Path, Path], write: Callable[..., Path], tmp_path: Path) -> None:
    from fenlei.annotation.exchange import write_suggestions
    from fenlei.annotation.suggest import suggest
    from fenlei.inference.classifier import Classifier

    classifier, out = Classifier.load(trained[0]), tmp_path / "tasks.json"
    picked = suggest(classifier, write([{"text": row["text"]} for row in rows(40)], "pool.jsonl"), 12)
    write_suggestions(picked, out, "label-studio", classifier.labels, "run")
    tasks = json.loads(out.read_text(encoding="utf-8"))
    confirmed = [{**task, "annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks]
    out.write_text(json.dumps(confirmed, ensure_ascii=False), encoding="utf-8")
    back = list(read_examples(out, labelling=Labelling(multi_label=True)))
    assert [(row.text, set(row.all_labels)) for row in back] == [(one.example.text, set(one.answer)) for one in picked]
    assert any(len(row.all_labels) > 1 for row in back)


def test_audit_counts_labels_and_doubts_sets(write: Callable[..., Path]) -> None:
    from fenlei.audit.audit import audit_data

    doubtful = rows()
    doubtful[36]["label"] = ["体育", "科技##手机"]
    wrong = {**rows()[12], "label": ["体育"]}
    found = audit_data(write([*doubtful, wrong]))
    assert found.classes.counts["财经"] > 40
    assert any(one.rows[0] == 12 and "体育" in one.labels for one in found.conflicts)
    assert 36 in [one.row for one in found.label_errors.rows[:5]]


def test_an_audit_by_a_run_reads_labels_as_the_run_does(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Else every row below a parent would lack it."""
    from fenlei.audit.audit import audit_data
    from fenlei.audit.document import to_document

    run, data = trained
    read = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    right = [row for row in read if row["label"]][:60]
    right[0]["label"] = ["体育", "科技##手机"] if "财经" in right[0]["label"] else ["财经"]
    names = sorted(WORDS)
    ids = [{**row, "label": [names.index(name) for name in row["label"]]} for row in right]
    for name, found in (("named", right), ("numbered", ids)):
        asked = write_jsonl(tmp_path / f"{name}.jsonl", found)
        (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
        audit = audit_data(asked, run=run, class_file=tmp_path / "names.txt", device="cpu")
        assert audit.classes.counts["科技"] == sum("科技##手机" in row["label"] or "科技##航天" in row["label"] for row in right)
        assert [one.row for one in audit.label_errors.rows] == [0], to_document(audit)["label_errors"]
    joined = tmp_path / "joined.csv"
    joined.write_text("text,label\n" + "".join(f"{row['text']},{'|'.join(row['label'])}\n" for row in right), encoding="utf-8")
    told = audit_data(joined, run=_written_with_bars(run, tmp_path / "run"), device="cpu")
    assert [one.row for one in told.label_errors.rows] == [0]


def _written_with_bars(run: Path, copy: Path) -> Path:
    """The run, as if its rows' labels had been joined by |."""
    from fenlei.artifact import read_manifest, write_manifest

    shutil.copytree(run, copy)
    write_manifest(copy, {**read_manifest(copy), "label_separator": "|"})
    return copy


def test_a_service_speaks_of_sets_in_every_protocol(trained: tuple[Path, Path]) -> None:
    pytest.importorskip("fastapi")
    from serving import running

    text = "今天火箭火箭消息"
    with running(trained[0]) as service:
        (own,) = service.post("/v1/classify", {"texts": [text]}).json["results"]
        assert set(own["labels"]) == {"科技", "科技##航天"}
        (hugging_face,) = service.post("/", {"inputs": text, "parameters": {"function_to_apply": "sigmoid"}}).json
        assert {one["label"]: one["score"] for one in hugging_face} == own["probabilities"]
        refused = service.post("/", {"inputs": text, "parameters": {"function_to_apply": "softmax"}})
        assert "any number of labels" in refused.body.decode()
        raw = {one["label"]: one["score"] for one in service.post("/predict", {"inputs": text, "raw_scores": True}).json}
        assert 1 / (1 + np.exp(-raw["体育"])) == pytest.approx(own["probabilities"]["体育"], rel=1e-3)
        assert set(service.post("/classify", {"text": text}).json["predicted_category"].split(",")) == set(own["labels"])
        (item,) = service.post("/classify", {"input": text}).json["data"]
        assert item["probs"] == list(own["probabilities"].values())

        from fenlei.serving.client import Client

        client = Client(service.url)
        assert set(client.predict([text])[0].answer) == set(own["labels"])
        assert Labelling.from_json(client.describe()) == Labelling(multi_label=True, hierarchy=Hierarchy("##"))


# --- generate: yes or no for each label


def test_a_label_is_asked_as_if_it_were_alone(tiny_qwen: Path) -> None:
    """Log-odds from the tree are those of a plain pass over `prompt label: yes` and `prompt label: no`."""
    import torch
    from transformers import AutoModelForCausalLM

    from fenlei.inference.scoring import score
    from fenlei.inference.zero_shot import load_zero_shot
    from fenlei.text.tokens import plain_ids

    run = load_zero_shot(str(tiny_qwen), ["体育", "体育彩票", "财经"], multi_label=True)
    encoder: Any = run.encoder
    encoded = encoder.encode(["央行下调利率", "球队夺冠"])
    found = score(run.method, encoded, 3).logits
    plain = AutoModelForCausalLM.from_pretrained(tiny_qwen).eval()
    tokenizer = encoder._tokenizer
    yes, no = plain_ids(tokenizer, list(encoder.instruction.yes_no))

    def log_p(row: int, label: str, answer: list[int]) -> float:
        asked = [*encoded.prompt(row).tolist(), *plain_ids(tokenizer, [label])[0]]
        with torch.inference_mode():
            scores = plain(torch.tensor([[*asked, *answer]])).logits[0].double().log_softmax(dim=-1)
        return float(sum(scores[len(asked) - 1 + at, token] for at, token in enumerate(answer)))

    for row in range(2):
        for column, label in enumerate(run.labels):
            assert found[row, column] == pytest.approx(log_p(row, label, yes) - log_p(row, label, no), abs=1e-3)


def test_zero_shot_gives_any_number_of_labels(tiny_qwen: Path) -> None:
    from fenlei.inference.classifier import Classifier

    classifier = Classifier.zero_shot(str(tiny_qwen), ["体育", "财经"], multi_label=True)
    (answer,) = classifier.predict(["央行下调利率"])
    assert set(answer.answer) == {name for name, p in answer.probabilities.items() if p >= 0.5}
    assert not answer.calibrated
    (other,) = classifier.predict(["央行下调利率"], labels=["财经"])
    # Only the list of labels in the prompt differs: a label does not compete with the others.
    assert set(other.probabilities) == {"财经"}


def test_rows_of_each_class_are_not_stored_where_a_row_has_several(tiny_qwen: Path, tmp_path: Path, write: Callable[..., Path]) -> None:
    from fenlei.training.fit import train

    with pytest.raises(ConfigError, match="store_exemplars keeps rows of each class"):
        train(write(rows(64)), out=tmp_path / "run", model=str(tiny_qwen), store_exemplars=2)
    assert not (tmp_path / "run").exists()


def test_generate_learns_sets(tiny_qwen: Path, tmp_path: Path, write: Callable[..., Path]) -> None:
    from fenlei.inference.classifier import Classifier
    from fenlei.training.fit import train

    data = write(rows(64))
    with pytest.raises(ConfigError, match="each label is asked yes or no"):
        train(data, out=tmp_path / "shots", model=str(tiny_qwen), method="generate", shots=2)
    options: dict[str, Any] = {"model": str(tiny_qwen), "method": "generate", "max_length": 200, "baseline": False}
    result = train(data, out=tmp_path / "run", tuning="full", max_steps=40, learning_rate=5e-3, batch_size=16, **options)
    untrained = train(data, out=tmp_path / "none", tuning="none", **options)
    assert result.metrics.log_loss < untrained.metrics.log_loss
    classifier = Classifier.load(tmp_path / "run")
    one, two = classifier.predict(["今天球队球队消息1", "今天消息2"])
    assert one.labels is not None
    assert one.probabilities["体育"] > two.probabilities["体育"]

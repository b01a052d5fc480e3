"""A student learns what its teacher says: of rows with a label from both, of rows without one from the teacher alone."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_NEWS, write_jsonl

from fenlei import Classifier, train
from fenlei.artifact import read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.errors import ConfigError, DataError
from fenlei.evaluation.comparison import mcnemar
from fenlei.evaluation.metrics import compute_metrics
from fenlei.labels import LabelSet
from fenlei.models.quantized import computes_int8
from fenlei.report.evaluation import evaluate_run
from fenlei.training import teacher as asked
from fenlei.training.distill import REPORT, Distillation, Measured, _card_section, distill
from fenlei.training.lessons import SOFTNESS, TEACHER_SHARE, Taught, label_divergence, taught_loss, teacher_divergence
from fenlei.training.objectives import label_loss
from fenlei.training.relabel import relabel
from fenlei.training.student_rows import student_config, student_rows, unlabelled_rows
from fenlei.training.teacher import clocked_answers, load_teacher, rows_per_second, soft_labels

pytestmark = pytest.mark.usefixtures("asked_once")
STUDENT: dict[str, Any] = {"batch_size": 16, "device": "cpu", "baseline": False, "learning_rate": 3e-3, "tuning": "full"}


@pytest.fixture(scope="module")
def teacher(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the toy rows by heart, trained on a file beside it."""
    folder = tmp_path_factory.mktemp("teacher")
    data = folder / "toy_news.jsonl"
    data.write_bytes(TOY_NEWS.read_bytes())
    train(data, model=str(tiny_qwen), out=folder / "run", max_steps=40, evals_per_epoch=1, seed=7, dev_ratio=0.3, **STUDENT)
    return folder / "run"


@pytest.fixture(scope="module")
def pool(teacher: Path) -> Path:
    """Texts that are no rows of the labelled file, one of them twice, and one that is."""
    rows = [json.loads(line)["text"] for line in (teacher.parent / "toy_news.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [f"{first[:6]}，{second[-6:]}" for first, second in itertools.pairwise(rows)]
    return write_jsonl(teacher.parent / "pool.jsonl", ({"text": text} for text in [*texts, texts[0], rows[0]]))


@pytest.fixture(scope="module")
def student(teacher: Path, pool: Path, tiny_qwen: Path) -> Distillation:
    out = teacher.parent / "student"
    return distill(teacher, str(tiny_qwen), out=out, unlabeled=pool, max_steps=60, **STUDENT)


def kl(first: np.ndarray, second: np.ndarray) -> float:
    return float((first * np.log(first / second)).sum(axis=1).mean())


def test_the_divergence_is_that_of_the_softened_distributions() -> None:
    logits, says = torch.randn(5, 4), torch.randn(5, 3)
    p, q = (says / SOFTNESS).softmax(1), (logits[:, :3] / SOFTNESS).softmax(1)
    expected = SOFTNESS**2 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(teacher_divergence(logits, says), expected)
    torch.testing.assert_close(teacher_divergence(torch.cat([says + 3.0, logits[:, 3:]], dim=1), says), torch.zeros(5), atol=1e-5, rtol=0)


def test_a_label_that_is_no_candidate_counts_nothing() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    says = torch.tensor([[1.0, 2.0, -torch.inf], [0.5, -torch.inf, 1.0]])
    divergence = teacher_divergence(logits, says)
    pair = teacher_divergence(logits[:1, :2], says[:1, :2])
    torch.testing.assert_close(divergence[:1], pair)
    divergence.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 2] == 0


def test_of_several_labels_each_is_a_question_by_itself() -> None:
    logits, says = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    says[0, 1] = -torch.inf
    softened = [torch.distributions.Bernoulli(logits=(one / SOFTNESS).masked_fill(says.isneginf(), 0)) for one in (says, logits)]
    expected = torch.distributions.kl_divergence(*softened).masked_fill(says.isneginf(), 0).sum(1) * SOFTNESS**2
    divergence = label_divergence(logits, says)
    torch.testing.assert_close(divergence, expected)
    divergence.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] == 0


def test_rows_without_a_label_learn_from_the_teacher_alone() -> None:
    logits, says, ids = torch.randn(3, 3), torch.randn(3, 3), torch.tensor([2, 0, 0])
    told = Taught(ids, torch.tensor([True, False, True]), says)
    divergence = teacher_divergence(logits, says)
    labelled = label_loss(logits[[0, 2]], ids[[0, 2]])
    expected = TEACHER_SHARE * divergence[[0, 2]].sum() + divergence[1] + (1 - TEACHER_SHARE) * labelled
    loss = taught_loss(label_loss)
    torch.testing.assert_close(loss(logits, told), expected)
    torch.testing.assert_close(loss(logits[1:2], told[[1]]), divergence[1])


def test_a_student_says_what_its_teacher_says(teacher: Path, pool: Path, student: Distillation, tiny_qwen: Path) -> None:
    texts = [json.loads(line)["text"] for line in pool.read_text(encoding="utf-8").splitlines()]
    says = Classifier.load(teacher, device="cpu").predict_proba(texts)
    learned = Classifier.load(student.training.out, device="cpu").predict_proba(texts)
    untaught = train(
        teacher.parent / "toy_news.jsonl", model=str(tiny_qwen), out=teacher.parent / "untaught", max_steps=60, seed=7, **STUDENT
    )
    assert kl(says, learned) < 0.2 * kl(says, Classifier.load(untaught.out, device="cpu").predict_proba(texts))
    assert (says.argmax(1) == learned.argmax(1)).mean() > 0.9


def test_the_teachers_dev_rows_stay_dev_rows(teacher: Path, student: Distillation) -> None:
    then, now = read_manifest(teacher), read_manifest(student.training.out)
    for part in ("selecting", "calibrating"):
        assert now["data"][part] == then["data"][part]
    assert now["labels"] == then["labels"]
    assert now["distilled_from"]["unlabelled_rows"] == student.unlabelled
    assert now["data"]["files"].keys() == {str(teacher.parent / "toy_news.jsonl"), str(teacher.parent / "pool.jsonl")}


def test_the_pool_holds_each_text_once_and_no_labelled_one(pool: Path, student: Distillation) -> None:
    lines = pool.read_text(encoding="utf-8").splitlines()
    assert student.unlabelled == len({line for line in lines}) - 1
    assert any("more are left out: they come twice, or are labelled rows" in note for note in student.training.notes)


def test_the_report_has_speed_and_accuracy_of_both(teacher: Path, student: Distillation) -> None:
    told = json.loads((student.training.out / REPORT).read_text(encoding="utf-8"))
    calibrating = read_manifest(teacher)["data"]["rows"]["calibrating"]
    for role in ("teacher", "student"):
        assert told[role]["rows_per_second"] > 0
        assert told[role]["metrics"]["rows"] == calibrating
        assert told[role]["metrics"]["intervals"]["macro_f1"]
    assert told["rows"] == {"labelled": student.labelled, "unlabelled": student.unlabelled}
    card = (student.training.out / "README.md").read_text(encoding="utf-8")
    assert "## Distilled" in card
    assert f"{student.teacher.metrics.accuracy:.3f}" in card
    assert "thresholds" not in card.partition("## Distilled")[2]


def test_a_speed_is_that_of_a_second_or_more_without_the_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    def answer(texts: list[str]) -> None:
        clock.now += 0.25 * len(texts)

    monkeypatch.setattr(asked, "time", clock)
    monkeypatch.setattr(asked, "LEAST_SECONDS", 1.0)
    assert rows_per_second(SimpleNamespace(predict_proba=answer), ["一", "二", "三"]) == 4.0  # type: ignore[arg-type]
    assert clock.now == 3 * 0.75, "once before, and twice until a second is over"


def test_an_exam_that_takes_long_enough_is_asked_once_and_clocked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now), []

    def answer(texts: list[str]) -> np.ndarray:
        sizes.append(len(texts))
        clock.now += 0.25 * len(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    monkeypatch.setattr(asked, "time", clock)
    monkeypatch.setattr(asked, "WINDOW_ROWS", 30)
    slow: Any = SimpleNamespace(predict_proba=answer)
    for least, again in ((12.5, []), (12.6, [32, 50, 50])):  # 50 texts take 12.5 seconds
        monkeypatch.setattr(asked, "LEAST_SECONDS", least)
        answers, pace = clocked_answers(slow, ["一"] * 50)
        assert (answers.shape, pace) == ((50, 2), 4.0)
        assert sizes == [32, 30, 20, *again]
        sizes.clear()


def test_names_of_runs_cannot_break_the_table_of_the_card() -> None:
    metrics = compute_metrics(np.array([0, 1]), np.eye(2), LabelSet(("a", "b")))
    sides = [Measured(name, metrics, 1.0, 10) for name in ("a|b", "*c*")]
    test = mcnemar(np.array([True, False]), np.array([True, True]))
    card = _card_section(Distillation(None, *sides, agreement=1.0, test=test, labelled=2, unlabelled=0))  # type: ignore[arg-type, misc]
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [6] * 4
    assert not re.search(r"(?<!\\)\*", card)


def test_no_text_is_asked_twice(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.load(teacher, device="cpu")
    texts = [f"新闻{number}" for number in range(5)]
    first = soft_labels(classifier, texts, tmp_path)
    monkeypatch.setattr(Classifier, "logits", lambda *_: pytest.fail("asked again"))
    np.testing.assert_array_equal(soft_labels(classifier, texts, tmp_path), first)
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        soft_labels(classifier, [*texts[:4], "另一条"], tmp_path)


@pytest.mark.skipif(not computes_int8(torch.device("cpu")), reason="this CPU multiplies no 8-bit integers")
def test_a_teacher_that_was_trained_in_8_bits_is_asked_in_them(
    teacher: Path, toy_file: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they can be computed; and what it says in them is not taken for what it says in floating point."""
    run = tmp_path / "run"
    train(toy_file, model=str(tiny_qwen), out=run, tuning="lora", int8=True, max_steps=2, device="cpu", baseline=False)
    assert "int8" not in load_teacher(teacher, "cpu").describe()
    in_int8 = load_teacher(run, "cpu")
    assert in_int8.describe()["int8"] is True
    monkeypatch.setattr(asked, "computes_int8", lambda _: False)
    in_float = load_teacher(run, "cpu")
    assert "int8" not in in_float.describe()
    texts = [json.loads(line)["text"] for line in toy_file.read_text(encoding="utf-8").splitlines()]
    said = [soft_labels(one, texts, tmp_path / "out") for one in (in_int8, in_float)]
    assert not np.array_equal(*said)
    np.testing.assert_allclose(*said, atol=0.3)


@pytest.mark.skipif(not computes_int8(torch.device("cpu")), reason="this CPU multiplies no 8-bit integers")
def test_a_teacher_that_generates_is_asked_in_floating_point(toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tuning": "lora", "max_steps": 1, "device": "cpu", "baseline": False}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", method="generate", int8=True, **options)
    assert "int8" not in load_teacher(tmp_path / "run", "cpu").describe()


def test_labels_and_files_that_do_not_fit_are_named(teacher: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.jsonl"
    rows = (teacher.parent / "toy_news.jsonl").read_text(encoding="utf-8").replace('"体育"', '"体肓"')
    strange.write_text(rows, encoding="utf-8")
    with pytest.raises(DataError, match=r"strange\.jsonl:\d+: label '体肓' is not one of '体育'.*the labels that "):
        distill(teacher, str(tiny_qwen), out=tmp_path / "out", data=strange, **STUDENT)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="empty"):
        distill(teacher, str(tiny_qwen), out=tmp_path / "out", unlabeled=empty, **STUDENT)
    with pytest.raises(ConfigError, match="teacher's probabilities"):
        distill(teacher, str(tiny_qwen), out=tmp_path / "out", method="generate", objective="tokens", device="cpu")
    assert not (tmp_path / "out" / "fenlei.json").exists()


def test_a_student_that_generates_is_asked_what_its_teacher_is(
    teacher: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among all labels: what texts of the pool offer is not looked at, and rows with labels are to offer nothing."""
    rows = [json.loads(line) for line in (teacher.parent / "toy_news.jsonl").read_text(encoding="utf-8").splitlines()]
    offered, strange = tmp_path / "offered.jsonl", tmp_path / "strange.jsonl"
    with offered.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({**row, "category": sorted({row["label"], "体育"})}, ensure_ascii=False) + "\n" for row in rows)
    with strange.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": f"{row['text']}。", "category": "甲, 乙"}, ensure_ascii=False) + "\n" for row in rows[:3])
    given = {**STUDENT, "method": "generate", "max_length": 300, "max_steps": 1}
    assert distill(teacher, str(tiny_qwen), out=tmp_path / "student", unlabeled=strange, **given).unlabelled == 3
    monkeypatch.setattr("fenlei.training.distill.load_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    with pytest.raises(ConfigError, match=r"offered\.jsonl:\d+: the row has candidates of its own"):
        distill(teacher, str(tiny_qwen), out=tmp_path / "out", data=offered, **given)
    with pytest.raises(ConfigError, match="shots change what the student is asked"):
        distill(teacher, str(tiny_qwen), out=tmp_path / "out", shots=2, **given)


def test_texts_are_read_from_the_column_that_the_teacher_reads(teacher: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """It was found by its name; in these files `content` would be found before it."""
    labelled, pool = tmp_path / "labelled.jsonl", tmp_path / "pool.jsonl"
    for path, mark in ((labelled, ""), (pool, "。")):
        rows = [{"content": "正文", "title": f"{row['text']}{mark}", "label": row["label"]} for row in toy_rows]
        write_jsonl(path, rows)
    manifest = {**read_manifest(teacher), "read_from": ["title"]}
    config = student_config(teacher, manifest, {}, labelled).data
    dataset = student_rows(teacher, manifest, config, seed=7)
    assert {row.text for row in (*dataset.train, *dataset.selecting, *dataset.calibrating)} == {row["text"] for row in toy_rows}
    rows, _ = unlabelled_rows(pool, manifest, config, dataset)
    assert {row.text for row in rows} == {f"{row['text']}。" for row in toy_rows}


def test_data_that_has_gone_is_asked_for(teacher: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    config = (teacher / "config.yaml").read_text(encoding="utf-8")
    try:
        (teacher / "config.yaml").write_text(config.replace("toy_news.jsonl", "gone.jsonl"), encoding="utf-8")
        with pytest.raises(DataError, match="not there any more; give the labelled rows"):
            distill(teacher, str(tiny_qwen), out=tmp_path / "out", **STUDENT)
    finally:
        (teacher / "config.yaml").write_text(config, encoding="utf-8")


def test_the_command_prints_both(teacher: Path, pool: Path, tiny_qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", str(teacher), "--to", str(tiny_qwen), "--unlabeled", str(pool), "--out", str(tmp_path / "out")]
    assert main([*words, "--max-steps", "2", "--device", "cpu", "--no-baseline"]) == 0
    told = capsys.readouterr()
    assert "Teacher" in told.out
    assert "Student" in told.out
    assert main([*words, "--json"]) == 1
    assert "already holds a complete run" in capsys.readouterr().err


def test_other_rows_have_the_levels_that_the_teachers_have(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    data = tmp_path / "levels.jsonl"
    leveled = [{**row, "label": f"{'生活' if row['label'] == '体育' else '新闻'}##{row['label']}"} for row in toy_rows]
    write_jsonl(data, leveled)
    options = {**STUDENT, "tuning": "frozen", "max_steps": 1}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", level_separator="##", **options)
    distill(tmp_path / "run", str(tiny_qwen), out=tmp_path / "student", data=data, **options)
    assert read_manifest(tmp_path / "student")["level_separator"] == "##"
    assert [one.level for one in evaluate_run(tmp_path / "student", data, device="cpu").levels] == [1, 2]


def test_of_an_extended_run_rows_of_all_classes_are_asked_for(teacher: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """Its config.yaml names the rows of its new classes."""
    shutil.copytree(teacher, tmp_path / "run")
    write_manifest(tmp_path / "run", {**read_manifest(teacher), "extended_from": {"run": "runs/before", "known_labels": 2}})
    with pytest.raises(DataError, match=r"was extended.*give labelled rows of all its classes"):
        distill(tmp_path / "run", str(tiny_qwen), out=tmp_path / "out", **STUDENT)
    given = {**STUDENT, "tuning": "frozen", "max_steps": 1}
    assert distill(tmp_path / "run", str(tiny_qwen), out=tmp_path / "out", data=teacher.parent / "toy_news.jsonl", **given).labelled


def test_the_teacher_is_measured_on_rows_that_it_has_not_learned(teacher: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """Given the very file that it was trained on, its dev rows are dev rows again; where another share is asked for, a note says so."""
    given = {**STUDENT, "tuning": "frozen", "max_steps": 1, "data": teacher.parent / "toy_news.jsonl"}
    told: list[str] = []
    distill(teacher, str(tiny_qwen), out=tmp_path / "same", seed=3, announce=told.append, **given)

    def dev_lines(run: Path) -> set[int]:
        rows = read_manifest(run)["data"]
        shown = [part for name in ("selecting", "calibrating") for ranges in rows[name].values() for part in ranges.split(",")]
        return {line for part in shown for line in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)}

    for part in ("selecting", "calibrating"):  # what selected the teacher selects again, and measures neither
        assert read_manifest(tmp_path / "same")["data"][part] == read_manifest(teacher)["data"][part]
    assert any("were dev rows of the teacher, and are dev rows again" in note for note in told)
    distill(teacher, str(tiny_qwen), out=tmp_path / "other", dev_ratio=0.5, announce=told.append, **given)
    assert dev_lines(tmp_path / "other") != dev_lines(teacher)
    assert any("dev rows may have trained the teacher" in note for note in told)


def test_what_is_to_test_the_teacher_teaches_nobody(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """Though the very file is given, as rows with labels and as texts without, and split by another seed."""
    run = tmp_path / "run"
    train(toy_file, model=str(tiny_qwen), out=run, test_ratio=0.2, **{**STUDENT, "tuning": "frozen", "max_steps": 1})
    tested = {json.loads(line)["text"] for line in (run / "test.jsonl").read_text(encoding="utf-8").splitlines()}
    manifest = read_manifest(run)
    config = student_config(run, manifest, {}, toy_file).data

    def learned() -> set[str]:
        dataset = student_rows(run, manifest, config, seed=3)
        pool, _ = unlabelled_rows(toy_file, manifest, config, dataset)
        return {row.text for row in (*dataset.train, *dataset.selecting, *dataset.calibrating, *pool)}

    assert len(tested) == 12
    assert not learned() & tested
    _, (note,) = unlabelled_rows(toy_file, manifest, config, student_rows(run, manifest, config, seed=3))
    assert note.endswith("60 more are left out: they come twice, or are labelled rows, or test rows of the teacher")
    del manifest["data"]["test"]  # as an older fenlei wrote it
    assert tested < learned()
    notes = student_rows(run, manifest, config, seed=3).notes
    assert any("did not write down which 12 rows were set aside for test" in note for note in notes)


def test_rows_with_the_labels_that_a_run_was_given_since_teach_a_student(
    tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    """Its class file has the names from before, and so may the rows."""
    (tmp_path / "names.txt").write_text("体育\n财经\n科技\n", encoding="utf-8")
    options = {**STUDENT, "tuning": "frozen", "max_steps": 1}

    def written(name: str, rows: list[dict[str, str]]) -> Path:
        return write_jsonl(tmp_path / name, rows)

    data = written("rows.jsonl", toy_rows)
    train(data, model=str(tiny_qwen), out=tmp_path / "run", class_file=str(tmp_path / "names.txt"), **options)
    relabel(tmp_path / "run", out=tmp_path / "renamed", rename={"体育": "运动"})
    renamed = written("renamed.jsonl", [{**row, "label": row["label"].replace("体育", "运动")} for row in toy_rows])
    distill(tmp_path / "renamed", str(tiny_qwen), out=tmp_path / "student", data=renamed, **options)
    assert read_manifest(tmp_path / "student")["labels"] == ["运动", "财经", "科技"]
    ids = written("ids.jsonl", [{**row, "label": str(["体育", "财经", "科技"].index(row["label"]))} for row in toy_rows])
    distill(tmp_path / "renamed", str(tiny_qwen), out=tmp_path / "by_ids", data=ids, **options)
    assert read_manifest(tmp_path / "by_ids")["labels"] == ["运动", "财经", "科技"]
    relabel(tmp_path / "run", out=tmp_path / "dropped", drop=["科技"])
    for name, left in (("renamed", {"运动", "财经", "科技"}), ("dropped", {"体育", "财经"})):  # from the rows that it learned from
        manifest = read_manifest(tmp_path / name)
        config = student_config(tmp_path / name, manifest, {}, None)
        dataset = student_rows(tmp_path / name, manifest, config.data, seed=config.optimization.seed)
        learned = Counter(row.label for row in (*dataset.train, *dataset.selecting, *dataset.calibrating))
        assert learned == dict.fromkeys(left, 20)
    assert dataset.notes[-1] == "20 rows are left out: their labels were dropped from the run"
    assert evaluate_run(tmp_path / "student", data, device="cpu").metrics.rows == 60


def test_a_run_with_several_labels_a_text_teaches_each(tmp_path: Path) -> None:
    """Two topics a text at most: the student has the teacher's labels, its levels, its dev rows, and says nearly what it says."""
    words = {"财经": "股市利率基金", "科技##手机": "手机屏幕芯片", "科技##航天": "火箭卫星飞船"}
    names = list(words)
    rows = []
    for at in range(240):
        topics = [names[(at + step) % 3] for step in range(at // 3 % 3)]
        text = "今天" + "".join(words[name][at % 3 * 2 :][:2] * 2 for name in topics)
        rows.append({"text": f"{text}消息{at}", "label": topics})
    data, pool = tmp_path / "rows.jsonl", tmp_path / "pool.jsonl"
    write_jsonl(data, rows[:200])
    write_jsonl(pool, ({"text": f"{row['text']}。"} for row in rows))
    options = {"batch_size": 16, "device": "cpu", "baseline": False}
    train(data, model="nano", out=tmp_path / "run", epochs=6, dev_ratio=0.4, level_separator="##", **options)
    result = distill(tmp_path / "run", "nano", out=tmp_path / "student", unlabeled=pool, epochs=6, **options)
    then, now = read_manifest(tmp_path / "run"), read_manifest(tmp_path / "student")
    assert now["labels"] == then["labels"]
    assert now["problem_type"] == "multi_label_classification"
    assert now["data"]["calibrating"] == then["data"]["calibrating"]
    assert result.agreement > 0.9
    assert result.teacher.metrics.to_json()["micro_f1"] > 0.9
    told = json.loads((tmp_path / "student" / REPORT).read_text(encoding="utf-8"))
    assert told["student"]["metrics"]["problem_type"] == "multi_label_classification"
    card = (tmp_path / "student" / "README.md").read_text(encoding="utf-8").split("## Distilled")[1]
    assert "micro F1" in card
    assert "The student's thresholds were chosen on these rows" in card
    texts = [json.loads(line)["text"] for line in pool.read_text(encoding="utf-8").splitlines()]
    says, learned = (Classifier.load(tmp_path / name, device="cpu").predict_proba(texts) for name in ("run", "student"))
    assert np.abs(says - learned).mean() < 0.05
    again = distill(tmp_path / "run", "nano", out=tmp_path / "other", data=data, max_steps=2, **options)  # a file says nothing of several
    assert again.labelled
    plain = tmp_path / "plain.jsonl"
    plain.write_text(data.read_text(encoding="utf-8").replace('["财经"]', '"财经"', 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"plain\.jsonl:\d+: expected a list of labels"):
        distill(tmp_path / "run", "nano", out=tmp_path / "third", data=plain, **options)

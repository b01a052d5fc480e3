"""Two finished runs, each in its folder, evaluated side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl
from extending import weather

from fenlei import train
from fenlei.artifact import read_manifest
from fenlei.errors import DataError
from fenlei.report.evaluation import evaluate_run
from fenlei.training.extend import extend
from fenlei.training.held_out import DEV, lines_of, numbers

QUICK: dict[str, Any] = {"tuning": "frozen", "max_steps": 4, "batch_size": 8, "device": "cpu", "baseline": False}


@pytest.fixture
def runs(tiny_qwen: Path, tiny_bert: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> tuple[Path, Path]:
    """Of two models, which know the labels in different orders."""
    folders = []
    for name, model, rows in (("qwen", tiny_qwen, toy_rows), ("bert", tiny_bert, toy_rows[::-1])):
        data = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        folders.append(train(data, model=str(model), out=tmp_path / name, **QUICK).out)
    return folders[0], folders[1]


def row_of(table: str, label: str) -> list[str]:
    """The cells of a row of a Markdown table, without its name."""
    line = next(line for line in table.split("\n") if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_every_class_is_a_row_and_every_run_a_column(runs: tuple[Path, Path], toy_file: Path) -> None:
    first, second = runs
    assert read_manifest(first)["labels"] == read_manifest(second)["labels"][::-1]
    alone = evaluate_run(second, toy_file, device="cpu")
    compared = evaluate_run(first, toy_file, device="cpu", compare_with=[second])
    assert [one.name for one in compared.comparison] == ["qwen", "bert"]
    markdown = (first / "report" / "report.md").read_text(encoding="utf-8")
    table = markdown.partition("F1 by class")[2]
    assert table.index("qwen") < table.index("bert")
    theirs = {one.name: one for one in alone.metrics.classes}
    for one in compared.metrics.classes:
        assert row_of(table, one.name) == [f"{one.f1:.3f}", f"{theirs[one.name].f1:.3f}", f"{one.support:,}"]
    html = (first / "report" / "report.html").read_text(encoding="utf-8")
    assert "<summary>F1 by class</summary>" in html


def test_rows_that_a_run_may_have_learned_from_are_told(toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """Of the file it was trained on; and of one run's test rows, which another seed has set aside others of."""
    options = {**QUICK, "model": str(tiny_qwen), "test_ratio": 0.2}
    first, second = (train(toy_file, out=tmp_path / f"run{seed}", seed=seed, **options).out for seed in (0, 1))
    rows = read_manifest(first)["data"]["rows"]
    flattered = [note for note in evaluate_run(first, toy_file, device="cpu").notes if "flattered" in note]
    assert [note.partition(":")[0] for note in flattered] == [
        f"{rows['train']} of these rows may have trained the run",
        f"{rows['selecting'] + rows['calibrating']} of these rows chose the checkpoint of the run or calibrated it",
    ]
    tests = [set((run / "test.jsonl").read_text(encoding="utf-8").splitlines()) for run in (first, second)]
    compared = evaluate_run(first, first / "test.jsonl", device="cpu", compare_with=[second])
    assert [note.partition(",")[0] for note in compared.notes if "flattered" in note] == [
        f"{len(tests[0] - tests[1])} of these rows were not set aside to test run1"
    ]
    again = train(toy_file, out=tmp_path / "again", seed=0, **options).out
    assert not any("flattered" in note for note in evaluate_run(first, first / "test.jsonl", device="cpu", compare_with=[again]).notes)


def test_rows_that_a_run_learned_from_before_it_was_extended_are_told(
    toy_file: Path, toy_rows: list[dict[str, str]], tiny_qwen: Path, tmp_path: Path
) -> None:
    """Also where the extension has read another file of them."""
    run = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", test_ratio=0.2, **QUICK).out
    replay, dev = write_jsonl(tmp_path / "replay.jsonl", toy_rows[1:]), write_jsonl(tmp_path / "dev.jsonl", [*toy_rows, *weather()])
    new = write_jsonl(tmp_path / "new.jsonl", weather())
    grown = extend(run, new, replay=replay, dev=str(dev), out=tmp_path / "grown", **QUICK).training.out
    assert str(toy_file) not in read_manifest(grown)["data"]["files"]
    flattered = [note.partition(":")[0] for note in evaluate_run(grown, toy_file, device="cpu").notes if "flattered" in note]
    assert flattered == ["48 of these rows may have trained the run"]


def test_test_rows_that_were_put_together_with_others_are_told_or_kept_apart(
    toy_file: Path, toy_rows: list[dict[str, str]], tiny_qwen: Path, tmp_path: Path
) -> None:
    """As after a round of annotation: all rows are one file, whose lines say nothing of the test rows of the run before."""
    options = {**QUICK, "model": str(tiny_qwen)}
    first = train(toy_file, out=tmp_path / "first", test_ratio=0.2, **options).out
    annotated = [{"text": f"{row['text']}！", "label": row["label"]} for row in toy_rows[:6]]
    together, tests = write_jsonl(tmp_path / "next.jsonl", [*toy_rows, *annotated]), first / "test.jsonl"
    tested = {json.loads(line)["text"] for line in tests.read_text(encoding="utf-8").split("\n") if line}

    careless = train(together, out=tmp_path / "careless", **options).out
    dev = {line for ranges in lines_of(read_manifest(careless), *DEV).values() for line in numbers(ranges)}
    taught = sum(row["text"] in tested and line not in dev for line, row in enumerate(toy_rows, start=1))
    assert taught > 0
    told = f"{taught} of these rows have the text of one that may have trained {{}}, which may know them by heart"
    assert told.format("the run") in evaluate_run(careless, tests, device="cpu").notes
    compared = evaluate_run(first, tests, device="cpu", compare_with=[careless]).notes
    assert [note for note in compared if "by heart" in note] == [told.format("careless")]

    apart = train(together, out=tmp_path / "apart", test=str(tests), **options)
    assert any(note.startswith("12 rows do not train: their texts are those of test rows") for note in apart.notes)
    rows = read_manifest(apart.out)["data"]["rows"]
    assert (rows["train"] + rows["selecting"] + rows["calibrating"], rows["test"]) == (54, 12)
    assert not any("by heart" in note for note in evaluate_run(apart.out, tests, device="cpu").notes)


def test_each_run_reads_the_columns_that_it_has_learned_from(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    rows = [{"title": row["text"], "body": row["text"][::-1], "label": row["label"], "kind": row["label"]} for row in toy_rows]
    data = write_jsonl(tmp_path / "both.jsonl", rows)
    titles, bodies = (
        train(data, model=str(tiny_qwen), out=tmp_path / name, text_column=text, label_column=label, **QUICK).out
        for name, text, label in (("titles", "title", "label"), ("bodies", "body", "kind"))
    )
    alone = evaluate_run(bodies, data, out=tmp_path / "alone", device="cpu").metrics.log_loss
    compared = evaluate_run(titles, data, device="cpu", compare_with=[bodies])
    assert [one.name for one in compared.comparison] == ["titles", "bodies"]
    assert compared.comparison[1].metrics.log_loss == pytest.approx(alone, abs=1e-5)
    assert "bodies has learned its labels from column 'kind', and is measured on those of 'label'" in compared.notes
    told = json.loads((titles / "report" / "metrics.json").read_text(encoding="utf-8"))["comparison"][1]["metrics"]
    assert told["log_loss"] == compared.comparison[1].metrics.log_loss

    named = evaluate_run(titles, data, text_column="title", out=tmp_path / "named", device="cpu", compare_with=[bodies])
    on_titles = evaluate_run(bodies, data, text_column="title", out=tmp_path / "on_titles", device="cpu").metrics.log_loss
    assert named.comparison[1].metrics.log_loss == pytest.approx(on_titles, abs=1e-5)
    assert abs(on_titles - alone) > 1e-4, "else this shows nothing"
    short = write_jsonl(tmp_path / "short.jsonl", [{"title": row["title"], "label": row["label"]} for row in rows])
    with pytest.raises(DataError, match=r"bodies: cannot be compared, since rows lack what it .*: no column 'body', .* with --text-column"):
        evaluate_run(titles, short, out=tmp_path / "never", device="cpu", compare_with=[bodies])
    assert not (tmp_path / "never").exists()


def test_a_run_on_pairs_is_compared_with_one_on_single_texts(tiny_bert: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "pairs.jsonl", [{**row, "beside": row["text"][:4]} for row in toy_rows])
    options = {**QUICK, "model": str(tiny_bert), "text_column": "text"}
    single = train(data, out=tmp_path / "single", **options).out
    pairs = train(data, out=tmp_path / "pairs", pair_column="beside", **options).out
    for first, second, named in ((single, pairs, None), (pairs, single, None), (pairs, single, "beside")):
        alone = evaluate_run(second, data, out=tmp_path / "alone", device="cpu").metrics.log_loss
        compared = evaluate_run(first, data, pair_column=named, device="cpu", compare_with=[second]).comparison
        assert compared[1].metrics.log_loss == pytest.approx(alone, abs=1e-5)

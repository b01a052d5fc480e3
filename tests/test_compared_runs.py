"""Two finished runs, each in its folder, evaluated side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl
from extending import weather

from fenlei import train
from fenlei.artifact import read_manifest
from fenlei.report.evaluation import evaluate_run
from fenlei.training.extend import extend

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

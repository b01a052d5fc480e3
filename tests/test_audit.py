"""The audit names every fault that was put into a file, with its row, and the fix takes out what is sure and nothing else."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import re
import shlex
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl
from rich.console import Console

from fenlei.audit.audit import Audit, _judged_by_baseline, audit_data
from fenlei.audit.document import to_document
from fenlei.audit.fix import plan_fixes, write_fixed
from fenlei.audit.label_errors import _folds, cross_validated_probabilities, estimated_errors, find_label_errors
from fenlei.audit.profile import find_look_alikes
from fenlei.audit.rows import gather
from fenlei.audit.tables import audit_tables, next_steps
from fenlei.audit.warnings import WARNING, data_warnings
from fenlei.cli.main import main
from fenlei.config import DataConfig, RunConfig
from fenlei.data.examples import Example
from fenlei.data.readers import read_examples
from fenlei.data.splits import load_dataset
from fenlei.errors import ConfigError, DataError

KEYS = ("duplicates", "near_duplicates", "leaks", "conflicts", "label_errors", "lengths", "classes")
Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers(document: Row, key: str) -> list[int]:
    return [row["row"] for row in document[key]["rows"]]


@pytest.fixture
def faulty(tmp_path: Path, toy_rows: list[Row]) -> Path:
    """The toy rows, and below them from row 61 on the faults."""
    first, second, third, fourth = toy_rows[:4]
    other = next(row["label"] for row in toy_rows if row["label"] != first["label"])
    faults = [
        {**first, "id": 61},
        {**second, "text": second["text"] + "！"},
        {**third, "text": third["text"][:3] + "囧" + third["text"][4:]},
        {**fourth, "label": next(row["label"] for row in toy_rows if row["label"] != fourth["label"])},
        {"text": "  ", "label": other},
        {"text": "没有标签的一行文字", "label": None},
        {"text": "长" * 3000, "label": other},
    ]
    return write_jsonl(tmp_path / "faulty.jsonl", [*toy_rows, *faults])


def test_every_fault_is_named_with_its_row(faulty: Path) -> None:
    found = to_document(audit_data(faulty))
    assert numbers(found, "duplicates") == [61, 64]
    assert found["duplicates"]["rows"][0]["of"]["row"] == 1
    assert numbers(found, "near_duplicates") == [62, 63]
    assert [row["edits"] for row in found["near_duplicates"]["rows"]] == [0, 1]
    assert numbers(found, "conflicts") == [4, 64]
    assert [(row["row"], row["problem"]) for row in found["lengths"]["rows"]] == [(65, "empty"), (67, "about 2,250 tokens")]
    assert [(row["row"], row["problem"]) for row in found["classes"]["rows"]] == [(66, "no label")]
    assert found["leaks"]["rows"] == []
    assert found["parts"] == {"train": 67, "dev": 0, "test": 0}


def test_a_clean_file_has_nothing_but_perhaps_doubtful_labels(toy_file: Path) -> None:
    found = to_document(audit_data(toy_file))
    assert all(not found[key]["rows"] for key in KEYS if key != "label_errors")
    assert set(KEYS) <= found.keys()
    assert found["classes"]["counts"] == {label: 20 for label in found["classes"]["counts"]}


def test_leaks_are_found_across_parts_exact_and_near(tmp_path: Path, toy_rows: list[Row]) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", toy_rows[:40])
    near = {**toy_rows[7], "text": toy_rows[7]["text"][:-1] + "囧"}
    test = write_jsonl(tmp_path / "test.jsonl", [*toy_rows[40:50], toy_rows[3], near, toy_rows[3]])
    found = to_document(audit_data(train, test=test))
    assert numbers(found, "leaks") == [11, 12, 13]
    assert [row["of"]["row"] for row in found["leaks"]["rows"]] == [4, 8, 4]
    assert [row["exact"] for row in found["leaks"]["rows"]] == [True, False, True]
    assert all(row["file"] == str(test) and row["of"]["file"] == str(train) for row in found["leaks"]["rows"])
    assert numbers(found, "duplicates") == [13]  # within test
    assert not found["near_duplicates"]["rows"]
    assert to_document(audit_data(tmp_path))["leaks"] == found["leaks"]  # the folder says the same


def test_a_test_file_without_labels_is_compared_all_the_same(tmp_path: Path, toy_rows: list[Row]) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", toy_rows[:40])
    test = write_jsonl(tmp_path / "test.jsonl", [{"text": row["text"]} for row in toy_rows[38:50]])
    found = to_document(audit_data(train, test=test))
    assert numbers(found, "leaks") == [1, 2]
    assert not found["classes"]["rows"]


def test_a_test_file_with_the_id_of_no_class_in_every_row_has_no_labels(tmp_path: Path, toy_rows: list[Row]) -> None:
    names = list(dict.fromkeys(row["label"] for row in toy_rows))
    info = {"features": {"label": {"names": names, "_type": "ClassLabel"}}}
    for part, rows in (("train", toy_rows[:40]), ("test", toy_rows[38:50])):
        ids = [-1 if part == "test" else names.index(row["label"]) for row in rows]
        table = pa.table({"text": [row["text"] for row in rows], "label": ids})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": info})}), tmp_path / f"{part}.parquet")
    audit = audit_data(tmp_path)
    assert numbers(to_document(audit), "leaks") == [1, 2]
    assert not to_document(audit)["classes"]["rows"]
    assert any("test.parquet: no labels" in note for note in audit.rows.notes)


def test_rows_from_stdin_are_refused(toy_file: Path) -> None:
    with pytest.raises(ConfigError, match="an audit needs a file or a folder, found '-'"):
        audit_data("-")
    with pytest.raises(ConfigError, match="an audit needs a file or a folder, found '-'"):
        audit_data(toy_file, test="-")
    read_end, write_end = os.pipe()
    os.close(write_end)
    with os.fdopen(read_end), pytest.raises(ConfigError, match="dev: an audit needs a file or a folder, found '/dev/fd/"):
        audit_data(toy_file, dev=f"/dev/fd/{read_end}")


def test_every_part_is_read_from_the_columns_of_train(tmp_path: Path, toy_rows: list[Row]) -> None:
    """As training reads them; in the dev file `content` would be found before `title`."""
    train = write_jsonl(tmp_path / "train.jsonl", [{"title": row["text"], "label": row["label"]} for row in toy_rows[:40]])
    more = [{"content": f"正文{place}", "title": row["text"], "label": row["label"]} for place, row in enumerate(toy_rows[38:50])]
    found = audit_data(train, dev=write_jsonl(tmp_path / "dev.jsonl", more))
    assert numbers(to_document(found), "leaks") == [1, 2]
    assert any("dev.jsonl: JSON lines, text from 'title'" in note for note in found.rows.notes)


def test_the_number_of_a_row_is_not_its_line(tmp_path: Path, toy_rows: list[Row]) -> None:
    path = tmp_path / "rows.csv"
    lines = ["text,label", *(f'"{row["text"]}\nmore",{row["label"]}' for row in [*toy_rows[:30], toy_rows[0]])]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (row,) = to_document(audit_data(path))["duplicates"]["rows"]
    assert (row["row"], row["line"]) == (31, 62)


def test_a_text_that_differs_in_a_number_is_named_but_not_removed(tmp_path: Path, toy_rows: list[Row]) -> None:
    dated = [{"text": f"{day}月1日基金盘前交易提示", "label": toy_rows[0]["label"]} for day in (3, 8)]
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", [*toy_rows, *dated]))
    (row,) = to_document(audit)["near_duplicates"]["rows"]
    assert row["other_number"]
    assert [one.action for one in plan_fixes(audit) if one.row == 61] == ["review"]


def test_a_text_with_a_figure_more_in_its_number_is_not_removed(tmp_path: Path, toy_rows: list[Row]) -> None:
    texts = ("公司全年利润增长50亿", "公司全年利润增长150亿", "指数全天上涨1.5%", "指数全天上涨15%")
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", [*toy_rows, *({"text": text, "label": toy_rows[0]["label"]} for text in texts)]))
    assert [(row["row"], row["other_number"]) for row in to_document(audit)["near_duplicates"]["rows"]] == [(62, True), (64, True)]
    assert not [one for one in plan_fixes(audit) if one.action == "removed"]


def test_a_copy_goes_only_where_the_row_it_copies_stays(tmp_path: Path, toy_rows: list[Row]) -> None:
    one, other = sorted({row["label"] for row in toy_rows})[:2]
    unlabelled, disputed, chain = "没有标签的文字放在前面", "相同文字有不同标签怎么办", "甲乙丙丁戊己庚辛子丑寅卯"
    added = [
        *({"text": unlabelled, "label": label} for label in (None, one, one)),
        *({"text": disputed, "label": label} for label in (one, other)),
        {"text": disputed[:-1] + "囧", "label": one},
        {"text": disputed[:-2] + "囧囧", "label": one},
        *({"text": "囧" * far + chain[far:], "label": one} for far in (0, 2, 4)),
    ]
    path = write_jsonl(tmp_path / "a.jsonl", [*toy_rows, *added])
    removed = {touched.row + 1: touched.reason for touched in plan_fixes(audit_data(path)) if touched.action == "removed"}
    conflict = f"conflict: the text has the labels {one!r} 1, {other!r} 1"
    assert removed == {
        61: "no label",
        63: f"duplicate: {path}:62 has the same text",
        **{64: conflict, 65: conflict},
        67: f"near duplicate: {path}:66 has nearly the same text",
        69: f"near duplicate: {path}:68 has nearly the same text",
    }


def test_fix_writes_the_names_of_ids(tmp_path: Path, toy_rows: list[Row]) -> None:
    names = list(dict.fromkeys(row["label"] for row in toy_rows))
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    path = write_jsonl(tmp_path / "a.jsonl", [{**row, "label": names.index(row["label"])} for row in toy_rows])
    result = write_fixed(audit_data(path, class_file=tmp_path / "names.txt"), tmp_path / "fixed.jsonl")
    assert read(result.out) == toy_rows


def test_fix_keeps_what_is_right_column_for_column_and_logs_the_rest(faulty: Path, tmp_path: Path) -> None:
    out = tmp_path / "fixed.jsonl"
    before = faulty.read_bytes()
    audit = audit_data(faulty)
    result = write_fixed(audit, out)
    assert faulty.read_bytes() == before
    log = read(result.log)
    removed = {row["row"]: row["reason"].partition(":")[0] for row in log if row["action"] == "removed"}
    assert removed == {
        **{4: "conflict", 64: "conflict", 61: "duplicate", 62: "near duplicate", 63: "near duplicate"},
        **{65: "no text", 66: "no label"},
    }
    rows = read(faulty)
    assert read(out) == [row for number, row in enumerate(rows, start=1) if number not in removed]
    assert (result.kept, result.removed, result.review) == (60, 7, len(log) - 7)
    assert any(row["row"] == 67 and row["action"] == "review" for row in log)
    again = to_document(audit_data(out))
    assert all(not again[key]["rows"] for key in ("duplicates", "near_duplicates", "conflicts"))


def test_fix_takes_leaks_from_train_with_all_their_copies(tmp_path: Path, toy_rows: list[Row]) -> None:
    near = {**toy_rows[7], "text": toy_rows[7]["text"] + "。"}
    train = write_jsonl(tmp_path / "train.jsonl", [*toy_rows[:40], toy_rows[3], near, near])
    test = write_jsonl(tmp_path / "test.jsonl", [toy_rows[3], {**toy_rows[7], "text": toy_rows[7]["text"] + "！！"}])
    result = write_fixed(audit_data(train, test=test), tmp_path / "fixed.jsonl")
    assert {row["row"] for row in read(result.log) if row["reason"].startswith("leak")} == {4, 8, 41, 42, 43}
    assert not to_document(audit_data(tmp_path / "fixed.jsonl", test=test))["leaks"]["rows"]


def test_a_text_under_two_labels_keeps_the_majoritys(tmp_path: Path, toy_rows: list[Row]) -> None:
    names = sorted({row["label"] for row in toy_rows})
    same = [{"text": "同一段文字两种标签怎么办", "label": label} for label in (names[0], names[1], names[1])]
    result = write_fixed(audit_data(write_jsonl(tmp_path / "a.jsonl", [*toy_rows, *same])), tmp_path / "b.jsonl")
    assert [row["row"] for row in read(result.log) if row["action"] == "removed"] == [61, 63]
    assert read(tmp_path / "b.jsonl")[-1] == same[1]


def test_fix_never_writes_over_what_was_audited(toy_file: Path, tmp_path: Path) -> None:
    audit = audit_data(toy_file)
    with pytest.raises(ConfigError, match="is the file that was audited"):
        write_fixed(audit, toy_file)
    with pytest.raises(ConfigError, match="expected a file to write, ending in"):
        write_fixed(audit, tmp_path / "a.parquet")


def test_fix_writes_csv_that_reads_back(faulty: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": row["label"]} for row in read(faulty)]
    result = write_fixed(audit_data(write_jsonl(tmp_path / "plain.jsonl", rows)), tmp_path / "fixed.csv")
    assert [row.text for row in read_examples(result.out)] == [row["text"] for row in rows[:3] + rows[4:60] + rows[66:]]


def two_topics(rows: int, dice: random.Random) -> list[Row]:
    words = {"财经": "股市基金央行利率债券银行涨跌", "体育": "球队比赛冠军进球教练主场联赛"}
    return [{"text": "".join(dice.choices(words[name], k=12)), "label": name} for _ in range(rows) for name in words]


def test_flipped_labels_come_first(tmp_path: Path) -> None:
    dice = random.Random(0)
    rows = two_topics(150, dice)
    flipped = sorted(dice.sample(range(300), 9))
    for place in flipped:
        rows[place]["label"] = "体育" if rows[place]["label"] == "财经" else "财经"
    found = to_document(audit_data(write_jsonl(tmp_path / "a.jsonl", rows)))["label_errors"]
    assert sorted(row["row"] - 1 for row in found["rows"][:9]) == flipped
    assert 8 <= found["estimated"] <= 12
    assert all(row["suggested"] != row["label"] and row["own_probability"] < row["probability"] for row in found["rows"])


def test_copies_of_a_row_share_its_fold() -> None:
    text_ids = np.random.RandomState(0).randint(0, 40, 200)
    label_ids = text_ids % 3
    folds = _folds(text_ids, label_ids, 5)
    assert all(len(set(folds[text_ids == text])) == 1 for text in range(40))
    assert set(folds) == {0, 1, 2, 3, 4}
    assert np.array_equal(folds, _folds(text_ids, label_ids, 5))


def test_a_wrong_label_that_comes_with_copies_of_its_text_is_not_learned_by_heart() -> None:
    rows = two_topics(60, random.Random(2))
    wrong = [{"text": rows[0]["text"] + "央行股市", "label": "体育"}] * 6
    texts = [row["text"] for row in [*rows, *wrong]]
    labels = np.array([row["label"] == "体育" for row in [*rows, *wrong]], dtype=np.int64)
    text_ids = np.unique(texts, return_inverse=True)[1]
    assert (cross_validated_probabilities(texts, text_ids, labels, 2)[-6:, 1] < 0.5).all()


def test_one_long_text_does_not_give_every_row_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*(f"标题{at % 1500}" for at in range(2000)), "长" * 20_000]
    rows = gather([[Example(text, "ab"[at % 2], "a.jsonl", at + 1) for at, text in enumerate(texts)]])
    assert len(rows.plain_texts) == 2001
    asked = []

    def even(texts: Sequence[str], text_ids: np.ndarray, *_: Any) -> np.ndarray:
        asked.append(text_ids)
        return np.full((len(texts), 2), 0.5, dtype=np.float32)

    monkeypatch.setattr("fenlei.audit.audit.cross_validated_probabilities", even)
    tracemalloc.start()
    try:
        _judged_by_baseline(rows)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24, "2,001 rows of 20,000 characters, four bytes each, are 160 MB"
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(asked[0], np.unique([text[:20] for text in texts], return_inverse=True)[1])


def test_the_estimate_is_that_of_the_confident_joint() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55], [0.95, 0.05]], dtype=np.float32)
    # Thresholds: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.8 + 0.55 + 0.05) / 3 = 0.467. Rows 2 and 5 reach the other's.
    assert estimated_errors(labels, answers) == 2
    found = find_label_errors([10, 11, 12, 13, 14, 15], labels, answers, ["a", "b"], "by hand")
    assert [(suspect.row, suspect.label, suspect.suggested) for suspect in found.rows] == [(15, "b", "a"), (12, "a", "b")]


@pytest.mark.parametrize("case", ["one row", "one text", "one class", "no labels", "no texts"])
def test_what_cannot_be_judged_is_said_and_all_else_is_shown(tmp_path: Path, toy_rows: list[Row], case: str) -> None:
    rows = {
        "one row": toy_rows[:1],
        "one text": [{"text": "同一段文字", "label": str(place % 2)} for place in range(30)],
        "one class": [{**row, "label": "x"} for row in toy_rows],
        "no labels": [{**row, "label": None} for row in toy_rows],
        "no texts": [{**row, "text": ""} for row in toy_rows],
    }[case]
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", rows))
    assert audit.label_errors.rows == ()
    assert "it takes two classes and 20 texts with a label" in audit.label_errors.note
    assert f"{len(rows)} rows" in shown(audit)
    assert write_fixed(audit, tmp_path / "b.jsonl").kept == {"one row": 1, "one class": 60}.get(case, 0)


def test_ids_are_named_by_their_class_file_and_strange_ones_told(tmp_path: Path, toy_rows: list[Row]) -> None:
    names = list(dict.fromkeys(row["label"] for row in toy_rows))
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    rows = [{**row, "label": names.index(row["label"])} for row in toy_rows]
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": "一行别的文字", "label": 9}]), class_file=tmp_path / "names.txt")
    assert audit.classes.counts == {**dict.fromkeys(names, 20), "9": 1}
    assert [(odd.row, odd.problem) for odd in audit.classes.rows] == [(60, "alone in its class '9'")]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ({"sports": 9, "Sports": 2}, (("Sports", "sports"),)),
        ({"finance": 9, "finnance": 1}, (("finnance", "finance"),)),
        ({"财 经": 1, "财经": 5}, (("财 经", "财经"),)),
        ({"level_1": 5, "level_2": 4}, ()),
        ({"好评": 5, "差评": 4}, ()),
        ({"oil": 5, "soil": 3}, ()),
    ],
)
def test_look_alikes(names: dict[str, int], pairs: tuple[tuple[str, str], ...]) -> None:
    from collections import Counter

    assert find_look_alikes(Counter(names)) == pairs


def test_scripts(tmp_path: Path) -> None:
    texts = [
        "中文标题一条",
        "an English title",
        "これは日本語です",
        "한국어 제목",
        "русский текст",
        "12 34",
        "科技Alienware发布会",
        *["中文"] * 0,
    ]
    rows = [{"text": text, "label": str(place % 2)} for place, text in enumerate(texts)]
    counts = audit_data(write_jsonl(tmp_path / "a.jsonl", rows)).languages.counts
    assert counts == {"Chinese": 2, "Latin": 1, "Japanese": 1, "Korean": 1, "Cyrillic": 1, "no letters": 1}


def test_broken_files_are_errors_that_name_the_line(tmp_path: Path, toy_rows: list[Row]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", toy_rows)
    path.write_text(path.read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:61: broken JSON"):
        audit_data(path)


def test_what_texts_and_labels_contain_is_shown_and_not_acted_on(tmp_path: Path, toy_rows: list[Row]) -> None:
    nasty = {"text": "[red]坏[/red] <b>\n,\t\x1b[31m😀", "label": "[bold]a,b\n<i>😀[/bold]"}
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", [*toy_rows, nasty, nasty, {**nasty, "label": toy_rows[0]["label"]}]))
    told = shown(audit)
    assert "[red]坏[/red]" in told
    assert "[bold]a,b" in told
    assert json.loads(json.dumps(to_document(audit), ensure_ascii=False))["classes"]["counts"][nasty["label"]] == 2


def shown(audit: Audit) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(audit_tables(audit))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_tables_count_and_the_next_steps_fit(faulty: Path, toy_file: Path) -> None:
    told = shown(audit_data(faulty))
    assert "67 rows (train 67)" in told
    assert "faulty.jsonl:61" in told
    assert any("--fix" in step for step in next_steps(audit_data(faulty), "faulty.jsonl", False))
    assert not any("--fix cleaned" in step for step in next_steps(audit_data(faulty), "faulty.jsonl", True))


def test_what_to_type_next_reads_the_same_rows(tmp_path: Path, toy_rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"body": row["text"], "label": row["label"]} for row in toy_rows]
    train, test = write_jsonl(tmp_path / "my train.jsonl", rows[:40]), write_jsonl(tmp_path / "test.jsonl", [*rows[40:50], rows[3]])
    assert main(["audit", str(train), "--test", str(test), "--text-column", "body"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Next: fenlei audit")]
    assert shlex.split(line)[1:9] == ["fenlei", "audit", str(train), "--test", str(test), "--text-column", "body", "--fix"]


def test_a_fix_that_would_remove_nothing_is_not_a_next_step(tmp_path: Path, toy_rows: list[Row]) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", toy_rows[:40])
    test = write_jsonl(tmp_path / "test.jsonl", [*toy_rows[40:50], toy_rows[40]])
    audit = audit_data(train, test=test)
    assert audit.duplicates
    assert not any("--fix cleaned" in step for step in next_steps(audit, "train.jsonl", False))


def test_a_row_with_two_odd_labels_is_counted_once(tmp_path: Path, toy_rows: list[Row]) -> None:
    rows = [{**row, "label": [row["label"]]} for row in toy_rows]
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": "两个各自独有的标签", "label": ["a", "b"]}]), multi_label=True)
    assert len(audit.classes.rows) == 2
    assert re.search(r"Class in question\W+1 ", shown(audit))


def test_the_name_of_a_judging_run_is_no_markup(toy_file: Path) -> None:
    audit = audit_data(toy_file)
    judged = dataclasses.replace(audit.label_errors, judge="runs/qwen[lora]")
    assert "runs/qwen[lora]" in shown(dataclasses.replace(audit, label_errors=judged))


def test_the_command_prints_json_alone_on_stdout(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(faulty), "--json", "--fix", str(tmp_path / "f.jsonl")]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert all(isinstance(document[key]["rows"], list) for key in KEYS)
    assert "60 rows kept, 7 removed" in printed.err
    assert main(["audit", str(faulty)]) == 0
    assert "Near duplicates" in capsys.readouterr().out


def test_a_target_that_cannot_be_is_told_before_the_work(toy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(toy_file), "--fix", "out.xlsx"]) == 1
    assert "ending in .jsonl" in capsys.readouterr().err


def test_train_warns_of_what_is_cheap_to_see(tmp_path: Path, toy_rows: list[Row]) -> None:
    names = list(dict.fromkeys(row["label"] for row in toy_rows))
    train = write_jsonl(tmp_path / "train.jsonl", [*toy_rows[:50], toy_rows[0], {**toy_rows[1], "label": names[0]}])
    dev = write_jsonl(tmp_path / "dev.jsonl", [*toy_rows[50:], toy_rows[2]])
    lines = data_warnings(load_dataset(DataConfig(data=str(train), dev=str(dev)), seed=0))
    assert [line.split(" (")[0] for line in lines] == [
        "Warning: 1 row of dev have a text that an earlier part has too",
        "Warning: texts under more than one label: 1",
        "Warning: 2 rows of train repeat a text",
    ]
    assert f"first {dev}:11, the text of {train}:3" in lines[0]


def test_the_warnings_are_among_what_a_run_announces(tmp_path: Path, toy_rows: list[Row], tiny_qwen: Path) -> None:
    from fenlei.training.setup import prepare

    data = write_jsonl(tmp_path / "train.jsonl", [*toy_rows, toy_rows[0]])
    notes = prepare(RunConfig().replace(data=str(data), model=str(tiny_qwen), device="cpu")).notes
    assert sum(note.startswith(WARNING) for note in notes) == 1


def test_train_does_not_warn_of_clean_rows(toy_file: Path) -> None:
    assert data_warnings(load_dataset(DataConfig(data=str(toy_file)), seed=0)) == ()


def test_pairs_with_one_long_text_and_other_questions_are_no_copies(tmp_path: Path) -> None:
    dice = random.Random(5)
    passage = "".join(chr(dice.randrange(0x4E00, 0x9FA5)) for _ in range(400))
    questions = ("国足热身赛比分是多少呢", "央行何时宣布下调利率", "手机芯片由谁家代工生产", "影片首日票房有多少亿")
    rows = [{"text": passage, "question": question, "label": "yes"} for question in questions]
    train, test = write_jsonl(tmp_path / "train.jsonl", rows[:3]), write_jsonl(tmp_path / "test.jsonl", rows[3:])
    audit = audit_data(train, test=test, pair_column="question")
    assert (audit.near_duplicates, audit.leaks, plan_fixes(audit)) == ((), (), [])
    write_jsonl(train, [*rows[:3], {**rows[0], "question": questions[0].replace("呢", "？")}])
    write_jsonl(test, [{**rows[1], "text": passage[:-1]}])
    audit = audit_data(train, test=test, pair_column="question")
    assert [(copy.row, copy.of) for copy in audit.near_duplicates] == [(3, 0)]
    assert [(copy.row, copy.of) for copy in audit.leaks] == [(4, 1)]


def test_a_blank_label_among_lists_is_a_row_without_a_label(tmp_path: Path, toy_rows: list[Row]) -> None:
    rows = [{**row, "label": [row["label"], "新闻"]} for row in toy_rows[:40]]
    blank = {"text": toy_rows[40]["text"], "label": ""}
    audit = audit_data(write_jsonl(tmp_path / "a.jsonl", [*rows, blank, {**blank, "text": toy_rows[41]["text"], "label": []}]))
    assert [(odd.row, odd.problem) for odd in audit.classes.rows] == [(40, "no label")]
    joined = [{**row, "label": ";".join(row["label"])} for row in rows]
    told = audit_data(write_jsonl(tmp_path / "b.jsonl", [*joined, blank]), label_separator=";")
    assert not told.classes.rows, "where labels are joined, nothing is none of them"
    with pytest.raises(ConfigError, match="label_separator ';' belongs to multi_label, which is off"):
        audit_data(tmp_path / "b.jsonl", label_separator=";", multi_label=False)


def test_fix_writes_a_lone_carriage_return_so_that_it_is_read_back(tmp_path: Path) -> None:
    rows = [{"text": "first\rhalf of a title", "label": "x"}, {"text": "something else again", "label": "y"}]
    result = write_fixed(audit_data(write_jsonl(tmp_path / "a.jsonl", rows)), tmp_path / "fixed.csv")
    assert [(row.text, row.label) for row in read_examples(result.out)] == [(row["text"], row["label"]) for row in rows]
    assert result.out.read_bytes().endswith(b"again,y\n")


def test_fix_logs_rows_of_a_file_whose_name_is_no_utf8(tmp_path: Path, toy_rows: list[Row]) -> None:
    path = write_jsonl(Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff.jsonl")), [*toy_rows, toy_rows[0]])
    result = write_fixed(audit_data(path), tmp_path / "fixed.jsonl")
    assert read(result.out) == toy_rows
    assert (str(path), 61) in {(row["file"], row["row"]) for row in read(result.log)}


def test_fix_never_writes_its_log_over_what_was_audited(tmp_path: Path, toy_rows: list[Row]) -> None:
    path = write_jsonl(tmp_path / "a.log.jsonl", toy_rows)
    with pytest.raises(ConfigError, match=r"--fix .*a\.jsonl: .*a\.log\.jsonl is the file that was audited"):
        write_fixed(audit_data(path), tmp_path / "a.jsonl")
    assert read(path) == toy_rows
    assert not (tmp_path / "a.jsonl").exists()

"""Splits are stratified, seeded, complete and in the order of the file; dev is halved; what was done is said."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl

from fenlei.config import DataConfig
from fenlei.data.examples import Example
from fenlei.data.splits import Dataset, load_dataset
from fenlei.data.stratify import halves, set_aside
from fenlei.errors import ConfigError, DataError
from fenlei.training.held_out import lines_by_file, numbers


def write_rows(path: Path, counts: Mapping[str, int], seed: int = 0) -> Path:
    labels = [label for label, count in counts.items() for _ in range(count)]
    random.Random(seed).shuffle(labels)
    lines = (json.dumps({"text": f"{path.stem} {place}", "label": label}, ensure_ascii=False) for place, label in enumerate(labels))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def counts(rows: Sequence[Example]) -> dict[str, int]:
    return dict(Counter(str(row.label) for row in rows))


def parts(data: Dataset) -> list[tuple[Example, ...]]:
    return [data.train, data.selecting, data.calibrating, data.test]


def is_in_file_order(rows: Sequence[Example]) -> bool:
    return [row.line for row in rows] == sorted(row.line for row in rows)


def test_a_file_alone_gives_15_percent_to_dev(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"a": 100, "b": 60, "c": 40})

    data = load_dataset(DataConfig(data=str(file)), seed=1)

    assert counts(data.train) == {"a": 85, "b": 51, "c": 34}
    assert counts([*data.selecting, *data.calibrating]) == {"a": 15, "b": 9, "c": 6}
    assert (len(data.selecting), len(data.calibrating), data.test) == (15, 15, ())
    assert all(is_in_file_order(part) for part in parts(data))
    assert sorted(row.line for part in parts(data) for row in part) == list(range(1, 201))


def test_each_half_of_dev_has_every_class(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"a": 90, "b": 4, "c": 7, "d": 20})

    data = load_dataset(DataConfig(data=str(file), test_ratio=0.1, dev_ratio=0.1), seed=3)

    for part in (data.train, data.selecting, data.calibrating, data.test):
        assert set(counts(part)) >= {"a", "c", "d"}
    assert counts(data.train)["b"] == 4
    assert any(note == "all rows of 'b' stay in train: fewer than 6, too few for every part" for note in data.notes)


def test_the_ratios_of_s1_are_exact(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {name: 1000 for name in "abcdefg"})
    data = load_dataset(DataConfig(data=str(file), test_ratio=0.15, dev_ratio=0.1), seed=42)
    assert [len(part) for part in parts(data)] == [5250, 350, 350, 1050]
    assert set(counts(data.test).values()) == {150}


def test_the_same_seed_gives_the_same_split_and_another_seed_another(tmp_path: Path) -> None:
    config = DataConfig(data=str(write_rows(tmp_path / "a.jsonl", {"a": 50, "b": 50})), test_ratio=0.2)

    first, again, other = (load_dataset(config, seed=seed) for seed in (5, 5, 6))

    assert parts(first) == parts(again)
    assert all(one != two for one, two in zip(parts(first), parts(other), strict=True))


def test_the_split_of_a_seed_stays_the_same_for_ever() -> None:
    got = set_aside([0, 1] * 10, dev_ratio=0.2, test_ratio=0.1, seed=42)
    assert (got.dev, got.test) == ((2, 3, 10, 17), (1, 16))
    assert halves([0, 1, 1, 0, 1], seed=42) == ((0, 1, 4), (2, 3))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("dev_ratio", "test_ratio"), [(0.15, 0.0), (0.0, 0.3), (0.15, 0.15), (0.01, 0.01), (0.49, 0.5), (0.98, 0.0)])
def test_any_sizes_are_split_whole(seed: int, dev_ratio: float, test_ratio: float) -> None:
    random_ = random.Random(seed)
    ids = [label for label in range(12) for _ in range(random_.choice([1, 2, 3, 4, 5, 6, 7, 30, 200]))]
    random_.shuffle(ids)

    got = set_aside(ids, dev_ratio=dev_ratio, test_ratio=test_ratio, seed=seed)

    assert sorted(got.train + got.dev + got.test) == list(range(len(ids)))
    of_class = {name: Counter(ids[place] for place in getattr(got, name)) for name in ("train", "dev", "test")}
    for label in set(ids):
        if label in got.unsplit:
            assert of_class["dev"][label] == of_class["test"][label] == 0
        else:
            assert of_class["train"][label] >= 1
            assert of_class["dev"][label] >= (2 if dev_ratio else 0)
            assert of_class["test"][label] >= (1 if test_ratio else 0)
    total = sum(count for label, count in Counter(ids).items() if label not in got.unsplit)
    if total and min(dev_ratio, 0.5) == dev_ratio > 0.1:
        assert abs(len(got.dev) - dev_ratio * total) <= 12 + 0.05 * total


def test_a_dev_file_is_halved_and_nothing_is_taken_from_train(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", {"a": 10, "b": 10})
    dev = write_rows(tmp_path / "b.jsonl", {"a": 7, "b": 4})

    data = load_dataset(DataConfig(data=str(train), dev=str(dev)), seed=0)

    assert len(data.train) == 20
    assert counts(data.selecting) == {"a": 4, "b": 2}
    assert counts(data.calibrating) == {"a": 3, "b": 2}
    assert {row.source for row in (*data.selecting, *data.calibrating)} == {str(dev)}


def test_a_folder_is_read_whole_and_options_go_before_it(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        write_rows(tmp_path / f"{name}.jsonl", {"a": 20, "b": 20})
    other = write_rows(tmp_path / "other.jsonl", {"a": 3, "b": 3})

    whole = load_dataset(DataConfig(data=str(tmp_path)), seed=0)
    with_ratio = load_dataset(DataConfig(data=str(tmp_path), dev_ratio=0.25, test=str(other)), seed=0)

    assert [len(part) for part in parts(whole)] == [40, 20, 20, 40]
    assert [len(part) for part in parts(with_ratio)] == [30, 5, 5, 6]
    assert any(note == f"{tmp_path / 'valid.jsonl'} is not used, since dev_ratio is given" for note in with_ratio.notes)


def test_a_test_file_without_labels_in_the_folder_is_left_out_and_said(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", {"a": 20, "b": 20})
    (tmp_path / "test.jsonl").write_text('{"text": "t", "id": 1}\n', encoding="utf-8")

    data = load_dataset(DataConfig(data=str(tmp_path)), seed=0)

    assert data.test == ()
    assert any("test.jsonl is not used: " in note and "no label column found" in note for note in data.notes)
    with pytest.raises(DataError, match=r"test\.jsonl:1: no label column found"):
        load_dataset(DataConfig(data=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl")), seed=0)


@pytest.mark.parametrize("label", ["", None])
def test_a_test_file_whose_labels_are_all_blank_is_one_without_labels(tmp_path: Path, label: str | None) -> None:
    write_rows(tmp_path / "train.jsonl", {"a": 20, "b": 20})
    rows = [{"text": f"t{place}", "label": label} for place in range(4)]
    write_jsonl(tmp_path / "test.jsonl", rows)

    data = load_dataset(DataConfig(data=str(tmp_path)), seed=0)

    assert data.test == ()
    said = "expected labels in column 'label', found none in any row"
    assert any("test.jsonl is not used: " in note and said in note for note in data.notes)


def test_a_test_file_with_the_id_of_no_class_in_every_row_is_one_without_labels(tmp_path: Path) -> None:
    info = {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}
    for part, ids in (("train", [0, 1] * 20), ("test", [-1] * 4)):
        table = pa.table({"text": [f"{part} {place}" for place in range(len(ids))], "label": ids})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": info})}), tmp_path / f"{part}.parquet")

    data = load_dataset(DataConfig(data=str(tmp_path)), seed=0)

    assert (data.test, set(data.labels)) == ((), {"a", "b"})
    assert any("test.parquet is not used: " in note and "found -1, the id of no class, in every row" in note for note in data.notes)
    with pytest.raises(DataError, match=r"test\.parquet:1: .*-1 is the id of no class\); fill it in or remove the row"):
        load_dataset(DataConfig(data=str(tmp_path), test=str(tmp_path / "test.parquet")), seed=0)


def test_of_a_test_part_in_shards_every_one_is_read_or_named(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", {"a": 20, "b": 20})
    shards = [write_rows(tmp_path / f"test-0000{at}-of-00002.jsonl", {"a": 2, "b": 2}) for at in range(2)]
    whole = DataConfig(data=str(tmp_path))
    by_pattern = DataConfig(data=str(train), test=str(tmp_path / "test-*.jsonl"))
    for config in (whole, by_pattern):
        assert {row.source for row in load_dataset(config, seed=0).test} == set(map(str, shards))

    write_jsonl(shards[0], [{"text": "t", "label": ""}])
    for config in (whole, by_pattern):
        with pytest.raises(DataError, match=r"test-00000-of-00002\.jsonl:1: expected a label in column 'label', found none"):
            load_dataset(config, seed=0)

    shards[0].unlink()
    for config in (whole, by_pattern):
        with pytest.raises(DataError, match=r"expected 2 files of test, found test-00001-of-00002\.jsonl, without test-00000-of-00002;"):
            load_dataset(config, seed=0)
    alone = load_dataset(DataConfig(data=str(train), test=str(shards[1])), seed=0)
    assert len(alone.test) == 4
    with pytest.raises(DataError, match="no file is called so, and none matches it as a pattern"):
        load_dataset(DataConfig(data=str(train), test=str(tmp_path / "tests-*.jsonl")), seed=0)


def test_texts_of_a_test_file_that_is_named_do_not_train(tmp_path: Path) -> None:
    """Rows that were put together anew hold the test rows of the run before."""
    train = write_rows(tmp_path / "a.jsonl", {"a": 20, "b": 20})
    lines = train.read_text(encoding="utf-8").splitlines(keepends=True)
    tested = tmp_path / "tested.jsonl"
    tested.write_text("".join(lines[:4]), encoding="utf-8")
    data = load_dataset(DataConfig(data=str(train), test=str(tested)), seed=0)
    *learned, test = ({row.text for row in part} for part in parts(data))
    assert len(test) == 4
    assert not any(part & test for part in learned)
    assert sum(map(len, learned)) == 36
    assert f"4 rows do not train: their texts are those of test rows, {tested}:1 the first of these" in data.notes
    tested.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl: every row has a text of the test file, .*tested\.jsonl"):
        load_dataset(DataConfig(data=str(train), test=str(tested)), seed=0)


def test_labels_come_in_order_of_appearance_in_the_whole_file(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"z": 20, "m": 20, "a": 20}, seed=9)
    in_file = [json.loads(line)["label"] for line in file.read_text(encoding="utf-8").splitlines()]
    for seed in range(3):
        assert load_dataset(DataConfig(data=str(file)), seed=seed).labels.names == tuple(dict.fromkeys(in_file))


def write_thucnews(folder: Path, ids: Sequence[object]) -> None:
    for name in ("train", "dev"):
        (folder / f"{name}.txt").write_text("".join(f"{name} 标题 {place}\t{label}\n" for place, label in enumerate(ids)), encoding="utf-8")


def test_the_class_file_beside_the_data_names_the_ids(tmp_path: Path) -> None:
    write_thucnews(tmp_path, [2, 0, 1, 0, 2, 1])
    (tmp_path / "class.txt").write_text("财经\n体育\n房产\n", encoding="utf-8")

    data = load_dataset(DataConfig(data=str(tmp_path)), seed=0)

    assert data.labels.names == ("财经", "体育", "房产")
    assert [row.label for row in data.train] == ["房产", "财经", "体育", "财经", "房产", "体育"]
    assert {row.label for row in data.selecting} <= set(data.labels)
    assert data.train[0].columns == {"text": "train 标题 0", "label": "2"}
    assert f"{tmp_path / 'class.txt'}, found beside the data: 3 class names, in this order" in data.notes


def test_a_class_file_by_name_gives_the_order(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"a": 10, "b": 10})
    (tmp_path / "names").write_text("c\nb\na\n", encoding="utf-8")

    data = load_dataset(DataConfig(data=str(file), class_file=str(tmp_path / "names")), seed=0)

    assert data.labels.names == ("c", "b", "a")
    assert "no training row is of class 'c', so it cannot be learned" in data.notes


def test_a_file_beside_the_data_that_is_no_class_file_of_it_is_left_alone(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"a": 10, "b": 10})
    for content, reason in (("x\ny\n", "none of the labels"), ("x\nx\n", "stands on line 1 already")):
        (tmp_path / "label.txt").write_text(content, encoding="utf-8")
        data = load_dataset(DataConfig(data=str(file)), seed=0)
        assert set(data.labels) == {"a", "b"}
        assert any("label.txt, found beside the data, is not used as class file" in note and reason in note for note in data.notes)


def test_a_class_file_beside_the_data_that_lacks_a_class_is_an_error(tmp_path: Path) -> None:
    write_thucnews(tmp_path, [0, 1, 2, 0, 1, 2])
    (tmp_path / "class.txt").write_text("财经\n体育\n", encoding="utf-8")
    expected = r"train\.txt:3: label '2' is neither a class name nor an id from 0 to 1.*class\.txt, found beside the data"
    with pytest.raises(DataError, match=expected):
        load_dataset(DataConfig(data=str(tmp_path)), seed=0)


def test_the_notes_say_what_was_done(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"a": 50, "b": 50})
    assert load_dataset(DataConfig(data=str(file)), seed=7).notes == (
        f"{file}: JSON lines, text from 'text', label from 'label'; 100 rows",
        "dev: 15 rows set aside (15.0%), stratified, seed 7",
        "train 85, dev 15 (8 select, 7 calibrate), test 0 rows",
    )


def test_a_separator_is_proposed_where_labels_look_like_paths(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"科技##手机": 10, "科技##电脑": 10, "体育##足球": 10, "其他": 10})
    assert any("--level-separator '##' would measure" in note for note in load_dataset(DataConfig(data=str(file)), seed=0).notes)
    assert not any("look like" in note for note in load_dataset(DataConfig(data=str(file), level_separator="##"), seed=0).notes)
    apart = write_rows(tmp_path / "b.jsonl", {"TCP/IP": 10, "I/O": 10, "other": 10})  # nothing lies beside another
    assert not any("look like" in note for note in load_dataset(DataConfig(data=str(apart)), seed=0).notes)


def test_classes_that_dev_lacks_are_said(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", {"a": 10, "b": 10, "c": 10})
    dev = write_rows(tmp_path / "b.jsonl", {"a": 5, "c": 5})
    assert "dev has no row of 1 of the 3 classes: 'b'" in load_dataset(DataConfig(data=str(train), dev=str(dev)), seed=0).notes


def test_rows_that_train_do_not_measure(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", {"a": 10, "b": 10})
    dev = write_rows(tmp_path / "b.jsonl", {"a": 10, "b": 10})
    for config, role in (
        (DataConfig(data=str(train), dev=str(train)), "dev"),
        (DataConfig(data=str(train), test=str(tmp_path / ".." / tmp_path.name / "a.jsonl")), "test"),
        (DataConfig(data=str(train), dev=str(dev), test=str(dev)), "test"),
    ):
        with pytest.raises(ConfigError, match=f"{role}: .* is used for training or dev as well"):
            load_dataset(config, seed=0)


def test_data_has_to_be_named_and_to_be_a_file() -> None:
    with pytest.raises(ConfigError, match="no labelled file or folder given"):
        load_dataset(DataConfig(), seed=0)
    with pytest.raises(ConfigError, match="training needs a file or a folder, found '-'"):
        load_dataset(DataConfig(data="-"), seed=0)


def test_rows_that_come_but_once_train_nothing(tmp_path: Path) -> None:
    """Files are read several times, and of a pipe the head would be gone the second time."""
    train = write_rows(tmp_path / "a.jsonl", {"a": 10, "b": 10})
    read_end, write_end = os.pipe()
    os.close(write_end)
    with os.fdopen(read_end):
        pipe = f"/dev/fd/{read_end}"
        for option, given in (("data", pipe), ("dev", pipe), ("dev", "-"), ("test", pipe), ("test", "-")):
            config = DataConfig(**{"data": str(train), option: given})
            with pytest.raises(ConfigError, match=f"{option}: training needs a file or a folder, found '{given}'"):
                load_dataset(config, seed=0)


def test_every_file_is_read_from_the_columns_of_the_first(tmp_path: Path) -> None:
    """In the others `content` would be found before `title`."""
    for name, more in (("train-00000-of-00002", {}), ("train-00001-of-00002", {"content": "正文"}), ("dev", {"content": "正文"})):
        rows = [{**more, "title": f"{name} {place}", "label": "ab"[place % 2]} for place in range(10)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    data = load_dataset(DataConfig(data=str(tmp_path)), seed=0)
    assert {row.text_columns for part in parts(data) for row in part} == {("title",)}
    assert [len(data.train), len(data.selecting) + len(data.calibrating)] == [20, 10]


def test_where_rows_stand_comes_back_from_the_ranges_that_a_manifest_has() -> None:
    draw = random.Random(0)
    for count in range(1, 40):
        lines = {name: draw.sample(range(1, 50), count) for name in ("a.txt", "b.txt")}
        told = lines_by_file([Example("甲", None, name, line) for name, own in lines.items() for line in own])
        assert {name: numbers(ranges) for name, ranges in told.items()} == {name: set(own) for name, own in lines.items()}
    assert lines_by_file([Example("甲", None, "a.txt", line) for line in (7, 2, 1, 3)]) == {"a.txt": "1-3,7"}

"""Bad input: the message names the file, the line, the value and the cure. Nothing but a DataError leaves the readers."""

from __future__ import annotations

import gzip
import json
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fenlei.config import DataConfig
from fenlei.data import encodings
from fenlei.data.folders import find_split_files
from fenlei.data.label_file import read_class_file
from fenlei.data.readers import read_examples
from fenlei.data.splits import load_dataset
from fenlei.errors import DataError

GOOD = '{"text": "好", "label": "a"}\n'


def message(path: Path, content: str | bytes, **options: Any) -> str:
    """What reading a file of this content says, without the folder."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        list(read_examples(path, **options))
    return str(caught.value).replace(f"{path.parent}/", "")


def test_missing_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(GOOD, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/trian.jsonl: no such file (did you mean 'train.jsonl'?)")):
        list(read_examples(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match="no such file \\(and no folder"):
        list(read_examples(tmp_path / "nowhere" / "a.jsonl"))


def test_a_url_is_said_to_be_one() -> None:
    for url in ("https://h/x.jsonl", Path("s3://bucket/x.jsonl")):
        with pytest.raises(DataError, match=r"x\.jsonl: is a URL, which `fenlei predict --engine ray` alone reads"):
            list(read_examples(url))


def test_a_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a file, found a folder"):
        list(read_examples(tmp_path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
@pytest.mark.parametrize("labelled", [True, False])
def test_empty_file(tmp_path: Path, name: str, content: str, labelled: bool) -> None:
    assert message(tmp_path / name, content, labelled=labelled).startswith(f"{name}: expected at least one row, found none")


@pytest.mark.parametrize(("name", "content"), [("a.csv", "text,label\n"), ("a.json", "[ ]\n")])
def test_a_file_without_rows(tmp_path: Path, name: str, content: str) -> None:
    assert message(tmp_path / name, content).startswith(f"{name}: expected at least one row, found none")


def test_wrong_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert message(path, '{"news": "t", "label": "a"}\n') == (
        "a.jsonl:1: no text column found: looked for 'text', 'content', 'sentence', 'input', 'document', 'doc', 'body', 'article', ..., "
        "found columns 'news', 'label'; name it with --text-column"
    )
    no_label = message(path, '{"text": "t", "sort": "a"}\n')
    assert no_label.startswith("a.jsonl:1: no label column found: looked for 'label', 'labels', 'target', 'output'")
    assert no_label.endswith("found columns 'text', 'sort'; name it with --label-column")
    assert message(path, '{"title": "t", "label": "a"}\n', text_column="titel") == (
        "a.jsonl:1: no column 'titel', found columns 'title', 'label' (did you mean 'title'?)"
    )
    assert message(path, '{"title": "t", "label": "a"}\n', text_column="title,body").startswith("a.jsonl:1: no column 'body'")
    assert message(path, GOOD, label_column="class").startswith("a.jsonl:1: no column 'class', found columns 'text', 'label'")
    assert "found no columns" in message(path, "{}\n")


def test_a_csv_without_header_and_with_many_columns_asks_for_names(tmp_path: Path) -> None:
    said = message(tmp_path / "a.csv", "1,体育,你好\n2,财经,再见\n")
    assert said.endswith("found columns 'column_1', 'column_2', 'column_3'; name it with --text-column")


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_a_row_without_text_or_label(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.jsonl"
    assert message(path, GOOD + json.dumps({"text": value, "label": "a"})) == (
        "a.jsonl:2: expected a text in column 'text', found none; fill it in or remove the row"
    )
    assert message(path, GOOD + json.dumps({"text": "t", "label": value})) == (
        "a.jsonl:2: expected a label in column 'label', found none; fill it in or remove the row"
    )
    assert message(path, GOOD + '{"txt": "t"}').startswith("a.jsonl:2: expected a text in column 'text', found none, found columns 'txt'")


def test_a_row_without_text_in_other_formats(tmp_path: Path) -> None:
    assert message(tmp_path / "a.csv", "text,label\nt,a\n,b\n").startswith("a.csv:3: expected a text in column 'text'")
    assert message(tmp_path / "a.txt", "t\ta\nno label here\n") == "a.txt:2: expected text<TAB>label, found no tab in 'no label here'"
    assert message(tmp_path / "b.txt", "t\ta\nu\t\n").startswith("b.txt:2: expected a label in column 'label'")
    assert message(tmp_path / "c.txt", "__label__a t\nu\n").startswith("c.txt:2: expected a label in column 'label'")
    assert message(tmp_path / "d.txt", "__label__a t\n__label__b\n").startswith("d.txt:2: expected a text in column 'text'")
    assert message(tmp_path / "e.txt", "only text\n").startswith(
        "e.txt:1: expected text<TAB>label or `__label__NAME text`, found 'only text'"
    )


@pytest.mark.parametrize(
    ("value", "found"), [({"a": 1}, "{'a': 1} (dict)"), (0.5, "0.5 (float)"), (["x"], "['x'] (list)"), (True, "True (bool)")]
)
def test_a_text_that_is_no_text(tmp_path: Path, value: Any, found: str) -> None:
    said = message(tmp_path / "a.jsonl", json.dumps({"text": value, "label": "a"}))
    assert said == f"a.jsonl:1: expected a text in column 'text', found {found}; is it another column?"


def test_a_label_that_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert message(path, GOOD + '{"text": "t", "label": ["a", "b"]}') == (
        "a.jsonl:2: expected one label in column 'label', found a list, ['a', 'b']; "
        "keep one, as a text, or make every row's label a list, [] for none, and train with --multi-label"
    )
    assert "found 0.5 (float)" in message(path, '{"text": "t", "label": 0.5}')
    assert "found a list, ['a', 'b']" in message(tmp_path / "a.txt", "__label__a __label__b t\n")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("sprots", "label 'sprots' is not one of 'sports', 'finance' (did you mean 'sports'?)"),
        (2, "label '2' is neither a class name nor an id from 0 to 1"),
        (-1, "label '-1' is neither a class name nor an id from 0 to 1; correct it, add the class, or remove the row"),
        ("9" * 5000, "is not one of"),
    ],
)
def test_a_label_outside_the_class_names(tmp_path: Path, label: Any, said: str) -> None:
    found = message(tmp_path / "a.jsonl", json.dumps({"text": "t", "label": label}), class_names=["sports", "finance"])
    assert found.startswith("a.jsonl:1: label ")
    assert said in found


@pytest.mark.parametrize(
    "line", ['{"text": "t"', "{'text': 't'}", "text,label", '{"text": "t", "label": "a"},', '{"n": ' + "9" * 5000 + "}", "[" * 200_000]
)
def test_broken_json_at_line_n(tmp_path: Path, line: str) -> None:
    said = message(tmp_path / "a.jsonl", GOOD * 2 + line + "\n" + GOOD)
    assert said.startswith("a.jsonl:3: ")
    assert said.endswith('expected one object a line, like {"text": "...", "label": "..."}')


def test_json_that_is_no_object(tmp_path: Path) -> None:
    assert message(tmp_path / "a.jsonl", GOOD + '"t"\n').endswith('"label": "..."}, found "t"')
    assert message(tmp_path / "a.json", '[{"text": "t", "label": "a"},\n 3]').startswith("a.json:2: expected one object a line")


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ('[{"text": "t", "label": "a"}\n', 2, "expected ',' or ']', found the end of the file"),
        ('[{"text": "t", "label": "a"},\n', 2, "Expecting value"),
        ('[{"text": "t",\n "label": \n', 3, "Expecting value"),
        ('[{"text": "t",\n "label": "a"}\n {"text": "u"}]', 3, "expected ',' or ']', found '{'"),
        ('[{"text": "t",\n "label": a}]', 2, "Expecting value"),
        ('[{"text": "t", "label": "a"}]\n\nmore', 3, "the array ends, but 'm' follows"),
    ],
)
def test_broken_json_array(tmp_path: Path, content: str, line: int, said: str) -> None:
    found = message(tmp_path / "a.json", content)
    assert found.startswith(f"a.json:{line}: broken JSON: {said}")
    assert found.endswith('expected an array of objects, [{"text": ...}, ...]')


def test_half_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert message(path, GOOD + '{"text": "cut emoji \\ud83d", "label": "a"}').startswith("a.jsonl:2: half a character")
    path.write_text('{"text": "whole emoji \\ud83d\\ude00", "label": "a"}', encoding="utf-8")
    assert next(read_examples(path)).text == "whole emoji 😀"


def test_broken_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert message(path, "text,label\nt,a\none, two,b\n") == (
        "a.csv:3: expected 2 fields (text, label), found 3; "
        'put a field that holds a comma, a quote or a line break in quotes, and double the quotes inside ("")'
    )
    assert message(path, 'text,label\nt,a\n"你好"他说,b\n').startswith("a.csv:3: broken CSV: ")
    assert message(path, 'text,label\nt,a\n"open,b\nu,a\n').startswith("a.csv:3: broken CSV: unexpected end of data")
    assert message(path, "text,text,label\n").startswith("a.csv:1: the header has the column 'text' twice")
    assert message(tmp_path / "a.tsv", "text\tlabel\nt\ta\nu\n").startswith(
        "a.tsv:3: expected 2 fields (text, label), found 1; a text may hold no tab"
    )


def test_wrong_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    chinese = GOOD.encode() * 3
    assert message(path, chinese + b'{"text": "\xff", "label": "a"}\n' + chinese) == (
        "a.jsonl:4: not UTF-8 as the other lines (byte 0xff at place 11 of the line); mend the line or save the file as UTF-8"
    )
    assert message(path, "caf\xe9, d\xe9j\xe0 vu".encode("latin-1")).startswith("a.jsonl:1: neither UTF-8 nor GB18030 (byte 0xe9")
    assert message(path, GOOD.encode("utf-16")) == "a.jsonl: expected text or Parquet, found UTF-16 text; save it as UTF-8"
    mixed = GOOD.replace("好", "好" * 300).encode()
    mixed *= encodings.HEAD_BYTES // len(mixed) + 2
    line = mixed.count(b"\n") + 1
    assert message(path, mixed + GOOD.encode("gb18030")).startswith(f"a.jsonl:{line}: not UTF-8 as the lines before")


def test_one_broken_byte_never_turns_utf8_into_other_characters(tmp_path: Path) -> None:
    """Each of these lines is UTF-8 with an even number of Chinese characters, which GB18030 reads as well, as nonsense."""
    lines = ["中文\t中文\n".encode()] * 5
    assert all(line.decode("gb18030") for line in lines)
    said = message(tmp_path / "a.txt", b"".join(lines) + "中文\t中".encode() + b"\x81\x40\n")
    assert said.startswith("a.txt:6: not UTF-8 as the other lines")


def test_binary_junk(tmp_path: Path) -> None:
    junk = random.Random(0).randbytes(5000)
    for name in ("a.jsonl", "a.csv", "a.txt", "a.tsv", "a.json", "a"):
        for labelled in (True, False):
            assert re.match(rf"{re.escape(name)}(:\d+)?: ", message(tmp_path / name, junk, labelled=labelled))
            assert f"{name}:3: expected text, found binary data" in message(tmp_path / name, b"a\n\nb\0\n", labelled=labelled)
    assert "a zip or Excel file; save the sheet as CSV" in message(tmp_path / "a.xlsx", b"PK\x03\x04junk")
    assert "found Parquet; name the file .parquet" in message(tmp_path / "a.data", b"PAR1junk")
    assert "an xz file; unpack it" in message(tmp_path / "a.txt.xz", b"\xfd7zXZ\0junk")


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1 and no more PAR1"])
def test_parquet_that_is_none(tmp_path: Path, content: bytes) -> None:
    assert message(tmp_path / "a.parquet", content).startswith("a.parquet:1: not readable as Parquet: ")


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress((GOOD * 5000).encode())
    cut = message(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    assert re.match(r"a\.jsonl\.gz:\d+: the file breaks off or is damaged", cut)
    assert "breaks off or is damaged" in message(tmp_path / "b.jsonl.gz", packed[:20] + b"\xff" * 20 + packed[40:])
    for damaged in (packed[:-100], packed[:20] + b"\xff" * 20 + packed[40:]):
        assert "not readable as Parquet" in message(tmp_path / "c.parquet.gz", damaged)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "LONGEST_LINE", 1 << 20)
    assert message(tmp_path / "a.jsonl", GOOD + "x" * (1 << 21)).startswith("a.jsonl:2: a line of more than 1 MiB; expected one row a line")


def test_an_element_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenlei.data.jsonarray.LONGEST_LINE", 1 << 20)
    said = message(tmp_path / "a.json", '[{"text": "t", "label": "a"},\n{"rows": [' + "0,\n" * (1 << 20))
    assert said.startswith("a.json:2: broken JSON: an element of more than 1 MiB")


def test_a_packed_file_that_is_no_parquet_does_not_fill_the_memory(tmp_path: Path) -> None:
    packed = gzip.compress(bytes(1 << 26))
    tracemalloc.start()
    try:
        assert "it begins with b'\\x00\\x00\\x00\\x00'" in message(tmp_path / "a.parquet.gz", packed)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_bad_class_files(tmp_path: Path) -> None:
    for content, said in (
        ("a\n\nb\n", "class.txt:2: expected a class name, found a blank line, which would shift the ids below; remove it"),
        ("a\nb\na\n", "class.txt:3: class 'a' stands on line 1 already; remove one of them"),
        ("a\n", "class.txt: expected at least two class names, one a line, found 1"),
    ):
        (tmp_path / "class.txt").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=re.escape(said)):
            read_class_file(tmp_path / "class.txt")


def test_a_folder_without_train_or_with_two(tmp_path: Path) -> None:
    (tmp_path / "news.csv").touch()
    with pytest.raises(DataError, match=r"expected a train file in the folder \(train\.jsonl, .*\), found news\.csv"):
        find_split_files(tmp_path)
    (tmp_path / "train.csv").touch()
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(DataError, match=r"more than one file could be train: train\.csv, train\.jsonl; keep one"):
        find_split_files(tmp_path)


def write_labels(path: Path, labels: list[str]) -> str:
    write_jsonl(path, ({"text": f"t{place}", "label": label} for place, label in enumerate(labels)))
    return str(path)


def refused(**config: str) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(**config), seed=0)
    return str(caught.value)


def test_one_class_only(tmp_path: Path) -> None:
    train = write_labels(tmp_path / "a.jsonl", ["a"] * 10)
    assert refused(data=train) == f"{train}: expected at least two classes, found only 'a' on all 10 rows; is it the right label column?"


def test_a_class_with_one_row(tmp_path: Path) -> None:
    train = write_labels(tmp_path / "a.jsonl", ["a", "b"] * 5 + ["bb"])
    assert refused(data=train) == (
        f"expected at least two rows of every class, found only one of 1: 'bb' ({train}:11); "
        "add rows, correct the label if it is misspelt, or remove the row"
    )


@pytest.mark.parametrize("role", ["dev", "test"])
def test_a_label_in_dev_or_test_that_train_lacks(tmp_path: Path, role: str) -> None:
    train = write_labels(tmp_path / "a.jsonl", ["sports", "finance"] * 5)
    other = write_labels(tmp_path / "b.jsonl", ["sports", "finance", "sprots", "sports"])
    assert refused(data=train, **{role: other}) == (
        f"{other}:3: label 'sprots' is not one of 'sports', 'finance' (did you mean 'sports'?), as 1 of the 4 {role} rows; "
        "correct or remove them, or add rows of that class to train"
    )


def test_too_few_rows_to_set_some_aside(tmp_path: Path) -> None:
    train = write_labels(tmp_path / "a.jsonl", ["a", "b"] * 3)
    assert refused(data=train) == f"{train}: no class has the 4 rows it takes to set some aside; add rows, or give a file for dev"
    dev = write_labels(tmp_path / "b.jsonl", ["a"])
    assert "expected at least two dev rows, one to select and one to calibrate, found 1" in refused(data=train, dev=dev)


SUFFIXES = ["jsonl", "json", "csv", "tsv", "txt", "jsonl.gz", "parquet"]
PIECES = [
    *(
        b'{"text": "',
        b'", "label": ',
        b'"a"}',
        b"[",
        b"]",
        b",",
        b"\n",
        b"\r",
        b"\t",
        b'"',
        b"text,label\n",
        b"__label__a ",
        b"\xef\xbb\xbf",
    ),
    *(b"\xd6\xd0", "中".encode(), b"\xff", b"\0", b"\\ud800", b"1e999", b"NaN", b"null", b" ", b"\x1f\x8b", b"PAR1"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=14), suffix=st.sampled_from(SUFFIXES), labelled=st.booleans()
)
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, content: list[bytes], suffix: str, labelled: bool) -> None:
    path = tmp_path / f"any.{suffix}"
    path.write_bytes(b"".join(content))
    examples, refusal = [], None
    try:
        for example in read_examples(path, labelled=labelled):
            examples.append(example)
    except DataError as error:
        refusal = str(error)
    assert examples or refusal
    assert refusal is None or refusal.startswith(str(path))
    assert all(example.text.strip() and (not labelled or example.label) for example in examples)
    assert all(example.text.encode() and example.line >= 1 for example in examples)

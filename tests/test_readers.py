"""Every format gives the same Examples: text, label, place and columns."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fenlei.data.encodings import HEAD_BYTES
from fenlei.data.examples import Example
from fenlei.data.folders import find_split_files
from fenlei.data.jsonarray import CHUNK
from fenlei.data.label_file import read_class_file
from fenlei.data.labelling import Labelling
from fenlei.data.readers import file_layout, find_class_file, read_examples
from fenlei.errors import DataError

ROWS = [
    {"text": "央行宣布下调存款准备金率", "label": "财经"},
    {"text": "国足客场1比1战平，球迷说：“不甘心”", "label": "体育"},
    {"text": 'He said "no", twice, and left', "label": "财经"},
    {"text": "北京二手房成交量回升 🏠", "label": "房产"},
]
PAIRS = [(row["text"], row["label"]) for row in ROWS]


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]], encoding: str = "utf-8") -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding)


def as_csv(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    return buffer.getvalue()


def pairs(examples: Sequence[Example]) -> list[tuple[str, str | None]]:
    return [(example.text, example.label) for example in examples]


WRITERS: dict[str, Callable[[], str]] = {
    "rows.jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "escaped.jsonl": lambda: "\n\n".join(json.dumps(row) for row in ROWS),
    "lines.json": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in ROWS),
    "array.json": lambda: json.dumps(ROWS, ensure_ascii=False, indent=2),
    "flat-array.json": lambda: json.dumps(ROWS, ensure_ascii=False),
    "rows.csv": lambda: as_csv([["text", "label"], *PAIRS]),
    "swapped.csv": lambda: as_csv([["Label", " Text"], *[(label, text) for text, label in PAIRS]]),
    "no-header.csv": lambda: as_csv(PAIRS),
    "no-header-swapped.csv": lambda: as_csv([(label, text) for text, label in PAIRS]),
    "semicolon.csv": lambda: as_csv([["text", "label"], *PAIRS], ";"),
    "quoted.tsv": lambda: as_csv([["text", "label"], *PAIRS], "\t"),
    "raw.tsv": lambda: "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in PAIRS),
    "no-header.tsv": lambda: "".join(f"{text}\t{label}\n" for text, label in PAIRS),
    "rows.txt": lambda: "".join(f"{text}\t{label}\n" for text, label in PAIRS),
    "label-first.txt": lambda: "".join(f"{label}\t{text}\n" for text, label in PAIRS),
    "header.txt": lambda: "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in PAIRS),
    "fasttext.txt": lambda: "".join(f"__label__{label} {text}\n" for text, label in PAIRS),
    "cooking.train": lambda: "".join(f"__label__{label}\t{text}\n" for text, label in PAIRS),
    "alpaca.json": lambda: json.dumps([{"instruction": "分类", "input": text, "output": label} for text, label in PAIRS]),
    "bare-alpaca.json": lambda: json.dumps([{"instruction": text, "input": "", "output": label} for text, label in PAIRS]),
    "ms-swift.jsonl": lambda: "".join(
        json.dumps({"messages": [{"role": "system", "content": "分类"}, {"role": "user", "content": text}], "label": label}) + "\n"
        for text, label in PAIRS
    ),
    "sharegpt.json": lambda: json.dumps(
        [{"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": label}], "system": "分类"} for text, label in PAIRS]
    ),
    "fudan.jsonl": lambda: "".join(
        json.dumps({"text": text, "category": ["体育", "财经"], "output": label}) + "\n" for text, label in PAIRS
    ),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_text_format_gives_the_same_texts_and_labels(tmp_path: Path, name: str, encoding: str, packed: str) -> None:
    path = write(tmp_path / (name + packed), WRITERS[name](), encoding)

    examples = list(read_examples(path))

    assert pairs(examples) == PAIRS
    assert {example.source for example in examples} == {str(path)}


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_parquet(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"rows.parquet{packed}"
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"id": place, **row} for place, row in enumerate(ROWS)]), buffer)
    path.write_bytes(gzip.compress(buffer.getvalue()) if packed else buffer.getvalue())

    examples = list(read_examples(path))

    assert pairs(examples) == PAIRS
    assert [example.line for example in examples] == [1, 2, 3, 4]
    assert [list(example.columns) for example in examples] == [["id", "text", "label"]] * 4


def test_a_conversation_keeps_its_columns_and_tells_no_answer_where_labels_are_not_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "甲"}, {"role": "assistant", "content": "？"}, {"role": "user", "content": "乙"}]
    row = {"id": 7, "messages": [*turns, {"role": "assistant", "content": "财经"}]}
    path = write_jsonl(tmp_path / "chat.jsonl", [row, row | {"messages": "乙"}])
    refused: list[str] = []
    examples = list(read_examples(path, on_bad_row=lambda line, error: refused.append(str(error))))
    assert [(one.text, one.label, one.columns["id"]) for one in examples] == [("甲\n乙", "财经", 7)]
    assert len(refused) == 1
    assert "chat.jsonl:2: expected a conversation, turns in `messages` as in the first row" in refused[0]
    plain = next(iter(read_examples(path, labelled=False)))
    assert (plain.text, dict(plain.columns)) == ("甲\n乙", row | {"text": "甲\n乙"})
    assert str(file_layout(path, labelled=False)) == f"{path}: conversations, text from 'text'"
    own = write_jsonl(tmp_path / "own.jsonl", [{"content": "丙", "label": "体育", "messages": turns}])
    assert pairs(list(read_examples(own))) == [("丙", "体育")]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "chat.parquet")
    assert pairs(list(read_examples(tmp_path / "chat.parquet"))) == [("甲\n乙", "财经")]


def test_a_conversation_beside_the_text_that_is_named_is_a_column_like_others(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "乙"}, {"role": "assistant", "content": "？"}]
    rows = [{"prompt": "甲", "messages": turns, "intent": "x"}, {"prompt": "丙", "messages": [], "intent": "y"}]
    examples = list(read_examples(write_jsonl(tmp_path / "a.jsonl", rows), text_column="prompt", label_column="intent"))
    assert pairs(examples) == [("甲", "x"), ("丙", "y")]
    assert [dict(example.columns) for example in examples] == rows
    chat = write_jsonl(tmp_path / "chat.jsonl", [{"system": "分类", "messages": turns, "intent": "x"}])
    assert pairs(list(read_examples(chat, label_column="intent"))) == [("乙", "x")]
    assert pairs(list(read_examples(chat, text_column="system,text"))) == [("分类\n乙", "x")]


def test_parquet_of_hugging_face_datasets_gives_names_to_its_ids(tmp_path: Path) -> None:
    features = {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}}
    table = pa.Table.from_pylist([{"text": "bad", "label": 0}, {"text": "good", "label": 1}])
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": features})}), tmp_path / "rows.parquet")

    examples = list(read_examples(tmp_path / "rows.parquet"))

    assert pairs(examples) == [("bad", "neg"), ("good", "pos")]
    assert examples[0].columns == {"text": "bad", "label": 0}


def write_classes(path: Path, ids: Sequence[int], names: Sequence[str]) -> Path:
    """Rows of ids, as Hugging Face datasets writes a column of classes."""
    table = pa.Table.from_pylist([{"text": f"text {place}", "label": label} for place, label in enumerate(ids)])
    info = {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": info})}), path)
    return path


def test_an_id_is_a_place_even_where_the_names_are_numbers(tmp_path: Path) -> None:
    stars = ["1", "2", "3", "4", "5"]
    path = write_classes(tmp_path / "rows.parquet", [0, 1, 4], stars)

    assert [row.label for row in read_examples(path)] == ["1", "2", "5"]
    assert [row.label for row in read_examples(path, class_names=stars)] == ["1", "2", "5"]
    with pytest.raises(DataError, match=r"strange\.parquet:1: label '5' is neither a class name nor an id from 0 to 4"):
        list(read_examples(write_classes(tmp_path / "strange.parquet", [5], stars)))


def test_the_id_of_no_class_is_no_label(tmp_path: Path) -> None:
    path = write_classes(tmp_path / "rows.parquet", [1, -1], ["neg", "pos"])

    assert [row.label for row in read_examples(path, blanks=True)] == ["pos", None]
    with pytest.raises(DataError, match=r":2: expected a label in column 'label', found none \(-1 is the id of no class\); fill it in or"):
        list(read_examples(path))


@pytest.mark.parametrize("names", [[["a"], ["b"]], [1, 2], None], ids=["lists", "numbers", "brackets without end"])
def test_a_note_of_class_names_that_are_none_is_not_believed(tmp_path: Path, names: Any) -> None:
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    note = json.dumps(info) if names else "[" * 200_000
    table = pa.Table.from_pylist([{"text": "bad", "label": 0}, {"text": "good", "label": 1}])
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "rows.parquet")
    assert pairs(list(read_examples(tmp_path / "rows.parquet"))) == [("bad", "0"), ("good", "1")]


CLASSES = {"names": ["joy", "anger", "fear"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "kind",
    [
        *({"feature": CLASSES, "_type": name} for name in ("List", "LargeList")),
        {"feature": CLASSES, "length": -1, "_type": "Sequence"},
        [CLASSES],
    ],
    ids=["List", "LargeList", "Sequence", "list of one"],
)
def test_parquet_of_hugging_face_datasets_gives_names_to_lists_of_ids(tmp_path: Path, kind: Any) -> None:
    text = {"dtype": "string", "_type": "Value"}
    features = {
        "features": {"spans": [text, text], "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "labels": kind, "text": text}
    }
    table = pa.Table.from_pylist([{"text": "t", "labels": [2, 0], "label": 1}, {"text": "u", "labels": [], "label": 0}])
    path = tmp_path / "rows.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": features})}), path)

    several = read_examples(path, label_column="labels", labelling=Labelling(multi_label=True))
    assert [row.labels for row in several] == [("fear", "joy"), ()]
    assert [row.label for row in read_examples(path, label_column="label")] == ["pos", "neg"]


def test_columns_keep_every_value_in_order(tmp_path: Path) -> None:
    row = {"id": 7, "url": None, "text": "a", "tags": ["x", {"y": 1.5}], "label": 3, "category": ["b", "c"]}
    (example,) = read_examples(write_jsonl(tmp_path / "a.jsonl", [row]))

    assert list(example.columns.items()) == list(row.items())
    assert example.label == "3"


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "a.jsonl", '\n{"text": "a", "label": "x"}\n\n\n{"text": "b", "label": "y"}')
    table = write(tmp_path / "b.csv", 'text,label\n"one\ntwo\n",x\n\nthree,y\n')
    array = write(
        tmp_path / "c.json", '\n[\n  {"text": "a",\n   "label": "x"},\n\n  {"text": "b", "label": "y"}, {"text": "c", "label": "y"}\n]\n'
    )

    assert [example.where for example in read_examples(jsonl)] == [f"{jsonl}:2", f"{jsonl}:5"]
    assert [(example.text, example.line) for example in read_examples(table)] == [("one\ntwo\n", 2), ("three", 6)]
    assert [example.line for example in read_examples(array)] == [1, 2, 3], "an array is often one line: its elements are counted"


@pytest.mark.parametrize("text_column", ["title,body", "title, body"])
def test_named_text_columns_are_joined_where_they_are_not_empty(tmp_path: Path, text_column: str) -> None:
    rows = [
        {"title": "标题", "body": "正文", "label": "a"},
        {"title": "", "body": "只有正文", "label": "a"},
        {"title": "只有标题", "body": None, "label": "b"},
        {"title": "缺列", "label": "b"},
    ]
    examples = list(read_examples(write_jsonl(tmp_path / "a.jsonl", rows), text_column=text_column))

    assert [example.text for example in examples] == ["标题\n正文", "只有正文", "只有标题", "缺列"]


def test_a_column_whose_name_has_a_comma_can_be_named(tmp_path: Path) -> None:
    (example,) = read_examples(write_jsonl(tmp_path / "a.jsonl", [{"title,body": "both", "label": "a"}]), text_column="title,body")
    assert example.text == "both"


@pytest.mark.parametrize(
    ("row", "text", "label"),
    [
        ({"category": "c", "output": "o", "text": "t"}, "t", "o"),
        ({"title": "t", "content": "c", "labels": "l"}, "c", "l"),
        ({"Sentence": "s", "TARGET": "l"}, "s", "l"),
        ({"标题": "t", "内容": "c", "类别": "l"}, "c", "l"),
        ({"label": "102", "label_desc": "news_car", "sentence": "s"}, "s", "102"),
        ({"instruction": "classify", "input": "i", "output": "o"}, "i", "o"),
        ({"text": 2024, "label": "year"}, "2024", "year"),
    ],
)
def test_columns_are_found_by_name(tmp_path: Path, row: dict[str, Any], text: str, label: str) -> None:
    assert pairs(list(read_examples(write_jsonl(tmp_path / "a.jsonl", [row])))) == [(text, label)]


def test_named_columns_go_before_found_ones(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "t", "summary": "s", "label": "l", "topic": "p"}])
    assert pairs(list(read_examples(path, text_column="summary", label_column="topic"))) == [("s", "p")]
    assert pairs(list(read_examples(path, label_column="text", text_column="label"))) == [("l", "t")]


@pytest.mark.parametrize(("value", "label"), [(3, "3"), (3.0, "3"), (True, "true"), (" 体育 ", "体育"), ("0", "0"), (-1, "-1")])
def test_labels_become_strings(tmp_path: Path, value: Any, label: str) -> None:
    assert pairs(list(read_examples(write_jsonl(tmp_path / "a.jsonl", [{"text": "t", "label": value}])))) == [("t", label)]


@pytest.mark.parametrize(("value", "label"), [(0, "财经"), ("2", "房产"), ("体育", "体育"), (1.0, "体育")])
def test_class_names_stand_for_ids(tmp_path: Path, value: Any, label: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "t", "label": value}])
    assert pairs(list(read_examples(path, class_names=["财经", "体育", "房产"]))) == [("t", label)]


def test_a_name_that_looks_like_an_id_is_a_name(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "t", "label": 0}])
    assert pairs(list(read_examples(path, class_names=["1", "0"]))) == [("t", "0")]


def test_without_labels_no_label_column_is_needed(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": "t", "label": ["a", "b"]}, {"id": 2, "text": "u"}])
    table = write(tmp_path / "a.csv", "id,text\n1,t\n2,u\n")
    plain = write(tmp_path / "a.txt", "t\n\nu\n")
    one_column = write(tmp_path / "b.csv", "t\nu\n")

    for path in (jsonl, table, plain, one_column):
        assert pairs(list(read_examples(path, labelled=False))) == [("t", None), ("u", None)]
    assert [example.line for example in read_examples(plain, labelled=False)] == [1, 3]
    assert [dict(example.columns) for example in read_examples(table, labelled=False)] == [
        {"id": "1", "text": "t"},
        {"id": "2", "text": "u"},
    ]


def test_labelled_text_files_give_their_texts_alone_without_labels(tmp_path: Path) -> None:
    for name in ("rows.txt", "label-first.txt", "header.txt", "fasttext.txt", "rows.csv"):
        path = write(tmp_path / name, WRITERS[name]())
        examples = list(read_examples(path, labelled=False))
        assert [example.text for example in examples] == [text for text, _ in PAIRS]
        assert [example.columns["label"] for example in examples] == [label for _, label in PAIRS]


def test_plain_texts_may_hold_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "一行文本\n带\t制表符\n")
    assert [example.text for example in read_examples(path, labelled=False)] == ["一行文本", "带\t制表符"]


def test_a_text_with_a_tab_keeps_it_in_a_text_tab_label_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\t0\ntwo\tparts\t1\nthree\t1\nfour\t0\n")
    assert pairs(list(read_examples(path))) == [("one", "0"), ("two\tparts", "1"), ("three", "1"), ("four", "0")]


@pytest.mark.parametrize("content", ["1\t体育\tt\n2\t财经\tu\n", "1,体育,t\n2,财经,u\n"])
def test_columns_without_header_are_named_by_number(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / ("a.tsv" if "\t" in content else "a.csv"), content)
    assert pairs(list(read_examples(path, text_column="column_3", label_column="column_2"))) == [("t", "体育"), ("u", "财经")]


def test_columns_that_excel_left_without_a_heading_are_named_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "标题,类别,,\n央行降息,财经,,\n国足取胜,体育,,\n")
    rows = list(read_examples(path))
    assert pairs(rows) == [("央行降息", "财经"), ("国足取胜", "体育")]
    assert list(rows[0].columns) == ["标题", "类别", "column_3", "column_4"]
    index = list(read_examples(write(tmp_path / "b.csv", ",text,label\n0,一,a\n1,二,b\n")))
    assert list(index[0].columns) == ["", "text", "label"]  # as pandas writes its index


def test_a_class_called_like_a_column_makes_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "review,好看\nnews,新闻一\nreview,难看\nnews,新闻二\n")
    assert [example.label for example in read_examples(path)] == ["review", "news", "review", "news"]


def test_tsv_of_pandas_with_line_breaks_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"one\ntwo ""x"""\ta\nthree\tb\n')
    assert [(example.text, example.label, example.line) for example in read_examples(path)] == [('one\ntwo "x"', "a", 2), ("three", "b", 4)]


def test_a_quoted_tsv_is_told_by_its_head_even_where_that_ends_inside_a_text(tmp_path: Path) -> None:
    long = "\n".join(["x" * 1000] * (2 * HEAD_BYTES // 1000))
    rows = [("one\ntwo", "a"), (long, "b"), ("three", "a")]
    assert pairs(list(read_examples(write(tmp_path / "a.tsv", as_csv([("text", "label"), *rows], "\t"))))) == rows


def test_a_lone_quote_does_not_make_a_long_tsv_a_quoted_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"one\ta\n\tb\tc\n' + f"{'x' * 1000}\tb\n" * (HEAD_BYTES // 500))
    assert next(read_examples(path)).text == '"one'


def test_long_documents_fit_in_csv(tmp_path: Path) -> None:
    text = "长" * 300_000
    assert [example.text for example in read_examples(write(tmp_path / "a.csv", f"text,label\n{text},a\n"))] == [text]


def test_a_file_is_read_no_further_than_asked(tmp_path: Path) -> None:
    filler = json.dumps({"text": "x" * 1000, "label": "a"}) + "\n"
    path = write(tmp_path / "a.jsonl", filler * (2 * HEAD_BYTES // len(filler)) + "broken")

    examples = read_examples(path)

    assert [next(examples).line for _ in range(3)] == [1, 2, 3]
    with pytest.raises(DataError, match="broken JSON"):
        list(examples)


def test_the_encoding_question_stays_open_through_an_ascii_head(tmp_path: Path) -> None:
    ascii_head = "text,label\n" + f"{'plain ascii ' * 80},a\n" * (HEAD_BYTES // 900)
    for encoding in ("utf-8", "gb18030"):
        examples = list(read_examples(write(tmp_path / f"{encoding}.csv", ascii_head + "后来的汉字,b\n再来一行,b\n", encoding)))
        assert pairs(examples[-2:]) == [("后来的汉字", "b"), ("再来一行", "b")]


@pytest.mark.parametrize(
    ("first", "encoding"),
    [(b"caf\xe9", "utf-8"), (b"na\xefve", "utf-8"), ("一".encode("gb18030"), "gb18030")],
    ids=["in neither", "GB18030 too", "UTF-8 too"],
)
def test_behind_an_ascii_head_one_line_does_not_decide_for_all(tmp_path: Path, first: bytes, encoding: str) -> None:
    plain = HEAD_BYTES // 900
    rows = [first, *(text.encode(encoding) for text in ("后来的", "一"))]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "%s"}\n' % (b"plain ascii " * 80) * plain + b"".join(b'{"text": "%s"}\n' % row for row in rows))
    refused: list[int] = []
    texts = [one.text for one in read_examples(path, labelled=False, on_bad_row=lambda line, error: refused.append(line))]
    assert texts[-2:] == ["后来的", "一"]
    assert len(texts) + len(refused) == plain + 3


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_larger_than_the_window(tmp_path: Path, indent: int | None) -> None:
    rows = [
        {"text": f"第{place}行 " + "字" * (CHUNK * 3 if place == 5 else 90), "label": str(place % 3), "n": [place, {}]}
        for place in range(3000)
    ]
    path = write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False, indent=indent))

    examples = list(read_examples(path))

    assert [example.columns for example in examples] == rows
    assert [example.line for example in examples] == list(range(1, 3001))


def test_stdin_is_json_lines(tmp_path: Path) -> None:
    code = "from fenlei.data.readers import read_examples\nfor e in read_examples('-', labelled=False): print(ascii((e.where, e.text)))"
    given = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    out = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True).stdout.decode()
    assert out.splitlines() == [ascii((f"stdin:{line}", row["text"])) for line, row in enumerate(ROWS, start=1)]


def test_reading_text_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fenlei.data.readers import read_examples; "
        "print([m for m in ('numpy', 'pyarrow', 'sklearn', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip() == "[]"


def test_a_layout_says_what_was_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "标题,正文,类别\n标题一,内容一,体育\n标题二,内容二,财经\n", "gb18030")

    layout = file_layout(path)

    assert (layout.format, layout.encoding, layout.columns.text, layout.columns.label) == ("CSV", "gb18030", ("正文",), "类别")
    assert str(layout) == f"{path}: CSV, GB18030, text from '正文', label from '类别' (not from '标题'; --text-column 标题,正文 joins them)"
    assert str(file_layout(path, text_column="标题,正文", labelled=False)) == f"{path}: CSV, GB18030, text from '标题' + '正文'"


def test_class_files(tmp_path: Path) -> None:
    path = write(tmp_path / "class.txt", "财经\r\n体育\n房产\n\n", "gb18030")
    assert read_class_file(path) == ("财经", "体育", "房产")
    assert find_class_file(tmp_path / "train.txt") == path
    assert find_class_file(path) is None
    assert find_class_file("-") is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train.jsonl", "dev.jsonl", "test.jsonl"], ["train.jsonl", "dev.jsonl", "test.jsonl"]),
        (["train.csv.gz", "validation.csv", "notes.md"], ["train.csv.gz", "validation.csv", None]),
        (["cnews.train.txt", "cnews.val.txt", "cnews.test.txt", "cnews.vocab.txt"], ["cnews.train.txt", "cnews.val.txt", "cnews.test.txt"]),
        (["train.txt", "train_small.txt", "valid.txt", "class.txt"], ["train.txt", "valid.txt", None]),
        (["data/train.parquet", "data/test.parquet", "README.md"], ["data/train.parquet", None, "data/test.parquet"]),
    ],
)
def test_a_folder_with_splits(tmp_path: Path, names: list[str], found: list[str | None]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = find_split_files(tmp_path)
    assert [files.train, files.dev, files.test] == [() if name is None else (tmp_path / name,) for name in found]


def test_shards_of_one_table_are_taken_in_order(tmp_path: Path) -> None:
    names = [f"train-0000{place}-of-00003.parquet" for place in range(3)]
    for name in names:
        (tmp_path / name).touch()
    assert find_split_files(tmp_path).train == tuple(tmp_path / name for name in names)

    (tmp_path / names[1]).unlink()
    with pytest.raises(DataError, match="more than one file could be train"):
        find_split_files(tmp_path)


@pytest.mark.parametrize("name", ["no-header.csv", "no-header-swapped.csv", "no-header.tsv", "rows.txt", "label-first.txt"])
def test_columns_named_as_a_file_without_header_gets_them(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, WRITERS[name]())
    assert pairs(list(read_examples(path, text_column="text", label_column="label"))) == PAIRS

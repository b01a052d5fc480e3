"""Pairs of texts: read from files, laid out as the tokenizer does, and shortened by one rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from fenlei.config import RunConfig
from fenlei.data.examples import Example
from fenlei.data.readers import file_layout, read_examples
from fenlei.errors import ConfigError, DataError, ModelError, RequestError
from fenlei.labels import LabelSet
from fenlei.models.backbone import load_tokenizer
from fenlei.text.asking import QuestionEncoder
from fenlei.text.batches import collate
from fenlei.text.encoded import EncodedTexts
from fenlei.text.instructions import compose
from fenlei.text.pair_encoder import PairEncoder, pair_form, text_encoder
from fenlei.text.pairs import check_texts, columns_of
from fenlei.text.prompts import TextEncoder, longest_first, shortened_pair
from fenlei.training.defaults import choose_long

FIRST, SECOND = "国足热身赛两球取胜，主帅称赞年轻后卫", "球队赢了"


def types_of(encoded: EncodedTexts, row: int) -> list[int]:
    assert encoded.token_types is not None
    kinds: list[int] = encoded.token_types[encoded.starts[row] : encoded.starts[row + 1]].tolist()
    return kinds


# The length rule


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 60))
def test_the_longer_text_loses_a_token_at_a_time(first: int, second: int, room: int) -> None:
    kept = longest_first(first, second, room)
    shares = [first, second]
    while sum(shares) > room:
        longer = int(shares[1] > shares[0]) if shares[0] != shares[1] else int(first > second)
        shares[longer] -= 1
    assert kept == tuple(shares)
    assert min(kept) >= min(1, first, second)


@pytest.mark.parametrize(("room", "kept"), [(10, (6, 4)), (9, (5, 4)), (8, (4, 4)), (7, (4, 3)), (2, (1, 1))])
def test_at_under_and_over_the_limit(room: int, kept: tuple[int, int]) -> None:
    assert longest_first(6, 4, room) == kept
    assert longest_first(4, 6, room) == kept[::-1]


def test_each_text_is_cut_as_texts_are() -> None:
    first, second = list(range(8)), list(range(100, 103))
    assert shortened_pair(first, second, 9, "truncate") == ([0, 1, 2, 3, 4, 5], [100, 101, 102])
    assert shortened_pair(first, second, 9, "head-tail") == ([0, 1, 2, 5, 6, 7], [100, 101, 102])


# Token ids


@pytest.mark.parametrize("over", [-1, 0, 1, 7, 15])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_encoders_pairs_are_its_tokenizers_own(tiny_bert: Path, over: int, swapped: bool) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    pair = (SECOND, FIRST) if swapped else (FIRST, SECOND)
    whole = len(tokenizer(*pair)["input_ids"])
    encoded = PairEncoder(tokenizer, None, whole - over).encode([pair])
    own = tokenizer(*pair, truncation="longest_first", max_length=whole - over)
    assert encoded[0].tolist() == own["input_ids"]
    assert types_of(encoded, 0) == own["token_type_ids"]
    assert 1 in own["token_type_ids"]
    assert encoded.tokens_cut[0] == max(0, over)


def test_a_decoders_pairs_have_a_line_break_between(tiny_qwen: Path, tiny_llama: Path) -> None:
    for folder in (tiny_qwen, tiny_llama):
        tokenizer = load_tokenizer(folder)
        encoded = PairEncoder(tokenizer, None, 200).encode([(FIRST, SECOND)])
        bare = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (FIRST, "\n", SECOND)]
        specials = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        assert encoded[0].tolist() == [*specials, *(token for ids in bare for token in ids)]
        assert encoded.token_types is None


def test_a_prompt_says_what_stands_between(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    encoder = PairEncoder(tokenizer, "a {text} b {pair} c", 60)
    assert tokenizer.decode(encoder.encode([("国赛", "赛")])[0]) == "[CLS] a 国 赛 b 赛 c [SEP]"
    plain = PairEncoder(tokenizer, "a {text} c", 60)
    assert plain.template == "a {text}\n{pair} c"
    assert tokenizer.decode(plain.encode([("国赛", "赛")])[0]) == "[CLS] a 国 赛 赛 c [SEP]"


def test_too_little_room_for_both_is_refused(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    kept = PairEncoder(tokenizer, None, 5).encode([(FIRST, SECOND)])
    assert [tokenizer.decode([token]) for token in kept[0]] == ["[CLS]", FIRST[0], "[SEP]", SECOND[0], "[SEP]"]
    with pytest.raises(ConfigError, match="max_length 4 leaves no room"):
        PairEncoder(tokenizer, None, 4)


def test_a_tokenizer_whose_pairs_cannot_be_told_is_named(tiny_bert: Path) -> None:
    tokenizer: Any = load_tokenizer(tiny_bert)
    whole = type(tokenizer).__call__

    class Odd(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, text: Any, pair: Any = None, **options: Any) -> Any:
            return {"input_ids": [2, 3]} if pair is not None else whole(self, text, **options)

    tokenizer.__class__ = Odd
    with pytest.raises(ModelError, match="where its texts lie cannot be told"):
        pair_form(tokenizer)


def test_types_are_padded_with_their_rows(tiny_bert: Path) -> None:
    encoded = PairEncoder(load_tokenizer(tiny_bert), None, 60).encode([(FIRST, SECOND), ("国", "足")])
    batch = collate(encoded, [1, 0], 0)
    assert batch.token_types is not None
    assert batch.token_types.shape == batch.input_ids.shape
    assert batch.token_types[0].tolist()[:6] == [0, 0, 0, 1, 1, 0]
    assert batch.token_types[1].tolist() == types_of(encoded, 0)


def test_single_texts_have_no_types(tiny_bert: Path) -> None:
    assert text_encoder(load_tokenizer(tiny_bert), None, 60).encode([FIRST]).token_types is None


def test_the_generate_method_puts_both_into_its_prompt(tiny_qwen: Path) -> None:
    tokenizer, labels = load_tokenizer(tiny_qwen), LabelSet(("是", "否"))
    instruction = compose(tokenizer, "{labels}? A: {text} B: {pair} =", labels.names, pairs=True)
    encoder = QuestionEncoder(tokenizer, instruction, labels, 200)
    assert "A: 国足 B: 赛 =" in tokenizer.decode(encoder.encode([("国足", "赛")]).prompt(0))
    assert compose(tokenizer, None, labels.names, pairs=True).template.count("{text}\n{pair}") == 1
    whole = encoder.encode([(FIRST, SECOND)])
    room = whole.questions[0].room
    tight = QuestionEncoder(tokenizer, instruction, labels, 200 - room + 4).encode([(FIRST, SECOND)])
    count = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (FIRST, SECOND))
    assert (whole.tokens_cut[0], tight.tokens_cut[0]) == (0, count - 4)
    with pytest.raises(RequestError, match="this run was trained on pairs of texts"):
        encoder.encode([FIRST])


# What is no pair, or no text


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        (["a"], True, r"text 0 is one text, 'a'; this run was trained on pairs of texts, so write \(first, second\)"),
        (("a", "b"), True, "text 0 is one text, 'a'"),
        ([("a", "b"), ("a", "b", "c")], True, r"text 1 is tuple \('a', 'b', 'c'\)"),
        ([("a", None)], True, "text 0 is tuple"),
        ("ab", True, r"found one string; write \[\(first, second\)\]"),
        ([("a", "b")], False, r"text 0 is tuple \('a', 'b'\), expected a string; this run was not trained on pairs"),
        ([("a", "\ud800")], True, "no valid Unicode"),
    ],
)
def test_what_is_no_pair_is_named(texts: Any, pairs: bool, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_texts(texts, pairs=pairs)


def test_lists_of_two_are_pairs_as_well() -> None:
    check_texts([["a", "b"]], pairs=True)  # type: ignore[list-item]


def test_an_encoder_takes_what_it_was_made_for(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    with pytest.raises(RequestError, match="this run was trained on pairs of texts"):
        PairEncoder(tokenizer, None, 60).encode(["国足"])
    with pytest.raises(RequestError, match="this run was not trained on pairs"):
        TextEncoder(tokenizer, None, 60).encode([("国足", "赛")])


def test_the_columns_are_the_runs_where_none_are_given() -> None:
    told = {"text_column": "a", "pair_column": "b"}
    assert columns_of(told, None, None) == ("a", "b")
    assert columns_of(told, "x", "y") == ("x", "y")
    assert columns_of({}, "x", None) == ("x", None)
    assert columns_of({"text_column": "a", "pair_column": None}, None, None) == (None, None), "of single texts the column that is found"
    with pytest.raises(ConfigError, match="pair_column 'y': this run reads single texts"):
        columns_of({}, None, "y")


# Files


def write(path: Path, *rows: dict[str, Any]) -> Path:
    return write_jsonl(path, rows)


def test_both_columns_are_read(tmp_path: Path) -> None:
    data = write(tmp_path / "nli.jsonl", {"premise": "甲", "hypothesis": "乙", "label": "x"})
    (row,) = read_examples(data, text_column="premise", pair_column="hypothesis")
    assert (row.text, row.pair, row.input, row.whole, row.label) == ("甲", "乙", ("甲", "乙"), "甲\n乙", "x")
    assert "text from 'premise', paired with 'hypothesis', label from 'label'" in str(
        file_layout(data, text_column="premise", pair_column="hypothesis")
    )
    assert Example("甲", None, "f", 1).input == Example("甲", None, "f", 1).whole == "甲"


def test_the_text_is_found_beside_a_named_second(tmp_path: Path) -> None:
    (row,) = read_examples(write(tmp_path / "qa.jsonl", {"text": "答", "content": "问", "label": "x"}), pair_column="text")
    assert (row.text, row.pair) == ("问", "答")


def test_a_csv_whose_columns_are_named_has_a_header(tmp_path: Path) -> None:
    (tmp_path / "nli.csv").write_text("a,b,c\n甲,乙,x\n", encoding="utf-8")
    (row,) = read_examples(tmp_path / "nli.csv", text_column="a", pair_column="b", label_column="c")
    assert (row.text, row.pair, row.label) == ("甲", "乙", "x")


def test_a_missing_pair_column_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "nli.jsonl", {"text": "甲", "hypothesis": "乙", "label": "x"})
    with pytest.raises(DataError, match=r"nli.jsonl:1: no column 'hypotesis', found .*did you mean 'hypothesis'"):
        list(read_examples(data, pair_column="hypotesis"))


@pytest.mark.parametrize("second", ["", "  ", None])
def test_an_empty_second_text_is_named_by_file_and_line(second: str | None, tmp_path: Path) -> None:
    data = write(tmp_path / "nli.jsonl", {"text": "甲", "b": "乙", "label": "x"}, {"text": "丙", "b": second, "label": "x"})
    with pytest.raises(DataError, match=r"nli.jsonl:2: expected a second text in column 'b', found none; fill it in"):
        list(read_examples(data, pair_column="b"))
    blank = list(read_examples(data, pair_column="b", blanks=True))[1]
    assert blank.text == ""
    missing = write(tmp_path / "gone.jsonl", {"text": "甲", "b": "乙", "label": "x"}, {"text": "丙", "label": "x"})
    with pytest.raises(DataError, match=r"gone.jsonl:2: expected a second text in column 'b', found none, found columns 'text', 'label'"):
        list(read_examples(missing, pair_column="b"))


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long": "windows"}, "long 'windows' reads one text in windows, and pair_column makes pairs"),
        ({"long": "mean"}, "long 'mean' reads one text"),
        ({"method": "generate", "shots": 2}, "shots show single texts"),
        ({"out_of_scope": "other.txt"}, "out_of_scope is a file of single texts"),
        ({"text_column": "b"}, "pair_column must name a column of its own"),
        ({"prompt": "{pair} {text}"}, "at most once and behind"),
        ({"pair_column": None, "prompt": "{text} {pair}"}, "rows have one text; give pair_column"),
    ],
)
def test_options_that_pairs_exclude(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_options({"pair_column": "b", **options})


def test_long_pairs_are_never_read_in_windows() -> None:
    config = RunConfig.from_options({"pair_column": "b"}).model
    long, choice = choose_long(config, np.full(10, 9000).tolist(), 512, pairs=True)
    assert long == "truncate"
    assert "of a pair the longer text is shortened first" in str(choice)

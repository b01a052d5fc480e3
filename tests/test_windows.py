"""Long texts as windows: every character is read, no window is too long, and the marks of any script end a sentence."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fenlei.models.backbone import load_tokenizer
from fenlei.text.encoded import EncodedTexts
from fenlei.text.prompts import TextEncoder, shortened
from fenlei.text.windows import OVERLAP, cut_into_windows, sentence_spans

ROOM = 12


def by_character(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def windows(text: str, room: int = ROOM) -> list[str]:
    (spans,) = cut_into_windows([text], [room], by_character)
    return [text[begin:end] for begin, end in spans]


@pytest.mark.parametrize(
    "sentences",
    [
        ["央行降准了。", "“真的吗？”", "是的！"],
        ["Prices rose 3.5 percent. ", "“Really?” ", "Yes!"],
        ["今日は雨。", "「本当！」", "はい。"],
        ["यह पहला है। ", "यह दूसरा है।"],
        ["هل هذا صحيح؟ ", "نعم هو صحيح."],
        ["ይህ ነው። ", "እሺ።"],
        ["a line without a mark\n", "and another"],
        ["what... ", "nothing"],
    ],
)
def test_sentences_end_as_their_script_has_it(sentences: list[str]) -> None:
    text = "".join(sentences)
    assert [text[begin:end] for begin, end in sentence_spans(text)] == sentences


def test_windows_begin_and_end_with_sentences_and_overlap() -> None:
    text = "".join(f"{at}。" for at in range(10, 40))
    found = windows(text, room=18)
    assert all(window.endswith("。") and len(window) <= 18 for window in found)
    assert [window[:3] for window in found[1:]] == [window[-3:] for window in found[:-1]], "each begins with the end of the one before it"


def test_a_short_text_is_one_window_as_it_is() -> None:
    assert windows("  一。 ") == ["  一。 "]
    assert windows("") == [""]


def test_windows_of_nothing_but_blanks_are_left_out() -> None:
    assert windows("头。" + "\n" * 100 + "尾。") == ["头。", "尾。"]
    assert len(windows(" " * 100)) == 1


def test_one_unbroken_run_is_cut_where_it_must_be() -> None:
    found = windows("a" * 1000)
    assert all(len(window) <= ROOM for window in found)
    assert set("".join(found)) == {"a"}
    near = windows("一二三四五，" * 50, room=90)
    assert all(window.endswith("，") for window in near), "at commas, where there are no sentences"


@given(st.text(alphabet="ab。.！ \n，é的", max_size=300), st.integers(1, 40))
def test_every_character_is_read_and_no_window_is_too_long(text: str, room: int) -> None:
    (spans,) = cut_into_windows([text], [room], by_character)
    covered = np.zeros(len(text), dtype=bool)
    for begin, end in spans:
        covered[begin:end] = True
    assert all(text[at].isspace() for at in np.flatnonzero(~covered))
    assert all(end - begin <= room or len(spans) == 1 for begin, end in spans)
    begins, ends = zip(*spans, strict=True)
    assert list(begins) == sorted(set(begins)) or text.isspace() or not text
    assert list(ends) == sorted(set(ends)), "each window reads what the one before it did not"


def test_windows_cost_little_more_than_the_text() -> None:
    text = "".join(f"第{at}句话说了些什么。" for at in range(500))
    (spans,) = cut_into_windows([text], [120], by_character)
    assert sum(end - begin for begin, end in spans) < len(text) * (1 + 1.5 / OVERLAP)


@pytest.mark.parametrize("text", ["." * 200_000, "央行宣布，" * 40_000])
def test_200_000_characters_take_seconds(text: str, tiny_qwen: Path) -> None:
    encoder = TextEncoder(load_tokenizer(tiny_qwen), None, 128, "windows")
    began = time.monotonic()
    encoded = encoder.encode([text])
    assert time.monotonic() - began < 20
    assert encoded.longest_input <= 128
    assert encoded.tokens_cut.sum() == 0


@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_bert", "tiny_llama"])
def test_a_window_is_tokenised_as_a_text(model: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(model))
    encoder = TextEncoder(tokenizer, "文：{text} 类：", 40, "windows")
    whole = TextEncoder(tokenizer, "文：{text} 类：", 40)
    texts = ["股市今日大涨。" * 12, "", "球队赢了。"]
    encoded = encoder.encode(texts)
    assert encoded.windows is not None
    assert encoded.windows.counts.tolist()[1:] == [1, 1]
    assert encoded.windows.counts[0] > 2
    rows = np.repeat([0, 1, 2], encoded.windows.counts).tolist()
    flat = [texts[row][begin:end] for row, (begin, end) in zip(rows, encoded.windows.spans.tolist(), strict=True)]
    alone = whole.encode(flat)
    np.testing.assert_array_equal(encoded.ids, alone.ids)
    np.testing.assert_array_equal(encoded.windows.starts, alone.starts)
    assert encoded.tokens_cut.tolist() == [0, 0, 0]
    assert encoded.lengths.tolist() == [sum(len(alone[at]) for at, row in enumerate(rows) if row == one) for one in range(3)]


def test_no_texts_are_no_windows(tiny_qwen: Path) -> None:
    encoded: EncodedTexts = TextEncoder(load_tokenizer(tiny_qwen), None, 40, "windows").encode([])
    assert len(encoded) == 0
    assert encoded.windows is not None
    assert len(encoded.windows.spans) == 0


def test_head_tail_keeps_both_ends() -> None:
    assert list(shortened(range(10), 5, "head-tail")) == [0, 1, 2, 8, 9]
    assert list(shortened(range(10), 1, "head-tail")) == [0]
    assert list(shortened(range(4), 4, "head-tail")) == [0, 1, 2, 3]
    assert list(shortened(range(10), 5, "truncate")) == [0, 1, 2, 3, 4]

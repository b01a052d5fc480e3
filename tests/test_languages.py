"""Nothing assumes Chinese: prompts, features and stored rows of other languages are what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fenlei.data.examples import Example
from fenlei.labels import LabelNote
from fenlei.models.baseline import Baseline
from fenlei.text.instructions import compose
from fenlei.training.exemplars import load_exemplars, save_exemplars


@pytest.mark.parametrize(
    ("labels", "chinese"),
    [
        (("财经", "体育"), True),
        (("finance", "sport"), False),
        (("経済", "スポーツ"), False),
        (("경제", "運動"), False),
        (("เศรษฐกิจ", "กีฬา"), False),
    ],
)
def test_the_prompt_is_in_the_labels_language_or_in_english(labels: tuple[str, ...], chinese: bool, tiny_qwen: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    instruction = compose(tokenizer, None, labels, {labels[0]: LabelNote(aliases=("x",))})
    assert ("请判断" in instruction.template) is chinese
    before = tokenizer.decode(instruction.around(tokenizer, labels)[0])
    assert ("又称" in before) is chinese


def test_a_prompt_of_ones_own_in_japanese_gets_no_chinese_words(tiny_qwen: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    instruction = compose(tokenizer, "次の文章の分類：{labels}\n{text}", ("経済", "文化"), {"経済": LabelNote(aliases=("景気",))})
    assert "又称" not in tokenizer.decode(instruction.around(tokenizer, ("経済", "文化"))[0])


@pytest.mark.parametrize(
    ("texts", "characters"),
    [
        (["ราคาน้ำมันลดลง", "ทีมชาติชนะสองประตู"], True),
        (["នាយករដ្ឋមន្ត្រី", "បាល់ទាត់"], True),
        (["円安が進む", "ﾆｭｰｽ ｻｯｶｰ"], True),
        (["Der Ölpreis fällt", "Zwei Tore im Derby"], False),
        (["цена на нефть упала", "два гола в матче"], False),
        (["انخفض سعر النفط", "هدفان في المباراة"], False),
    ],
)
def test_scripts_without_spaces_are_read_by_characters(texts: list[str], characters: bool) -> None:
    baseline = Baseline.fit(texts * 3, np.array([0, 1] * 3), 2)
    assert ("words" not in baseline.description) is characters
    assert (baseline.logits(texts).argmax(1) == [0, 1]).all()


def test_rows_are_kept_whatever_ends_their_lines(tmp_path: Path) -> None:
    """U+2028, U+0085 and their like end lines for Python, and stand in texts of the web."""
    rows = (Example("a\u2028b\x85c", "日本 語", "x:y.jsonl", 3), Example("d\ne", "l", "z", 1))
    save_exemplars(tmp_path, rows)
    assert load_exemplars(tmp_path) == rows

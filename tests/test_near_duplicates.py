"""Near duplicates: the filter loses no pair that a comparison of each with each finds, and numbers tell apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from fenlei.audit import near_duplicates as module
from fenlei.audit.near_duplicates import NearPair, _candidates, allowed_edits, find_near_pairs, numbers_differ
from fenlei.audit.same_text import bare, plain

CHINESE = [chr(code) for code in range(0x4E00, 0x4E00 + 900)]


def by_force(texts: list[str]) -> list[NearPair]:
    """Each with each."""
    found = []
    for second, other in enumerate(texts):
        for first in range(second):
            edits = Levenshtein.distance(texts[first], other)
            if edits <= allowed_edits(min(len(texts[first]), len(other))):
                found.append(NearPair(first, second, edits))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def edited(text: str, edits: int, alphabet: list[str], dice: random.Random) -> str:
    for _ in range(edits):
        place = dice.randrange(len(text))
        put = dice.choice([dice.choice(alphabet), "", dice.choice(alphabet) + text[place]])
        text = text[:place] + put + text[place + 1 :] or text
    return text


@pytest.mark.parametrize("alphabet", [CHINESE, CHINESE[:12], list("abcdefghijklmnopqrstuvwxyz")], ids=["characters", "few", "letters"])
@pytest.mark.parametrize("longest", [9, 30, 190])
def test_no_pair_is_lost(alphabet: list[str], longest: int) -> None:
    dice = random.Random(longest)
    texts = ["".join(dice.choices(alphabet, k=dice.randint(1, longest))) for _ in range(150)]
    texts += [edited(text, dice.randint(1, 1 + len(text) // 9), alphabet, dice) for text in texts]
    texts = list(dict.fromkeys(texts))
    expected = by_force(texts)
    assert len(expected) > 40
    assert find_near_pairs(texts) == expected


@settings(max_examples=60)
@given(st.lists(st.text("的一是不了ab1😀\ud800", max_size=14), max_size=12, unique=True))
def test_any_texts_at_all(texts: list[str]) -> None:
    assert find_near_pairs(texts) == by_force(texts)


def test_the_order_of_the_texts_changes_nothing() -> None:
    dice = random.Random(1)
    texts = ["".join(dice.choices(CHINESE, k=15)) for _ in range(60)]
    texts += [edited(text, 2, CHINESE, dice) for text in texts[:30]]
    turned = find_near_pairs(texts[::-1])
    last = len(texts) - 1
    assert {(last - pair.second, last - pair.first, pair.edits) for pair in turned} == {
        (pair.first, pair.second, pair.edits) for pair in find_near_pairs(texts)
    }


def test_thousands_of_texts_of_one_mould_are_still_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEIGHBOURS", 5)
    texts = [f"您的订单{number:04d}已经发货请注意查收谢谢惠顾" for number in range(300)]
    linked = {place for pair in find_near_pairs(texts) for place in (pair.first, pair.second)}
    assert len(linked) == 300


def test_of_many_long_texts_few_are_compared_and_copies_with_edits_all_over_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their first 50 characters are looked at: how many of these are enough follows from 50 too, and not from the whole length."""
    monkeypatch.setattr(module, "ALL_TEXTS", 1)
    monkeypatch.setattr(module, "BLOCK", 7)
    dice = random.Random(3)
    alphabet = CHINESE[:12]
    texts = ["".join(dice.choices(alphabet, k=300)) for _ in range(1000)]
    copied = sorted(dice.sample(range(1000), 20))
    parts = [[texts[place][at : at + 20] for at in range(0, 300, 20)] for place in copied]
    copies = ["".join(edited(part, 1, alphabet, dice) for part in one) for one in parts]
    assert [(pair.first, pair.second) for pair in find_near_pairs([*texts, *copies])] == list(zip(copied, range(1000, 1020), strict=True))
    assert len(_candidates(sorted([*texts, *copies]))) < 1000


@pytest.mark.parametrize(("length", "edits"), [(1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (29, 2), (30, 3), (1000, 100)])
def test_allowed_edits(length: int, edits: int) -> None:
    assert allowed_edits(length) == edits


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("第12期开奖", "第13期开奖", True),
        ("考研真题第一讲", "考研真题第三讲", True),
        ("国足赢了", "国足输了", False),
        ("组图一览", "组图一览2", False),
        ("利润增长50亿", "利润增长150亿", True),
        ("1月经济数据", "11月经济数据", True),
        ("涨幅1.5%", "涨幅15%", True),
        ("涨幅1.5%", "涨幅1%", True),
        ("2月1日通知", "3月1日通知2", True),
        ("国足赢了,2比1.", "国足赢了2比1", False),
    ],
)
def test_another_number_is_told_from_another_word(one: str, other: str, differ: bool) -> None:
    assert numbers_differ(one, other) is differ


def test_what_nobody_sees_does_not_make_a_text_another() -> None:
    assert plain("ＡＢＣ　新闻 \n 快讯") == plain(" abc 新闻 快讯")
    assert bare([plain("国足，赢了！"), plain("国足赢了"), plain("！！！"), plain("好😀")]) == ["国足赢了", "国足赢了", "!!!", "好😀"]

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fenlei import DataError, LabelSet
from fenlei.labels import known_names_in

LABELS = LabelSet(("体育", "财经", "science"))
names = st.lists(st.text(min_size=1), unique=True, min_size=1)


@given(names)
def test_names_and_ids_are_each_other_s_inverse(names: list[str]) -> None:
    labels = LabelSet(tuple(names))
    assert labels.ids(names) == list(range(len(names)))
    assert [labels.name(label_id) for label_id in labels.ids(names)] == names
    assert list(labels) == names
    assert len(labels) == len(names)


def test_order_is_that_of_first_appearance() -> None:
    assert LabelSet.in_order_of_appearance(["b", "a", "b", "c", "a"]).names == ("b", "a", "c")


def test_order_is_part_of_a_label_set() -> None:
    assert LabelSet(("a", "b")) != LabelSet(("b", "a"))
    assert LabelSet(("a", "b")) == LabelSet(("a", "b"))


def test_looking_up_changes_neither_equality_nor_hash() -> None:
    fresh, used = LabelSet(("a", "b")), LabelSet(("a", "b"))
    assert used.id("b") == 1
    assert "c" not in used
    assert fresh == used
    assert hash(fresh) == hash(used)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LABELS.names = ("other",)  # type: ignore[misc]


def test_membership_takes_any_object() -> None:
    assert "财经" in LABELS
    assert "finance" not in LABELS
    assert 1 not in LABELS
    assert None not in LABELS


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(DataError, match=r"label 'sience' is not one of '体育', '财经', 'science' \(did you mean 'science'\?\)"):
        LABELS.id("sience")


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert "did you mean" not in LABELS.unknown("weather")


def test_a_long_set_is_shown_in_part() -> None:
    message = LabelSet(tuple(f"class{number:02}" for number in range(20))).unknown("?")
    assert "'class07', ..." in message
    assert "class08" not in message


def test_ids_stop_at_the_first_unknown_name() -> None:
    with pytest.raises(DataError, match="label 'x' is not one of"):
        LABELS.ids(["体育", "x"])


def test_a_name_given_twice_is_named() -> None:
    with pytest.raises(DataError, match="come twice: a, c"):
        LabelSet(("c", "a", "b", "a", "c"))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(DataError, match="a label name is empty"):
        LabelSet(("a", ""))


def test_commas_within_a_known_name_join_nothing() -> None:
    known = ("时政、社会", "a", "b", "a,b,c", "财经")
    assert known_names_in("时政、社会", known) == ["时政、社会"]
    assert known_names_in("财经，时政、社会 , b", known) == ["财经", "时政、社会", "b"]
    assert known_names_in("a,b,c", known) == ["a,b,c"]
    assert known_names_in("a, b", known) == ["a", "b"]
    assert known_names_in("x,,a、 y", known) == ["x", "a", "y"]
    assert known_names_in("", known) == []

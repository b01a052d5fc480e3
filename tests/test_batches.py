"""Batches: every row once, bounded, reproducible."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fenlei.text.batches import ENOUGH_TOKENS, LEAST_REAL, TrainingBatches, by_token_budget, collate
from fenlei.text.encoded import EncodedTexts


@given(st.lists(st.integers(1, 300), min_size=30, max_size=90))
def test_a_large_group_is_nearly_all_real_tokens(lengths: list[int]) -> None:
    for group in by_token_budget(lengths, range(len(lengths)), 8192):
        longest = max(lengths[row] for row in group)
        if (len(group) - 1) * longest >= ENOUGH_TOKENS:  # it was large enough before its last row came
            assert sum(lengths[row] for row in group) >= LEAST_REAL * len(group) * longest


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_token_budget_holds_every_row_once_and_keeps_the_bound(lengths: list[int], budget: int) -> None:
    groups = list(by_token_budget(lengths, range(len(lengths)), budget))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget


def test_an_epoch_is_every_row_once_and_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, size=1000)
    batches = TrainingBatches(lengths, 16, seed=1)
    first = list(batches)
    assert len(first) == len(batches)
    assert sorted(row for batch in first for row in batch) == list(range(1000))
    assert list(batches) == first
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(TrainingBatches(lengths, 16, seed=2)) != first


def test_rows_of_a_batch_are_of_any_length_unless_they_are_to_be_alike() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, size=3200)
    spread = [np.mean([np.ptp(lengths[batch]) for batch in TrainingBatches(lengths, 32, seed=0, alike=alike)]) for alike in (False, True)]
    assert spread[0] > 80
    assert spread[1] < 10


def test_length_grouping_pads_less_than_chance() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, size=3200)

    def computed(batches: list[list[int]]) -> int:
        return sum(len(batch) * int(lengths[batch].max()) for batch in batches)

    shuffled = np.random.default_rng(1).permutation(3200).reshape(-1, 32).tolist()
    assert computed(list(TrainingBatches(lengths, 32, seed=0, alike=True))) < 0.65 * computed(shuffled)


def test_collate_pads_on_the_right() -> None:
    encoded = EncodedTexts(np.array([5, 6, 7, 8], dtype=np.int32), np.array([0, 1, 4]), np.zeros(2, dtype=np.int32))
    batch = collate(encoded, [0, 1], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 9, 9], [6, 7, 8]]
    assert batch.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1]]

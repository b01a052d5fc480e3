"""Batches: every row once, bounded, reproducible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fenlei.inference.scoring import score
from fenlei.models.devices import GPU_BATCH_TOKENS, full_speed_tokens
from fenlei.models.method import Output
from fenlei.text.batches import ENOUGH_TOKENS, LEAST_REAL, TrainingBatches, by_token_budget, collate
from fenlei.text.encoded import EncodedTexts


@given(st.lists(st.integers(1, 300), min_size=30, max_size=90))
def test_a_large_group_is_nearly_all_real_tokens(lengths: list[int]) -> None:
    for group in by_token_budget(lengths, range(len(lengths)), 8192):
        longest = max(lengths[row] for row in group)
        if (len(group) - 1) * longest >= ENOUGH_TOKENS:  # it was large enough before its last row came
            assert sum(lengths[row] for row in group) >= LEAST_REAL * len(group) * longest


class Titles:
    """Half a billion weights on a GPU, which note every pass."""

    pad_id = 0
    device = torch.device("cuda")

    def __init__(self) -> None:
        self.passes: list[tuple[int, ...]] = []

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield torch.nn.Parameter(torch.empty(500_000_000, device="meta"))

    def __call__(self, batch: Any) -> Output:
        self.passes.append(tuple(batch.input_ids.shape))
        return Output(torch.zeros(len(batch.input_ids), 2), None)


def test_on_a_gpu_a_pass_is_filled_before_padding_counts() -> None:
    """A smaller one takes as long: it is over before its kernels are launched."""
    lengths = np.random.default_rng(0).normal(15, 3, size=2048).round().clip(1).astype(np.int64)
    starts = np.concatenate([[0], lengths.cumsum()])
    network = Titles()
    score(network, EncodedTexts(np.zeros(starts[-1], dtype=np.int32), starts, np.zeros(2048, dtype=np.int32)), 2)
    assert sum(rows for rows, _ in network.passes) == 2048
    assert all(rows * length >= 4000 for rows, length in network.passes[:-1])
    assert all(rows * length <= GPU_BATCH_TOKENS for rows, length in network.passes)


@pytest.mark.parametrize(("weights", "tokens"), [(10_000_000, GPU_BATCH_TOKENS), (500_000_000, 4000), (7_000_000_000, ENOUGH_TOKENS)])
def test_the_larger_the_network_the_sooner_padding_counts(weights: int, tokens: int) -> None:
    network = [torch.empty(weights, device="meta")]
    assert full_speed_tokens(torch.device("cuda"), network) == tokens
    assert full_speed_tokens(torch.device("cpu"), network) == ENOUGH_TOKENS


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

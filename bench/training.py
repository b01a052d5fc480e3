"""Training with fenlei beside its peers: the same rows in one epoch, loading and the first optimiser step not counted on any side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from bench.runs import even_head_of, head_of, model_folder, shared
from bench.side_by_side import Rounds, Side, alternate, ours, peer, speed_ratio

OURS, DEV_ROWS = "fenlei", 20


@dataclass(frozen=True)
class Peer:
    """Another way to train."""

    script: str
    """In bench/peers."""
    rows: int
    """As many as keep it busy for about a minute, in whole optimiser steps."""
    quick_rows: int
    settings: tuple[object, ...]
    goal: float
    """How many times its rows a second are fenlei's to be."""


def beside(
    dataset: str, given: argparse.Namespace, peers: Mapping[str, Peer], *, rows: int, quick_rows: int, settings: tuple[object, ...] = ()
) -> Rounds:
    """Trains on the first `rows` of `dataset` with fenlei under `settings`, and with each of `peers` on as many of them as it says."""
    data, model = shared() / "data" / dataset, model_folder()
    dev, train = head_of(data / "dev.jsonl", DEV_ROWS), data / "train.jsonl"
    sides = [Side(OURS, ours("train", even_head_of(train, quick_rows if given.quick else rows), dev, "--model", model, *settings))]
    for name, one in peers.items():
        own = even_head_of(train, one.quick_rows if given.quick else one.rows)
        sides.append(Side(name, peer(one.script, own, "--model", model, *one.settings)))
    return alternate(sides, given.rounds)


def ratios(measured: Rounds, peers: Mapping[str, Peer]) -> dict[str, tuple[float, float]]:
    """Peer's name -> fenlei's rows a second over its own, and the goal."""
    return {name: (speed_ratio(measured, OURS, name), one.goal) for name, one in peers.items()}

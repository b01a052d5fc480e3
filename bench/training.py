"""Training with fenlei beside its peers, one epoch over rows of the same file; loading and the first optimiser step are not counted."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from bench.runs import even_head_of, head_of, model_folder, shared
from bench.side_by_side import Rounds, Side, alternate, ours, peer, speed_ratio

OURS, INT8, DEV_ROWS = "fenlei", "fenlei, int8", 20


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
    bfloat16: bool = False
    """Whether it computes in bfloat16 unless `--dtype` says otherwise."""


def beside(
    dataset: str,
    given: argparse.Namespace,
    peers: Mapping[str, Peer],
    *,
    rows: int,
    quick_rows: int,
    sides: Mapping[str, tuple[object, ...]],
) -> Rounds:
    """Trains on the first `rows` of `dataset` with fenlei, once under each settings of `sides`, and with each of `peers` on as many of
    them as it says.
    """
    data, model = shared() / "data" / dataset, model_folder()
    dev, train = head_of(data / "dev.jsonl", DEV_ROWS), data / "train.jsonl"
    own = even_head_of(train, quick_rows if given.quick else rows)
    ways = [Side(name, ours("train", own, dev, "--model", model, *settings)) for name, settings in sides.items()]
    for name, one in peers.items():
        theirs = even_head_of(train, one.quick_rows if given.quick else one.rows)
        dtype = ("--dtype", given.dtype) if one.bfloat16 else ()
        ways.append(Side(name, peer(one.script, theirs, "--model", model, *one.settings, *dtype)))
    return alternate(ways, given.rounds)


def ratios(measured: Rounds, peers: Mapping[str, Peer], side: str = OURS) -> dict[str, tuple[float, float]]:
    """Peer's name -> rows a second of fenlei's `side` over its own, and the goal."""
    return {name: (speed_ratio(measured, side, name), one.goal) for name, one in peers.items()}


def in_both_formats(measured: Rounds, peers: Mapping[str, Peer]) -> dict[str, tuple[float, float]]:
    """The same as the machine computes by default, and in 8-bit products."""
    return ratios(measured, peers) | {f"{name}, int8": found for name, found in ratios(measured, peers, INT8).items()}

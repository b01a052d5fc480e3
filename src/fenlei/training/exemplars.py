"""Training rows that a run keeps, so that it can be extended without the file: chosen by herding.

Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning (2017).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fenlei.artifact import write_text
from fenlei.data.examples import Example
from fenlei.errors import ArtifactError
from fenlei.evaluation.calibration import probabilities
from fenlei.inference.checksums import EXEMPLARS
from fenlei.inference.scoring import Scores
from fenlei.training.promises import ScoreRows

LOOKED_AT = 20
"""Rows of a class that are looked at for each that is kept: herding has to know what all of them say."""


def choose_exemplars(rows: Sequence[Example], count: int, score: ScoreRows, seed: int) -> tuple[Example, ...]:
    """`count` rows of each class, whose mean state follows the mean state of the class; the classes in order of appearance.

    Encoders and the generate method tell no state: what they say of the labels stands for it.
    """
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    by_class: dict[str, list[Example]] = {str(row.label): [] for row in rows}
    for at in order:
        found = by_class[str(rows[at].label)]
        if len(found) < LOOKED_AT * count:
            found.append(rows[at])
    chosen: list[Example] = []
    for found in by_class.values():
        chosen += [found[at] for at in herd(_states(score(found, True)), count)]
    return tuple(chosen)


def _states(said: Scores) -> np.ndarray:
    """What tells rows apart, finite: the logit of a label that a row does not offer is -inf, its probability 0."""
    if said.pooled is not None:
        return said.pooled
    return said.logits if np.isfinite(said.logits).all() else probabilities(said.logits)


def herd(states: np.ndarray, count: int) -> list[int]:
    """Places of `count` states (rows, width), each such that the mean of those chosen so far is as near to the mean of all as can be."""
    unit = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    mean, total = unit.mean(axis=0), np.zeros(states.shape[1])
    chosen: list[int] = []
    for number in range(1, min(count, len(states)) + 1):
        distance = np.linalg.norm(mean - (total + unit) / number, axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
        total += unit[chosen[-1]]
    return chosen


def save_exemplars(run: Path, rows: Sequence[Example]) -> None:
    """Writes text (of a pair also the second), label, the candidates that it may offer, and place of each row."""
    told = ({"text": row.text, "pair": row.pair, "label": row.label, "candidates": row.candidates, "where": row.where} for row in rows)
    said = ({key: value for key, value in one.items() if value is not None} for one in told)
    write_text(run / EXEMPLARS, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in said))


def load_exemplars(run: Path) -> tuple[Example, ...]:
    """The rows that a run keeps, from where they once came; none where it was not asked to keep any. ArtifactError for a damaged file."""
    path = run / EXEMPLARS
    if not path.exists():
        return ()
    rows = []
    try:
        for line in filter(None, path.read_text(encoding="utf-8").split("\n")):  # not splitlines: texts hold other line ends
            one = json.loads(line)
            source, _, number = one["where"].rpartition(":")
            offered = None if one.get("candidates") is None else tuple(one["candidates"])
            rows.append(Example(one["text"], one["label"], source, int(number), candidates=offered, pair=one.get("pair")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); restore the file, or give --replay") from error
    return tuple(rows)

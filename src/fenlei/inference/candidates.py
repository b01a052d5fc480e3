"""The labels that a request names: for all of its texts, or for each its own. Without torch: a service is asked among them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from fenlei.errors import RequestError
from fenlei.inference.prediction import Labels
from fenlei.text.asking import check_candidates


def for_all(labels: Labels) -> bool:
    """Whether they are the same labels for all texts. RequestError for a lone string, whose characters would be taken for labels."""
    if isinstance(labels, str):
        check_candidates(labels, "labels")
    return all(isinstance(one, str) for one in labels)


def each_text(labels: Labels, rows: int) -> list[tuple[str, ...] | None]:
    """The candidates of each text; RequestError where they are none, or not as many lists as texts."""
    if for_all(labels):
        check_candidates(labels, "labels")
        return [tuple(map(str, cast("Sequence[str]", labels)))] * rows
    if len(labels) != rows:
        raise RequestError(f"labels: expected one list of labels for each of {rows} texts, found {len(labels)}")
    for at, one in enumerate(labels):
        if one is not None:
            check_candidates(one, f"labels of text {at}")
    return [None if one is None else tuple(map(str, one)) for one in labels]

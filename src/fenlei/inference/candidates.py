"""The labels that a request names: for all of its texts, or for each its own. Without torch: a service is asked among them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from fenlei.data.labelling import Labelling
from fenlei.errors import DataError, RequestError
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


def called(labels: Sequence[str], labelling: Labelling) -> tuple[str, ...]:
    """Labels as a run calls them: `科技 ## 手机` is 科技##手机. RequestError where a level has no name."""
    try:
        return tuple(labelling.path(name, "labels") for name in labels)
    except DataError as error:
        raise RequestError(str(error)) from error


def was_fitted_among(run: Mapping[str, Any], own: tuple[str, ...], labels: tuple[str, ...]) -> bool:
    """Whether what was fitted to a run holds for answers among these labels, by its manifest.

    It was fitted on rows that were asked among all labels of the run, in its order, or among candidates of their own, in any; then it holds
    among all only if one row was asked so.
    """
    if not run.get("fitted_among_all", True) and set(labels) == set(own):
        return False
    return labels == own or (bool(run.get("row_candidates")) and set(labels) <= set(own))

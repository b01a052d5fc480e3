"""Rows that were labelled before the labels of a run were renamed, merged or dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fenlei.data.examples import Example, Rows
from fenlei.errors import DataError
from fenlei.labels import LabelSet

FORMER_LABELS = "former_labels"
"""What a manifest says of labels that are none any more, where it tells what run its own comes from: what each is called now, null where it
was dropped."""
_ORIGINS = ("relabelled_from", "extended_from", "distilled_from")
"""Where that is told. The first that is there is of what was done last, and has the names of before too."""


def former_labels(manifest: Mapping[str, Any]) -> dict[str, str | None]:
    """Those of a run, by the names they had; none where its labels were never changed, or by an older fenlei."""
    last: Mapping[str, Any] = next((manifest[origin] for origin in _ORIGINS if origin in manifest), {})
    former: dict[str, str | None] = last.get(FORMER_LABELS, {})
    return former


def unambiguous(manifest: Mapping[str, Any], labels: LabelSet) -> dict[str, str | None]:
    """The former labels; none where a name has gone over to another label, for nothing tells a file of then from one of now."""
    former = former_labels(manifest)
    return {} if any(old in labels for old in former) else former


def under_new_names(parts: Sequence[Rows], manifest: Mapping[str, Any], labels: LabelSet, notes: list[str]) -> tuple[Rows, ...]:
    """Rows with the labels that their own have become, without those whose labels were all dropped; DataError where none is left of a part.

    They stay as they are where it is ambiguous what they mean.
    """
    former = unambiguous(manifest, labels)
    if not any(name in former for part in parts for row in part for name in row.all_labels):
        return tuple(parts)
    renamed = tuple(tuple(_renamed(row, former) for row in part if not row.all_labels or _now(row.all_labels, former)) for part in parts)
    emptied = next((part for part, kept in zip(parts, renamed, strict=True) if part and not kept), None)
    if emptied is not None:
        raise DataError(f"{emptied[0].where}: every row has labels that the run has dropped; give rows of those it has")
    dropped = sum(map(len, parts)) - sum(map(len, renamed))
    notes.append("labels that were renamed or merged are read under their new names")
    notes += [f"{dropped:,} rows are left out: their labels were dropped from the run"] if dropped else []
    return renamed


def _renamed(row: Example, former: Mapping[str, str | None]) -> Example:
    candidates = None if row.candidates is None else _now(row.candidates, former)
    return replace(row.with_labels(_now(row.all_labels, former)), candidates=candidates)


def _now(names: Sequence[str], former: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(new for name in names if (new := former.get(name, name)) is not None))

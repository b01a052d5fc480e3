"""Rows that were labelled before the labels of a run were renamed, merged or dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fenlei.data.examples import Example, Rows, joined
from fenlei.errors import DataError
from fenlei.labels import LabelSet

FORMER_LABELS = "former_labels"
"""What a manifest says under `relabelled_from` of labels that are none any more: what each is called now, null where it was dropped."""


def former_labels(manifest: Mapping[str, Any]) -> dict[str, str | None]:
    """Those of a run, by the names they had; none where its labels were never changed, or by an older fenlei."""
    former: dict[str, str | None] = manifest.get("relabelled_from", {}).get(FORMER_LABELS, {})
    return former


def under_new_names(rows: Rows, manifest: Mapping[str, Any], labels: LabelSet, notes: list[str]) -> Rows:
    """The rows with the labels that their own have become, without those whose labels were all dropped; DataError where none is left.

    Rows stay as they are where a name has gone over to another label: nothing tells a file of then from one of now.
    """
    former = former_labels(manifest)
    if any(old in labels for old in former) or not any(name in former for row in rows for name in row.all_labels):
        return rows
    kept = tuple(_renamed(row, former) for row in rows if not row.all_labels or _now(row.all_labels, former))
    if not kept:
        raise DataError(f"{rows[0].where}: every row has labels that the run has dropped; give rows of those it has")
    dropped = len(rows) - len(kept)
    notes.append("labels that were renamed or merged are read under their new names")
    notes += [f"{dropped:,} rows are left out: their labels were dropped from the run"] if dropped else []
    return kept


def _renamed(row: Example, former: Mapping[str, str | None]) -> Example:
    names = _now(row.all_labels, former)
    candidates = None if row.candidates is None else _now(row.candidates, former)
    if row.labels is not None:
        return replace(row, label=joined(names), labels=names, candidates=candidates)
    return replace(row, label=names[0] if names else None, candidates=candidates)


def _now(names: Sequence[str], former: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(new for name in names if (new := former.get(name, name)) is not None))

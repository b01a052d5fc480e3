"""Rows that a run has met in training: figures on them flatter it, and a comparison favours whoever knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fenlei.artifact import MANIFEST, read_manifest
from fenlei.data.examples import Example
from fenlei.training.held_out import DEV, TEST, TEST_ROWS, rows_of, rows_read, tested_alone

FLATTERED = "its figures are flattered by them"


def met_before(run: Path, source: str | Path, examples: Sequence[Example], others: Mapping[str, str | Path]) -> list[str]:
    """Notes on rows of `source` that the run, or one that it is compared with, may have learned from, or was chosen by."""
    own = _manifest(run)
    notes = _met(own, examples, "the run")
    for name, folder in others.items():
        other = _manifest(Path(folder))
        notes += _met(other, examples, name)
        # The rows stand in the data file too, of which the other may have set aside others.
        if own and other and Path(source).resolve() == (run / TEST_ROWS).resolve():
            count = tested_alone(own, other)
            notes += [f"{count:,} of these rows were not set aside to test {name}, and may have trained it: {FLATTERED}"] if count else []
    return notes


def _manifest(run: Path) -> dict[str, Any]:
    """Nothing of what is no run, or one of an older fenlei, which does not say which rows were to test it."""
    manifest = read_manifest(run) if (run / MANIFEST).is_file() else {}
    return manifest if TEST in manifest.get("data", {}) else {}


def _met(manifest: Mapping[str, Any], examples: Sequence[Example], name: str) -> list[str]:
    if not manifest:
        return []
    read, tested, chose = rows_read(manifest), rows_of(manifest, TEST), rows_of(manifest, *DEV)
    met = [row for row in examples if read(row) and not tested(row)]
    dev = sum(map(chose, met))
    learned = manifest["tuning"] != "none" or bool((manifest.get("instruction") or {}).get("examples"))
    told = {f"may have trained {name}": (len(met) - dev) * learned, f"chose the checkpoint of {name} or calibrated it": dev}
    return [f"{count:,} of these rows {what}: {FLATTERED}" for what, count in told.items() if count]

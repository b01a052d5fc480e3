"""Rows that a run has met in training: figures on them flatter it, and a comparison favours whoever knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fenlei.artifact import MANIFEST, read_manifest
from fenlei.data.encodings import same_file
from fenlei.data.examples import Example
from fenlei.training.held_out import DEV, TEST, TEST_ROWS, rows_of, rows_read, tested_alone, texts_taught

FLATTERED = "its figures are flattered by them"


def met_before(
    run: Path,
    files: Sequence[str | Path],
    examples: Sequence[Example],
    others: Mapping[str, str | Path],
    as_read: Mapping[str, Sequence[Example]],
) -> list[str]:
    """Notes on rows of `files` that the run, or one that it is compared with, may have learned from, or was chosen by.

    `as_read`: the rows as each of the other runs reads them.
    """
    own = _manifest(run)
    notes = [*_met(own, examples, "the run"), *_taught(run, own, examples, "the run")]
    for name, folder in others.items():
        other = _manifest(Path(folder))
        notes += _met(other, examples, name)
        # The rows stand in the data file too, of which the other may have set aside others.
        are_tests = own and other and any(same_file(file, run / TEST_ROWS) for file in files)
        count = tested_alone(own, other) if are_tests else 0
        if count:
            notes.append(f"{count:,} of these rows were not set aside to test {name}, and may have trained it: {FLATTERED}")
        else:
            notes += _taught(Path(folder), other, as_read.get(name, examples), name)
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
    told = {
        f"may have trained {name}": (len(met) - dev) * _learns(manifest),
        f"chose the checkpoint of {name} or calibrated it": dev,
    }
    return [f"{count:,} of these rows {what}: {FLATTERED}" for what, count in told.items() if count]


def _taught(run: Path, manifest: Mapping[str, Any], examples: Sequence[Example], name: str) -> list[str]:
    """A note on rows of other files, and on test rows, whose text stands in a row that may have trained the run: rows that are put
    together for the next training are a file of their own, whose lines say nothing of the test rows of the run before.
    """
    if not manifest or not _learns(manifest):
        return []
    read, tested = rows_read(manifest), rows_of(manifest, TEST)
    elsewhere = [row.whole for row in examples if not read(row) or tested(row)]
    taught = texts_taught(run, manifest, set(elsewhere)) if elsewhere else set()
    count = sum(text in taught for text in elsewhere)
    return [f"{count:,} of these rows have the text of one that may have trained {name}, which may know them by heart"] if count else []


def _learns(manifest: Mapping[str, Any]) -> bool:
    """Whether the run has rows in its weights, or in its prompt."""
    return manifest["tuning"] != "none" or bool((manifest.get("instruction") or {}).get("examples"))

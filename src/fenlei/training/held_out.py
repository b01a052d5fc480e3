"""Rows that a finished run did not learn from, found again in the files it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fenlei.artifact import fingerprint
from fenlei.data.examples import Example

DEV = ("selecting", "calibrating")
TEST = "test"
TEST_ROWS = "test.jsonl"
"""Rows that a run itself set aside for test, in its folder."""
ORIGINS = ("extended_from", "distilled_from")
"""What a manifest says of the run that its own comes from, whose test rows stay test rows."""


def rows_of(manifest: Mapping[str, Any], *parts: str) -> Callable[[Example], bool]:
    """Whether a row of a file was in one of these parts of the run: by line, in a file with the content that the run's had."""
    lines = {content: _numbers(ranges) for content, ranges in lines_of(manifest, *parts).items()}
    contents: dict[str, str] = {}

    def was_there(row: Example) -> bool:
        if row.source not in contents:
            contents[row.source] = fingerprint(Path(row.source)) if Path(row.source).is_file() else ""
        return row.line in lines.get(contents[row.source], ())

    return was_there


def rows_read(manifest: Mapping[str, Any]) -> Callable[[Example], bool]:
    """Whether a row is of a file with the content of one that the run has read."""
    contents = set(manifest["data"]["files"].values())
    read = cache(lambda source: Path(source).is_file() and fingerprint(Path(source)) in contents)
    return lambda row: read(row.source)


def tested_alone(manifest: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """How many rows are to test a run, and stand in a file that another has read and did not set them aside in."""
    theirs, read = lines_of(other, TEST), set(other["data"]["files"].values())
    ours = {content: ranges for content, ranges in lines_of(manifest, TEST).items() if content in read}
    return sum(len(_numbers(ranges) - _numbers(theirs.get(content, ""))) for content, ranges in ours.items())


def lines_of(manifest: Mapping[str, Any], *parts: str) -> dict[str, str]:
    """The lines of these parts of the run, by the SHA-256 of their file; with test those of the runs that it comes from.

    A run of an older fenlei does not say which rows were to test it.
    """
    data = manifest["data"]
    told = [(data["files"].get(source), ranges) for part in parts for source, ranges in data.get(part, {}).items()]
    if TEST in parts:
        told += [pair for origin in ORIGINS for pair in manifest.get(origin, {}).get(TEST, {}).items()]
    found: dict[str, str] = {}
    for content, ranges in told:
        if content is not None:
            found[content] = f"{found[content]},{ranges}" if content in found else ranges
    return found


def _numbers(ranges: str) -> set[int]:
    """`1-3,7` as numbers."""
    pairs = [part.partition("-") for part in ranges.split(",") if part]
    return {line for first, _, last in pairs for line in range(int(first), int(last or first) + 1)}

"""Rows that a run does not learn from: how its manifest says where they stand, and how they are found again in the files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fenlei.artifact import fingerprint
from fenlei.config import DataConfig, trained_on
from fenlei.data.columns import learned_from
from fenlei.data.examples import Example, Rows
from fenlei.data.former_labels import former_labels
from fenlei.data.labelling import Labelling
from fenlei.data.readers import columns_named_by, read_examples
from fenlei.errors import DataError

DEV = ("selecting", "calibrating")
TEST = "test"
TEST_ROWS = "test.jsonl"
"""Rows that a run itself set aside for test, in its folder."""
ORIGINS = ("extended_from", "distilled_from")
"""What a manifest says of the run that its own comes from, whose test rows stay test rows."""


def rows_of(manifest: Mapping[str, Any], *parts: str) -> Callable[[Example], bool]:
    """Whether a row of a file was in one of these parts of the run: by line, in a file with the content that the run's had."""
    lines = {content: numbers(ranges) for content, ranges in lines_of(manifest, *parts).items()}
    content = cache(_content)
    return lambda row: row.line in lines.get(content(row.source), ())


def rows_read(manifest: Mapping[str, Any]) -> Callable[[Example], bool]:
    """Whether a row is of a file with the content of one that the run, or one that it was extended from, has read."""
    contents, content = files_read(manifest), cache(_content)
    return lambda row: content(row.source) in contents


def files_read(manifest: Mapping[str, Any]) -> set[str]:
    """The SHA-256 of every file whose rows the run has learned from, was chosen by or set aside, and of those of the runs before it was
    extended.
    """
    return {*manifest["data"]["files"].values(), *manifest.get("extended_from", {}).get("files", ())}


def dev_rows_beside(rows: Iterable[Example], manifest: Mapping[str, Any], config: DataConfig) -> Rows:
    """Dev rows of the run that are not among `rows`: read as `config` says, from the files that lie where they lay, as they were.

    None of a run whose labels were changed: its files may have the former ones. None of a file that cannot be read so: the run before this
    one may have read it from other columns.
    """
    if "relabelled_from" in manifest or former_labels(manifest):
        return ()
    content = cache(_content)
    missing = {of_file: numbers(ranges) for of_file, ranges in lines_of(manifest, *DEV).items()}
    for row in rows:
        missing.get(content(row.source), set()).discard(row.line)
    labelling, usual_text = Labelling.from_json(manifest), learned_from(manifest)["usual_text"]
    found: list[Example] = []
    for source, then in manifest["data"]["files"].items():
        if missing.get(then) and content(source) == then:
            lines = missing.pop(then)
            with suppress(DataError):
                there = read_examples(source, **columns_named_by(config), labelling=labelling, usual_text=usual_text)
                found += [row for row in there if row.line in lines]
    return tuple(found)


def untold_test_rows(run: Path, manifest: Mapping[str, Any], rows: Iterable[Example]) -> list[str]:
    """A note where `rows` are of a file from which an older fenlei set rows aside for test without writing down which."""
    data = manifest["data"]
    untold = 0 if TEST in data or trained_on(run).test_ratio is None else data["rows"].get(TEST, 0)
    if not untold or not any(map(rows_read(manifest), rows)):
        return []
    return [
        f"{run}: an older fenlei did not write down which {untold:,} rows were set aside for test: they may be learned from here, and "
        "figures on them are flattered then"
    ]


def texts_taught(run: Path, manifest: Mapping[str, Any], texts: Collection[str]) -> set[str]:
    """Which of the texts stand in a row that may have trained the run, in the files that lie where they lay, as they were.

    Of a file that cannot be read as the run read it only what comes before the row that ends it.
    """
    config, usual_text = trained_on(run), learned_from(manifest)["usual_text"]
    dev, test = lines_of(manifest, *DEV), lines_of(manifest, TEST)
    taught: set[str] = set()
    tested: set[str] = set()
    for source, then in manifest["data"]["files"].items():
        if _content(source) == then:
            of_dev, of_test = numbers(dev.get(then, "")), numbers(test.get(then, ""))
            with suppress(DataError):
                for row in read_examples(source, **columns_named_by(config), labelled=False, usual_text=usual_text):
                    if row.whole in texts and row.line not in of_dev:
                        (tested if row.line in of_test else taught).add(row.whole)
    # What stands in a test file that was named has not trained, wherever else it stands (data/splits.py).
    return taught if config.test is None else taught - tested


def tested_alone(manifest: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """How many rows are to test a run, and stand in a file that another has read and did not set them aside in."""
    theirs, read = lines_of(other, TEST), files_read(other)
    ours = {content: ranges for content, ranges in lines_of(manifest, TEST).items() if content in read}
    return sum(len(numbers(ranges) - numbers(theirs.get(content, ""))) for content, ranges in ours.items())


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


def lines_by_file(rows: Iterable[Example]) -> dict[str, str]:
    """Where rows stand, as a manifest says it: line numbers by file, as ranges, `1-3,7`."""
    by_source: dict[str, list[int]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row.line)
    return {source: _ranges(sorted(lines)) for source, lines in by_source.items()}


def numbers(ranges: str) -> set[int]:
    """The line numbers that `1-3,7` stands for."""
    pairs = [part.partition("-") for part in ranges.split(",") if part]
    return {line for first, _, last in pairs for line in range(int(first), int(last or first) + 1)}


def _content(source: str) -> str:
    """Its SHA-256; nothing where it is no file."""
    return fingerprint(Path(source)) if Path(source).is_file() else ""


def _ranges(lines: list[int]) -> str:
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)

"""The rows of train without what is surely wrong, and a log of every row that was touched or wants a person's eye.

Removed is what no reading of the row would save: blanks, copies, texts under two labels, and texts that dev or test hold too, from
train, so that test stays what it was. A label is never changed by machine: suspects are in the log, with the label suggested.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fenlei.artifact import checked_path
from fenlei.audit.audit import Audit
from fenlei.audit.copies import Conflict
from fenlei.data.encodings import same_file
from fenlei.errors import ConfigError
from fenlei.inference.bulk import TARGET_SUFFIXES, write_rows

REMOVED, REVIEW = "removed", "review"


@dataclass(frozen=True)
class Touched:
    """A row of train that was removed, or that a person should look at."""

    row: int
    action: str
    """removed, review"""
    reason: str
    suggested: str | None = None


@dataclass(frozen=True)
class FixResult:
    """What was written."""

    out: Path
    log: Path
    kept: int
    removed: int
    review: int


def write_fixed(audit: Audit, out: str | Path) -> FixResult:
    """Writes the kept rows of train to `out` (.jsonl or .csv) and the log beside it, as NAME.log.jsonl.

    Every column of a row is kept, its label by name. ConfigError where `out` has another ending, or it or the log is a file audited.
    """
    target = checked_fix_target(out)
    log = target.with_name(f"{target.stem}.log.jsonl")
    sources = {Path(example.source) for example in audit.rows.examples}
    taken = next((written for written in (target, log) if any(same_file(source, written) for source in sources)), None)
    if taken is not None:
        raise ConfigError(f"--fix {target}: {taken} is the file that was audited; give another name, so that nothing is lost")
    touched = plan_fixes(audit)
    gone = {one.row for one in touched if one.action == REMOVED}
    kept = [row for row, part in enumerate(audit.rows.part_of) if part == 0 and row not in gone]
    examples = audit.rows.examples
    write_rows(target, [examples[row] for row in kept], [examples[row].named_columns for row in kept])
    write_rows(log, [examples[one.row] for one in touched], [_logged(audit, one) for one in touched])
    return FixResult(target, log, len(kept), len(gone), len(touched) - len(gone))


def checked_fix_target(out: str | Path) -> Path:
    """`out` as a path; ConfigError where it is no file that rows are written to."""
    target = checked_path(out)
    if target.suffix.lower() not in TARGET_SUFFIXES or target.is_dir():
        raise ConfigError(f"--fix {target}: expected a file to write, ending in {', '.join(TARGET_SUFFIXES)}")
    return target


def plan_fixes(audit: Audit) -> list[Touched]:
    """What becomes of the rows of train, each named once, in the order of the file."""
    removed: dict[int, Touched] = {}
    for row, reason in _removals(audit, removed):
        if audit.rows.part_of[row] == 0:
            removed.setdefault(row, Touched(row, REMOVED, reason))
    wanted = {one.row: one for one in _reviews(audit) if audit.rows.part_of[one.row] == 0 and one.row not in removed}
    return sorted((*removed.values(), *wanted.values()), key=lambda one: one.row)


def _removals(audit: Audit, removed: Container[int]) -> Iterator[tuple[int, str]]:
    """Rows with reasons; of two for one row the first counts. `removed` has those of train so far: what a copy copies has to stay."""
    yield from _blanks(audit)
    yield from _leaked(audit)
    for conflict in audit.conflicts:
        yield from _settled(audit, conflict)
    yield from _copied(audit, removed)
    yield from _nearly_copied(audit, removed)


def _blanks(audit: Audit) -> Iterator[tuple[int, str]]:
    for row, example in enumerate(audit.rows.examples):
        if not audit.rows.plain_texts[row]:
            yield row, "no text"
        elif example.label is None:
            yield row, "no label"


def _leaked(audit: Audit) -> Iterator[tuple[int, str]]:
    rows = audit.rows
    for places in rows.same_text.values():
        later = next((row for row in places if rows.part_of[row] > 0), None)
        if later is not None:
            yield from ((row, f"leak: {rows.examples[later].where} has the same text") for row in places)
    for pair in audit.near_pairs:
        if rows.part_of[pair.row] != rows.part_of[pair.of] and not pair.other_number:
            reason = f"leak: {rows.examples[pair.row].where} has nearly the same text"
            yield from ((row, reason) for row in _same(audit, pair.of))


def _copied(audit: Audit, removed: Container[int]) -> Iterator[tuple[int, str]]:
    """Of the rows of one text that are left the first stays."""
    rows = audit.rows
    for places in rows.same_text.values():
        left = [row for row in places if rows.part_of[row] == 0 and row not in removed]
        yield from ((row, f"duplicate: {rows.examples[left[0]].where} has the same text") for row in left[1:])


def _nearly_copied(audit: Audit, removed: Container[int]) -> Iterator[tuple[int, str]]:
    """Of two rows with nearly the same text and the same label the first stays; by now each is the one that is left of its text."""
    rows = audit.rows
    left = {rows.plain_texts[row]: row for row, part in enumerate(rows.part_of) if part == 0 and row not in removed}
    found = []
    for pair in audit.near_pairs:
        one, other = (left.get(rows.plain_texts[row]) for row in (pair.row, pair.of))
        if one is not None and other is not None and not pair.other_number:
            found.append((max(one, other), pair.edits, min(one, other)))
    for row, _, of in sorted(found):
        if of not in removed and rows.examples[row].label == rows.examples[of].label:
            yield row, f"near duplicate: {rows.examples[of].where} has nearly the same text"


def _settled(audit: Audit, conflict: Conflict) -> Iterator[tuple[int, str]]:
    """Of a text under several labels the first row of the majority stays; without a majority none does."""
    told = ", ".join(f"{label!r} {count}" for label, count in conflict.labels.items())
    labels = {row: audit.rows.examples[row].label for row in conflict.rows}
    stays = next((row for row, label in labels.items() if label == conflict.majority and audit.rows.part_of[row] == 0), None)
    yield from ((row, f"conflict: the text has the labels {told}") for row in conflict.rows if row != stays)


def _reviews(audit: Audit) -> Iterator[Touched]:
    """Rows for a person, the most telling reason last: a later one takes the place of an earlier."""
    examples = audit.rows.examples
    for odd in (*audit.languages.rows, *audit.lengths.rows, *audit.classes.rows):
        yield Touched(odd.row, REVIEW, odd.problem)
    for copy in audit.near_duplicates:
        one, other = examples[copy.row], examples[copy.of]
        if one.label == other.label and not copy.other_number:
            continue  # nothing to look at, whether the row is removed or the one it copies
        what = "another number in" if copy.other_number else f"label {one.label!r}, but {other.label!r} in"
        yield Touched(copy.row, REVIEW, f"near duplicate with {what} {other.where}")
    for suspect in audit.label_errors.rows[: audit.label_errors.estimated]:
        reason = f"label probably wrong: {suspect.label!r} has probability {suspect.own_probability:.3f}"
        yield Touched(suspect.row, REVIEW, reason, suspect.suggested)


def _same(audit: Audit, row: int) -> list[int]:
    """All rows of the text of `row` in its part."""
    part = audit.rows.part_of[row]
    return [other for other in audit.rows.same_text[audit.rows.plain_texts[row]] if audit.rows.part_of[other] == part]


def _logged(audit: Audit, touched: Touched) -> dict[str, Any]:
    example = audit.rows.examples[touched.row]
    told = {"action": touched.action, "reason": touched.reason, "suggested": touched.suggested}
    return {**audit.rows.place(touched.row), **told, "label": example.label, "text": example.whole}

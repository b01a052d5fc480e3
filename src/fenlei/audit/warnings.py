"""The cheap part of an audit, which every training runs: seconds for a hundred thousand rows."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace

from fenlei.audit.copies import find_conflicts, find_duplicates, find_exact_leaks
from fenlei.audit.profile import IMBALANCE, profile_classes
from fenlei.audit.rows import PARTS, AuditedRows, gather
from fenlei.data.splits import Dataset

WARNING = "Warning: "
"""What each of the lines begins with."""


def data_warnings(dataset: Dataset, *, uneven: bool = True) -> tuple[str, ...]:
    """A line for each kind of fault in the rows of a run, with the first place and what to do; none where there is nothing to say.

    `uneven`: whether uneven classes are one of them; not so where somebody else says what to do about them.
    """
    dev = sorted((*dataset.selecting, *dataset.calibrating), key=lambda example: (example.source, example.line))
    rows = gather((dataset.train, dev, dataset.test), labelling=dataset.labelling)
    return tuple(WARNING + line for line in _lines(rows, dataset.thinned, uneven))


def _lines(rows: AuditedRows, thinned: Container[str], uneven: bool) -> Iterator[str]:
    leaks = find_exact_leaks(rows)
    for part in (1, 2):
        leaked = [copy for copy in leaks if rows.part_of[copy.row] == part]
        if leaked:
            first = f"first {_where(rows, leaked[0].row)}, the text of {_where(rows, leaked[0].of)}"
            cure = "figures on them flatter the model; `fenlei audit --fix` takes them out of train"
            yield f"{_rows(len(leaked))} of {PARTS[part]} have a text that an earlier part has too ({first}): {cure}"
    conflicts = find_conflicts(rows)
    if conflicts:
        first = f"first {_where(rows, conflicts[0].rows[0])}: {', '.join(map(repr, conflicts[0].labels))}"
        yield f"texts under more than one label: {len(conflicts):,} ({first}); `fenlei audit` lists them"
    duplicates = [copy for copy in find_duplicates(rows) if rows.part_of[copy.row] == 0]
    if duplicates:
        first = f"first {_where(rows, duplicates[0].row)}, the text of {_where(rows, duplicates[0].of)}"
        yield f"{_rows(len(duplicates))} of train repeat a text ({first}); `fenlei audit --fix` keeps one of each"
    classes = profile_classes(rows)
    for rarer, commoner in classes.look_alikes:
        counts = f"{_rows(classes.counts[rarer])} and {_rows(classes.counts[commoner])}"
        yield f"class {rarer!r} looks like {commoner!r} ({counts}): if they are one, write them alike"
    classes = replace(classes, counts={name: count for name, count in classes.counts.items() if name not in thinned})
    if uneven and classes.counts and classes.imbalance >= IMBALANCE:
        (most, least) = (next(iter(classes.counts)), next(reversed(classes.counts)))
        counts = f"{most!r} has {_rows(classes.counts[most])}, {least!r} {_rows(classes.counts[least])}"
        yield f"classes are uneven: {counts}; watch macro F1 and the recall of the small ones, accuracy hides them"


def _where(rows: AuditedRows, row: int) -> str:
    return rows.examples[row].where


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"

"""An audit as JSON. The keys are stable; each finding has `rows`, and each row its file, its number there and its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fenlei.audit.audit import Audit
from fenlei.audit.copies import Copy
from fenlei.audit.profile import Oddity
from fenlei.audit.rows import PARTS


def to_document(audit: Audit) -> dict[str, Any]:
    """What `fenlei audit --json` prints."""
    parts = Counter(PARTS[part] for part in audit.rows.part_of)
    lengths, classes, errors = audit.lengths, audit.classes, audit.label_errors
    return {
        "parts": {part: parts[part] for part in PARTS},
        "duplicates": {"rows": _copies(audit, audit.duplicates)},
        "near_duplicates": {"rows": _copies(audit, audit.near_duplicates)},
        "leaks": {"rows": _copies(audit, audit.leaks)},
        "conflicts": {"texts": len(audit.conflicts), "rows": list(_conflicts(audit))},
        "label_errors": {"estimated": errors.estimated, "judge": errors.judge, "note": errors.note, "rows": list(_suspects(audit))},
        "lengths": {
            "median": lengths.median,
            "p95": lengths.p95,
            "longest": lengths.longest,
            "rows": _oddities(audit, lengths.rows),
        },
        "languages": {"counts": audit.languages.counts, "rows": _oddities(audit, audit.languages.rows)},
        "classes": {
            "counts": classes.counts,
            "imbalance": round(classes.imbalance, 2),
            "look_alikes": [list(pair) for pair in classes.look_alikes],
            "rows": _oddities(audit, classes.rows),
        },
        "notes": list(audit.rows.notes),
    }


def _copies(audit: Audit, copies: Iterable[Copy]) -> list[dict[str, Any]]:
    rows, examples = audit.rows, audit.rows.examples
    return [
        {
            **rows.place(copy.row),
            "label": examples[copy.row].label,
            "of": {**rows.place(copy.of), "label": examples[copy.of].label},
            "exact": copy.exact,
            "edits": copy.edits,
            "other_number": copy.other_number,
        }
        for copy in copies
    ]


def _conflicts(audit: Audit) -> Iterable[dict[str, Any]]:
    for text, conflict in enumerate(audit.conflicts, start=1):
        for row in conflict.rows:
            yield {**audit.rows.place(row), "text": text, "label": audit.rows.examples[row].label, "labels": conflict.labels}


def _suspects(audit: Audit) -> Iterable[dict[str, Any]]:
    for suspect in audit.label_errors.rows:
        yield {
            **audit.rows.place(suspect.row),
            "label": suspect.label,
            "suggested": suspect.suggested,
            "own_probability": round(suspect.own_probability, 6),
            "probability": round(suspect.probability, 6),
        }


def _oddities(audit: Audit, oddities: Iterable[Oddity]) -> list[dict[str, Any]]:
    return [{**audit.rows.place(oddity.row), "problem": oddity.problem} for oddity in oddities]

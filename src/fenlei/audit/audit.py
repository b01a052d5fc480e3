"""`audit_data`: what is wrong with a labelled file, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fenlei.artifact import read_manifest
from fenlei.audit.copies import Conflict, Copy, find_conflicts, find_duplicates, find_exact_leaks, find_near_copies, nearest_copies
from fenlei.audit.label_errors import FEWEST_TEXTS, LabelErrors, cross_validated_probabilities, find_label_errors
from fenlei.audit.profile import Classes, Languages, Lengths, profile_classes, profile_texts
from fenlei.audit.rows import AuditedRows, read_rows
from fenlei.config import Device
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class Audit:
    """What was found. Rows are places in `rows`."""

    rows: AuditedRows
    duplicates: tuple[Copy, ...]
    """Rows whose text an earlier row of the same part has."""
    near_duplicates: tuple[Copy, ...]
    """Rows whose text an earlier row of the same part has but for a few edits, or for marks."""
    leaks: tuple[Copy, ...]
    """Rows of dev and test whose text an earlier part has, or nearly so."""
    near_pairs: tuple[Copy, ...]
    """Every pair behind near_duplicates and leaks, where these name the nearest alone."""
    conflicts: tuple[Conflict, ...]
    label_errors: LabelErrors
    lengths: Lengths
    languages: Languages
    classes: Classes


def audit_data(
    data: str | Path,
    *,
    dev: str | Path | None = None,
    test: str | Path | None = None,
    run: str | Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    class_file: str | Path | None = None,
    device: Device = "auto",
    announce: Callable[[str], None] | None = None,
) -> Audit:
    """Looks at every row of a file, or of a folder's train, dev and test files.

    `run` judges the labels in place of a cross-validated TF-IDF baseline; it should not have been trained on these rows. `announce` is
    told each step. DataError for a file that cannot be read, ArtifactError for a run that cannot be loaded.
    """
    tell = announce or (lambda _: None)
    known = None if run is None else tuple(read_manifest(run)["labels"])
    rows = read_rows(data, dev=dev, test=test, text_column=text_column, label_column=label_column, class_file=class_file)
    for note in rows.notes:
        tell(note)
    tell("looking for copies")
    near, exact_leaks = find_near_copies(rows), find_exact_leaks(rows)
    lengths, languages = profile_texts(rows)
    classes = profile_classes(rows)
    tell("judging the labels" + ("" if run else ": a TF-IDF baseline, fitted without the rows that it judges; a minute for 100,000 rows"))
    errors = _judged_by_baseline(rows) if run is None or known is None else _judged_by_run(rows, run, known, device)
    return Audit(
        rows=rows,
        duplicates=find_duplicates(rows),
        near_duplicates=nearest_copies(rows, near, across=False),
        leaks=nearest_copies(rows, (*exact_leaks, *near), across=True),
        near_pairs=near,
        conflicts=find_conflicts(rows),
        label_errors=errors,
        lengths=lengths,
        languages=languages,
        classes=classes,
    )


def _judged_by_baseline(rows: AuditedRows) -> LabelErrors:
    labels = LabelSet.in_order_of_appearance(str(example.label) for example in rows.examples if example.label is not None)
    places = _judged_places(rows, labels)
    texts, text_ids = np.unique([rows.plain_texts[row] for row in places], return_inverse=True)
    if len(labels) < 2 or len(texts) < FEWEST_TEXTS:
        return LabelErrors((), 0, "", f"labels were not judged: it takes two classes and {FEWEST_TEXTS} texts with a label")
    gold = _gold(rows, places, labels)
    answers = cross_validated_probabilities([rows.examples[row].text for row in places], text_ids, gold, len(labels))
    return find_label_errors(places, gold, answers, labels.names, "cross-validated TF-IDF")


def _judged_by_run(rows: AuditedRows, run: str | Path, known: tuple[str, ...], device: Device) -> LabelErrors:
    from fenlei.inference.classifier import Classifier  # here: without a run, an audit needs no torch

    labels = LabelSet(known)
    places = _judged_places(rows, labels)
    if not places:
        return LabelErrors((), 0, "", f"labels were not judged: no row has one of the labels of {run}")
    notes = []
    strange = sum(example.label is not None and example.label not in labels for example in rows.examples)
    if strange:
        notes.append(f"{strange:,} rows were not judged: {run} does not know their labels")
    trained_on = set(read_manifest(run).get("data", {}).get("files", {}))
    if trained_on & {rows.examples[row].source for row in places}:
        notes.append(f"{run} was trained on rows of this file: it may have learned their wrong labels by heart")
    answers = Classifier.load(run, device=device).predict_proba([rows.examples[row].text for row in places])
    return find_label_errors(places, _gold(rows, places, labels), answers, labels.names, str(run), "; ".join(notes))


def _judged_places(rows: AuditedRows, labels: LabelSet) -> list[int]:
    return [row for row, example in enumerate(rows.examples) if example.label in labels and rows.plain_texts[row]]


def _gold(rows: AuditedRows, places: list[int], labels: LabelSet) -> np.ndarray:
    return np.array([labels.id(str(rows.examples[row].label)) for row in places], dtype=np.int64)

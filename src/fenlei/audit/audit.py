"""`audit_data`: what is wrong with a labelled file, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fenlei.artifact import fingerprint, read_manifest
from fenlei.audit.copies import Conflict, Copy, find_conflicts, find_duplicates, find_exact_leaks, find_near_copies, nearest_copies
from fenlei.audit.label_errors import FEWEST_TEXTS, LabelErrors, cross_validated_probabilities, find_label_errors
from fenlei.audit.label_set_errors import find_set_errors
from fenlei.audit.profile import Classes, Languages, Lengths, profile_classes, profile_texts
from fenlei.audit.rows import AuditedRows, read_rows
from fenlei.config import Device, trained_on
from fenlei.data.columns import learned_from
from fenlei.data.label_ids import may_hold_ids, with_names
from fenlei.data.labelling import Labelling
from fenlei.data.readers import ColumnNames, columns_as_trained
from fenlei.errors import ConfigError
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
    pair_column: str | None = None,
    label_column: str | None = None,
    class_file: str | Path | None = None,
    multi_label: bool | None = None,
    label_separator: str | None = None,
    device: Device = "auto",
    announce: Callable[[str], None] | None = None,
) -> Audit:
    """Looks at every row of a file, or of a folder's train, dev and test files.

    `run` judges the labels in place of a cross-validated TF-IDF baseline; it should not have been trained on these rows, and knows its
    columns, what joins its labels and their levels, and the ids of its labels. `multi_label` and `label_separator` are those of training.
    `announce` is told each step. DataError for a file that cannot be read, ArtifactError for a run that cannot be loaded, ConfigError for
    one that is multi-label where the rows are not, or reads single texts where they are pairs.
    """
    tell = announce or (lambda _: None)
    manifest = None if run is None else read_manifest(run)
    known = None if manifest is None else tuple(manifest["labels"])
    own = Labelling.from_json(manifest or {})
    joins = own.separator if label_separator is None and multi_label is not False else label_separator
    named = ColumnNames(text_column=text_column, pair_column=pair_column, label_column=label_column)
    if run is not None and manifest is not None:
        named = columns_as_trained(Path(run), manifest, named)
    rows = read_rows(
        data, dev=dev, test=test, **named, class_file=class_file,
        multi_label=multi_label, label_separator=joins, level_separator=own.hierarchy.separator if own.hierarchy else None,
        usual_text=learned_from(manifest or {})["usual_text"],
    )  # fmt: skip
    for note in rows.notes:
        tell(note)
    if manifest is not None and own.multi_label != rows.labelling.multi_label:
        raise ConfigError(f"{run}: cannot judge these rows, since only one of them is multi-label; leave --run out, or say --multi-label")
    if run is not None and manifest is not None and class_file is None:
        rows = _under_names_of(Path(run), manifest, rows)
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


def _under_names_of(run: Path, manifest: Mapping[str, Any], rows: AuditedRows) -> AuditedRows:
    """The rows, under the names of a run's labels where they have their ids."""
    known, trained = LabelSet(tuple(manifest["labels"])), trained_on(run)

    @cache
    def holds_ids(source: str) -> bool:
        return may_hold_ids(source, known, trained, manifest)

    return replace(rows, examples=with_names(rows.examples, known, holds_ids, rows.labelling))


def _judged_by_baseline(rows: AuditedRows) -> LabelErrors:
    labels = LabelSet.in_order_of_appearance(label for example in rows.examples for label in example.all_labels)
    places = _judged_places(rows, labels)
    texts = [rows.plain_texts[row] for row in places]
    id_of = {text: at for at, text in enumerate(sorted(set(texts)))}  # not np.unique: an array gives every text the room of the longest
    if len(labels) < 2 or len(id_of) < FEWEST_TEXTS:
        return LabelErrors((), 0, "", f"labels were not judged: it takes two classes and {FEWEST_TEXTS} texts with a label")
    text_ids = np.array([id_of[text] for text in texts])
    gold = _gold(rows, places, labels)
    judged = [rows.examples[row] for row in places]
    strata = np.array(rows.labelling.strata(judged, labels))
    answers = cross_validated_probabilities([one.whole for one in judged], text_ids, gold, len(labels), strata)
    return _label_errors(rows, places, gold, answers, labels, "cross-validated TF-IDF")


def _judged_by_run(rows: AuditedRows, run: str | Path, known: tuple[str, ...], device: Device) -> LabelErrors:
    from fenlei.inference.classifier import Classifier  # here: without a run, an audit needs no torch
    from fenlei.inference.windows import offered_labels

    labels, manifest = LabelSet(known), read_manifest(run)
    places = _judged_places(rows, labels)
    empty = {row for row in places if manifest["method"] == "generate" and rows.examples[row].candidates == ()}
    places = [row for row in places if row not in empty]
    if not places:
        why = "every list of candidate labels is empty" if empty else f"no row has one of the labels of {run}"
        return LabelErrors((), 0, "", f"labels were not judged: {why}")
    notes = [f"{len(empty):,} rows were not judged: their list of candidate labels is empty"] if empty else []
    strange = sum(any(label not in labels for label in example.all_labels) for example in rows.examples)
    if strange:
        notes.append(f"{strange:,} rows were not judged: {run} does not know their labels")
    files = manifest.get("data", {}).get("files", {})
    contents = set(files.values())  # beside the names: one file has many, and one of a name may have grown since
    sources = {rows.examples[row].source for row in places}
    if any(source in files or fingerprint(Path(source)) in contents for source in sources):
        notes.append(f"{run} was trained on rows of this file: it may have learned their wrong labels by heart")
    judge, judged = Classifier.load(run, device=device), [rows.examples[row] for row in places]
    among = offered_labels(judge, judged)
    said = judge.predict_proba([example.input for example in judged], labels=among)
    share_of = dict(zip(judge.columns(among, len(judged)), said.T, strict=True))
    answers = np.stack([share_of.get(name, np.zeros_like(said[:, 0])) for name in labels], axis=1)
    return _label_errors(rows, places, _gold(rows, places, labels), answers, labels, str(run), "; ".join(notes))


def _label_errors(
    rows: AuditedRows, places: list[int], gold: np.ndarray, answers: np.ndarray, labels: LabelSet, judge: str, note: str = ""
) -> LabelErrors:
    if gold.ndim == 1:
        return find_label_errors(places, gold, answers, labels.names, judge, note)
    return find_set_errors(places, gold, answers, labels.names, judge, note, rows.labelling.ancestors(labels))


def _judged_places(rows: AuditedRows, labels: LabelSet) -> list[int]:
    """Rows with a text whose labels, maybe none if they are known, are all among these."""
    return [
        row
        for row, example in enumerate(rows.examples)
        if example.label is not None and all(label in labels for label in example.all_labels) and rows.plain_texts[row]
    ]


def _gold(rows: AuditedRows, places: list[int], labels: LabelSet) -> np.ndarray:
    return rows.labelling.gold([rows.examples[row] for row in places], labels)

"""Several classifiers on the same rows: their figures side by side, whether the differences are more than chance, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fenlei.artifact import read_manifest
from fenlei.config import Device
from fenlei.data.examples import Example
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, DataError
from fenlei.evaluation.answers import Answers, MultiLabelAnswers, right_rows
from fenlei.evaluation.comparison import PairedTest, holm, mcnemar
from fenlei.evaluation.figures import AnyMetrics, figures_of
from fenlei.inference.bulk import WINDOW_ROWS
from fenlei.inference.windows import offered_labels
from fenlei.labels import LabelSet
from fenlei.report.answering import said_in_columns

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, eq=False)
class Contender:
    """A classifier on the rows evaluated."""

    name: str
    answers: Answers
    """Columns in the order of the evaluated run."""
    metrics: AnyMetrics
    test: PairedTest | None = None
    """Against the evaluated run; None for that itself."""
    p_value: float | None = None
    """Of that test, raised for the number of tests (Holm)."""

    @property
    def predicted(self) -> np.ndarray:
        """Label ids, int64 (rows,); multi-label: the labels given, bool (rows, labels)."""
        return self.answers.chosen if isinstance(self.answers, MultiLabelAnswers) else np.asarray(self.answers.argmax(axis=1))

    def said(self, row: int, labels: LabelSet) -> dict[str, Any]:
        """What it says of a row, and how surely."""
        if isinstance(self.answers, MultiLabelAnswers):
            given = [labels.name(at) for at in np.flatnonzero(self.answers.chosen[row]).tolist()]
            return {"prediction": given, "confidence": round(float(self.answers.confidence[row]), 6)}
        return {"prediction": labels.name(int(self.predicted[row])), "confidence": round(float(self.answers[row].max()), 6)}

    def to_json(self) -> dict[str, Any]:
        """Without the rows."""
        test = None if self.test is None else {**vars(self.test), "p_value_holm": self.p_value}
        return {"name": self.name, "metrics": self.metrics.to_json(), "mcnemar": test}


def score_others(others: Sequence[str | Path], examples: Sequence[Example], labels: LabelSet, device: Device) -> list[tuple[str, Answers]]:
    """Name and answers of each: a run's folder, or the predictions.jsonl of an earlier evaluation on the same rows.

    ArtifactError where one knows other labels than the evaluated run, DataError where a file is of other rows.
    """
    folders = [Path(one) for one in others]
    for folder in folders:
        if folder.is_dir():
            manifest = read_manifest(folder)
            _check_labels(folder, manifest["labels"], labels)  # before any is loaded
            if Labelling.from_json(manifest).multi_label != (examples[0].labels is not None):
                raise ArtifactError(f"{folder}: cannot be compared, since only one of the runs is multi-label; compare runs of one task")
    names = _distinct([one.resolve().name if one.is_dir() else one.resolve().parent.parent.name or one.name for one in folders])
    return [
        (name, _of_run(one, examples, labels, device) if one.is_dir() else _of_file(one, examples, labels))
        for name, one in zip(names, folders, strict=True)
    ]


def compare(scored: Sequence[tuple[str, Answers]], gold: np.ndarray, labels: LabelSet) -> tuple[Contender, ...]:
    """The first beside all others, each tested against the first; multi-label, a row is right where all its labels are."""
    plain = [Contender(name, answers, figures_of(gold, answers, labels)) for name, answers in scored]
    first = plain[0]
    tests = [mcnemar(right_rows(gold, first.answers), right_rows(gold, one.answers)) for one in plain[1:]]
    raised = holm([test.p_value for test in tests])
    tested = (Contender(one.name, one.answers, one.metrics, test, p) for one, test, p in zip(plain[1:], tests, raised, strict=True))
    return (first, *tested)


@dataclass(frozen=True)
class ComparedClass:
    """One class as each contender has it."""

    name: str
    f1: tuple[float, ...]
    """In the order of the contenders, between 0 and 1."""
    support: int

    @property
    def best(self) -> float:
        return max(self.f1)


def by_class(contenders: Sequence[Contender]) -> list[ComparedClass]:
    """F1 of every class, in label order; nothing where nothing is compared."""
    each = zip(*(one.metrics.classes for one in contenders), strict=True)
    return [ComparedClass(row[0].name, tuple(one.f1 for one in row), row[0].support) for row in each]


def differing_rows(contenders: Sequence[Contender], examples: Sequence[Example], labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The rows that not all classify alike, with what each says and how surely."""
    answers = np.stack([one.predicted for one in contenders])
    differs = (answers != answers[0]).any(axis=0)
    for row in np.flatnonzero(differs if differs.ndim == 1 else differs.any(axis=1)).tolist():
        said = {one.name: one.said(row, labels) for one in contenders}
        yield {"where": examples[row].where, "text": examples[row].whole, "gold": examples[row].gold, "predictions": said}


def _of_run(folder: Path, examples: Sequence[Example], labels: LabelSet, device: Device) -> Answers:
    from fenlei.inference.classifier import Classifier  # here: rows are checked before torch is imported

    classifier = Classifier.load(folder, device=device)
    predictions = []
    for start in range(0, len(examples), WINDOW_ROWS):
        window = examples[start : start + WINDOW_ROWS]
        predictions += classifier.predict([example.input for example in window], labels=offered_labels(classifier, window))
    return said_in_columns(predictions, labels)


def _of_file(path: Path, examples: Sequence[Example], labels: LabelSet) -> Answers:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: texts hold other line ends
        rows = [json.loads(line) for line in lines if line]
        named: list[Mapping[str, float]] = [row["probabilities"] for row in rows]
        gold = [row["gold"] for row in rows]
        answers = [(row["prediction"], float(row["confidence"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected a run's folder, or the predictions.jsonl of an evaluation ({type(error).__name__}: {error}); "
            "evaluate that run on these rows first"
        ) from error
    if gold != [example.gold for example in examples]:
        same = [one == example.gold for one, example in zip(gold, examples, strict=False)]
        at = same.index(False) if False in same else len(same)
        raise DataError(
            f"{path}:{at + 1}: is of other rows than those evaluated ({len(gold):,} and {len(examples):,}); evaluate it on these"
        )
    if named:
        _check_labels(path, list({name: None for row in named for name in row}), labels)
    shares = np.array([[row.get(name, 0.0) for name in labels] for row in named], dtype=np.float32)  # 0: no candidate of the row
    if examples[0].labels is None:
        return shares
    chosen = np.array([[name in given for name in labels] for given, _ in answers], dtype=bool)
    return MultiLabelAnswers(shares, chosen, np.array([confidence for _, confidence in answers]))


def _check_labels(where: Path, names: Sequence[str], labels: LabelSet) -> None:
    if set(names) != set(labels.names):
        strange = sorted(set(names) ^ set(labels.names))
        shown = ", ".join(map(repr, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise ArtifactError(f"{where}: cannot be compared, since not both runs know {shown}; compare runs of one label set")


def _distinct(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, start=2)]

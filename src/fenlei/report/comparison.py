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
from fenlei.errors import ArtifactError, DataError
from fenlei.evaluation.comparison import PairedTest, holm, mcnemar
from fenlei.evaluation.metrics import Metrics, compute_metrics
from fenlei.inference.bulk import WINDOW_ROWS
from fenlei.labels import LabelSet

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, eq=False)
class Contender:
    """A classifier on the rows evaluated."""

    name: str
    probabilities: np.ndarray
    """float32 (rows, labels), columns in the order of the evaluated run."""
    metrics: Metrics
    test: PairedTest | None = None
    """Against the evaluated run; None for that itself."""
    p_value: float | None = None
    """Of that test, raised for the number of tests (Holm)."""

    @property
    def predicted(self) -> np.ndarray:
        """Label ids, int64 (rows,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Without the rows."""
        test = None if self.test is None else {**vars(self.test), "p_value_holm": self.p_value}
        return {"name": self.name, "metrics": self.metrics.to_json(), "mcnemar": test}


def score_others(
    others: Sequence[str | Path], examples: Sequence[Example], labels: LabelSet, device: Device
) -> list[tuple[str, np.ndarray]]:
    """Name and probabilities (rows, labels) of each: a run's folder, or the predictions.jsonl of an earlier evaluation on the same rows.

    ArtifactError where one knows other labels than the evaluated run, DataError where a file is of other rows.
    """
    folders = [Path(one) for one in others]
    for folder in folders:
        if folder.is_dir():
            _check_labels(folder, read_manifest(folder)["labels"], labels)  # before any is loaded
    names = _distinct([one.resolve().name if one.is_dir() else one.resolve().parent.parent.name or one.name for one in folders])
    return [
        (name, _of_run(one, examples, labels, device) if one.is_dir() else _of_file(one, examples, labels))
        for name, one in zip(names, folders, strict=True)
    ]


def compare(scored: Sequence[tuple[str, np.ndarray]], label_ids: np.ndarray, labels: LabelSet) -> tuple[Contender, ...]:
    """The first beside all others, each tested against the first."""
    plain = [Contender(name, scores, compute_metrics(label_ids, scores, labels)) for name, scores in scored]
    first = plain[0]
    tests = [mcnemar(first.predicted == label_ids, one.predicted == label_ids) for one in plain[1:]]
    raised = holm([test.p_value for test in tests])
    tested = (Contender(one.name, one.probabilities, one.metrics, test, p) for one, test, p in zip(plain[1:], tests, raised, strict=True))
    return (first, *tested)


def differing_rows(contenders: Sequence[Contender], examples: Sequence[Example], labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The rows that not all classify alike, with what each says and how surely."""
    answers = np.stack([one.predicted for one in contenders])
    for row in np.flatnonzero((answers != answers[0]).any(axis=0)).tolist():
        said = {
            one.name: {"prediction": labels.name(int(one.predicted[row])), "confidence": round(float(one.probabilities[row].max()), 6)}
            for one in contenders
        }
        yield {"where": examples[row].where, "text": examples[row].text, "gold": examples[row].label, "predictions": said}


def _of_run(folder: Path, examples: Sequence[Example], labels: LabelSet, device: Device) -> np.ndarray:
    from fenlei.inference.classifier import Classifier  # here: rows are checked before torch is imported

    classifier = Classifier.load(folder, device=device)
    texts = [example.text for example in examples]
    windows = [classifier.predict_proba(texts[start : start + WINDOW_ROWS]) for start in range(0, len(texts), WINDOW_ROWS)]
    return np.concatenate(windows)[:, LabelSet(classifier.labels).ids(labels.names)]


def _of_file(path: Path, examples: Sequence[Example], labels: LabelSet) -> np.ndarray:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        named: list[Mapping[str, float]] = [row["probabilities"] for row in rows]
        gold = [row["gold"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected a run's folder, or the predictions.jsonl of an evaluation ({type(error).__name__}: {error}); "
            "evaluate that run on these rows first"
        ) from error
    if gold != [example.label for example in examples]:
        same = [one == example.label for one, example in zip(gold, examples, strict=False)]
        at = same.index(False) if False in same else len(same)
        raise DataError(
            f"{path}:{at + 1}: is of other rows than those evaluated ({len(gold):,} and {len(examples):,}); evaluate it on these"
        )
    if named:
        _check_labels(path, list(named[0]), labels)
    return np.array([[row[name] for name in labels] for row in named], dtype=np.float32)


def _check_labels(where: Path, names: Sequence[str], labels: LabelSet) -> None:
    if set(names) != set(labels.names):
        strange = sorted(set(names) ^ set(labels.names))
        shown = ", ".join(map(repr, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise ArtifactError(f"{where}: cannot be compared, since not both runs know {shown}; compare runs of one label set")


def _distinct(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, start=2)]

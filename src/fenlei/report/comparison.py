"""Several classifiers on the same rows: their figures side by side, whether the differences are more than chance, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fenlei.artifact import read_manifest
from fenlei.config import Device
from fenlei.data.examples import Example
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, DataError, first_few
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
class Entry:
    """What a classifier says of the rows evaluated."""

    name: str
    answers: Answers
    """Columns in the order of the evaluated run."""
    rounded: bool = False
    """Whether its probabilities bear no log-loss: they come from a file, which keeps six places of them, or lack labels."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A classifier on the rows evaluated."""

    name: str
    answers: Answers
    metrics: AnyMetrics
    rounded: bool = False
    """As in its Entry."""
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
        own = self.answers[row]  # not `predicted`, which looks at every row
        return {"prediction": labels.name(int(own.argmax())), "confidence": round(float(own.max()), 6)}

    def to_json(self) -> dict[str, Any]:
        """Without the rows."""
        test = None if self.test is None else {**vars(self.test), "p_value_holm": self.p_value}
        metrics = self.metrics.to_json() | ({"log_loss": None} if self.rounded else {})
        return {"name": self.name, "metrics": metrics, "mcnemar": test}


def names_of(sources: Sequence[str | Path]) -> list[str]:
    """What runs are called side by side, each by its folder or a predictions.jsonl: by the folder's name, where several are alike with
    that of the folder above, and with their place where even that does not tell them apart.
    """
    folders = [_folder_of(Path(one).resolve()) for one in sources]
    short = [one.name for one in folders]
    names = [name if short.count(name) == 1 else f"{one.parent.name}/{name}" for name, one in zip(short, folders, strict=True)]
    return [name if name not in names[:at] else f"{name} ({at + 1})" for at, name in enumerate(names)]


def score_others(
    others: Mapping[str, str | Path],
    as_read: Mapping[str, Sequence[Example]],
    examples: Sequence[Example],
    labels: LabelSet,
    own: LabelSet,
    device: Device,
    notes: list[str],
) -> list[Entry]:
    """What others say, by their names: a run's folder, or the predictions.jsonl of an earlier evaluation on the same rows.

    `as_read` has for each run the rows as it reads them. `labels` are the evaluated run's `own` and those that rows offer. One that lacks
    some of these gives them no share, which is noted.
    ArtifactError where one knows labels that the evaluated run does not, DataError where a file is of other rows.
    """
    paths = {name: Path(one) for name, one in others.items()}
    # Before any is loaded.
    lacking = {name: _check_run(paths[name], rows, labels, own) for name, rows in as_read.items()}
    for name, unknown in lacking.items():
        if unknown:
            notes.append(f"{name} does not know {first_few(list(map(repr, unknown)), 5)}: it is wrong on the rows of such labels")
    return [
        Entry(name, _of_run(one, as_read[name], labels, device), rounded=bool(lacking[name]))
        if name in lacking
        else Entry(name, _of_file(one, examples, labels), rounded=True)
        for name, one in paths.items()
    ]


def compare(entries: Sequence[Entry], gold: np.ndarray, labels: LabelSet) -> tuple[Contender, ...]:
    """The first beside all others, each tested against the first; multi-label, a row is right where all its labels are."""
    plain = [Contender(one.name, one.answers, figures_of(gold, one.answers, labels), one.rounded) for one in entries]
    first = plain[0]
    tests = [mcnemar(right_rows(gold, first.answers), right_rows(gold, one.answers)) for one in plain[1:]]
    raised = holm([test.p_value for test in tests])
    tested = (replace(one, test=test, p_value=p) for one, test, p in zip(plain[1:], tests, raised, strict=True))
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


def _folder_of(source: Path) -> Path:
    """What a run, or the report that a file belongs to, is called by; a `report` lies in its run's folder where nothing else was asked."""
    if not source.is_file():
        return source
    folder = source.parent.parent if source.parent.name == "report" else source.parent
    return folder if folder.name else source


def _check_run(folder: Path, examples: Sequence[Example], labels: LabelSet, own: LabelSet) -> list[str]:
    """The evaluated run's own labels that this one lacks; ArtifactError where the two cannot be compared."""
    manifest = read_manifest(folder)
    _check_labels(folder, manifest["labels"], own)
    offered = next((name for row in examples for name in row.candidates or () if name not in own), None)
    # Only a run that generates is asked among what rows offer: `labels` then have it.
    if offered is not None and (offered in labels) != (manifest["method"] == "generate"):
        which = "it" if offered in labels else "the evaluated run"
        raise ArtifactError(
            f"{folder}: cannot be compared, since rows offer {offered!r}, which {which} was not trained on, and a head answers with no "
            "other labels; compare runs of --method generate"
        )
    if Labelling.from_json(manifest).multi_label != (examples[0].labels is not None):
        raise ArtifactError(f"{folder}: cannot be compared, since only one of the runs is multi-label; compare runs of one task")
    asked = {name for row in examples for name in row.candidates or ()} if manifest["method"] == "generate" else set()
    return [name for name in own if name not in manifest["labels"] and name not in asked]


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
        rows = [_answer_in(json.loads(line)) for line in lines if line]
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
        _check_labels(path, {name for row in named for name in row}, labels)
    shares = np.array([[row.get(name, 0.0) for name in labels] for row in named], dtype=np.float32)  # 0: no candidate of the row
    if examples[0].labels is None:
        return _with_answers_first(shares, np.array(labels.ids([str(answer) for answer, _ in answers])))
    chosen = np.array([[name in given for name in labels] for given, _ in answers], dtype=bool)
    return MultiLabelAnswers(shares, chosen, np.array([confidence for _, confidence in answers]))


def _with_answers_first(shares: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Shares (rows, labels) of which the row's own answer is the greatest: where six places hold two alike, the order of labels would
    answer in its place.
    """
    every, best = np.arange(len(shares)), shares.max(axis=1)
    tied = (shares.argmax(axis=1) != answers) & (shares[every, answers] == best)
    shares[every[tied], answers[tied]] = np.nextafter(best[tied], np.float32(2.0))
    return shares


def _answer_in(row: dict[str, Any]) -> dict[str, Any]:
    """What an evaluation wrote of a row, without the prefix of its columns: `gold` is the last of them. The row may have columns of the
    same names, of another run, under no prefix or another.
    """
    prefix = str(next(reversed(row), "")).rpartition("gold")[0]
    return {name: row[prefix + name] for name in ("probabilities", "gold", "prediction", "confidence")}


def _check_labels(where: Path, names: Collection[str], labels: LabelSet) -> None:
    strange = sorted(set(names) - set(labels))
    if strange:
        shown = first_few(list(map(repr, strange)), 5)
        raise ArtifactError(
            f"{where}: cannot be compared, since the evaluated run does not know {shown}; compare runs of one label set, or evaluate the "
            "one that knows more"
        )

"""A run measured on labelled rows, beside its baseline, and written down as a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fenlei.artifact import MANIFEST, checked_path, read_manifest
from fenlei.config import Device, TrustConfig
from fenlei.data.columns import READ_FROM
from fenlei.data.examples import Example, candidates_of, with_offered
from fenlei.data.former_labels import under_new_names
from fenlei.data.labelling import Labelling
from fenlei.data.readers import ColumnNames, columns_as_trained
from fenlei.errors import ArtifactError
from fenlei.evaluation.answers import Answers, MultiLabelAnswers
from fenlei.evaluation.figures import AnyMetrics, figures_of
from fenlei.evaluation.metrics import Metrics
from fenlei.evaluation.plots import confusion_plot
from fenlei.inference.baseline import baseline_answers
from fenlei.inference.passages import decisive_passage
from fenlei.inference.windows import ADDED as ANSWERED
from fenlei.inference.windows import UNREAD_CANDIDATES, predicted_row
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline
from fenlei.report.answering import AnsweredRows, answer_rows
from fenlei.report.comparison import Contender, Entry, compare, differing_rows, names_of, score_others
from fenlei.report.confidence import Confidence
from fenlei.report.files import refuse_overwriting, remove, write_figures, write_page, write_rows
from fenlei.report.lengths import by_length, what_was_cut
from fenlei.report.levels import Level, by_level
from fenlei.report.met_before import met_before
from fenlei.report.mistakes import Mistake, find_mistakes, find_wrong_sets
from fenlei.report.own_columns import read_by_others
from fenlei.report.page import Page
from fenlei.report.remarks import remarks
from fenlei.report.rows import check_rows, labelled_files, read_labelled
from fenlei.report.wording import BASELINE, facts
from fenlei.text.asking import Candidates

if TYPE_CHECKING:
    from fenlei.inference.classifier import Classifier
    from fenlei.inference.prediction import Prediction

ADDED = (*ANSWERED, "where", "gold", "label_suspected")
"""Columns that the written rows have beside their own: `where` is file:line, `gold` the label as the run names it, `label_suspected`
(bad_cases.jsonl alone) whether that label is probably wrong."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and where the report lies."""

    metrics: AnyMetrics
    baseline: AnyMetrics | None
    """Of the run's TF-IDF baseline on the same rows; None where the run has none."""
    out: Path
    mistakes: tuple[Mistake, ...]
    """Every wrong row, the most confident first."""
    notes: tuple[str, ...]
    """Lines to print: what was cut, what the figures cannot say."""
    confidence: Confidence
    comparison: tuple[Contender, ...] = ()
    """The run, then its baseline and the runs it was to be compared with; empty where none was named."""
    levels: tuple[Level, ...] = ()
    """Of a hierarchy, the topmost first; empty where labels lie side by side."""


def evaluate_run(
    run_folder: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    label_separator: str | None = None,
    prefix: str = "",
    device: Device = "auto",
    classifier: Classifier | None = None,
    trust: TrustConfig | None = None,
    compare_with: Sequence[str | Path] = (),
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Classifies the labelled rows of `data` and writes the report to `out` (default: `report` in the run's folder).

    Columns default to those the run was trained with. `data` may be a pattern of files, or a folder: its test files, else its dev files.
    `class_names` turns label ids of the file into names, `label_separator` splits the labels of a multi-label row. `prefix` goes before the
    name of each column added to written rows. `classifier` saves loading one; else `trust` may ask for a threshold or sets that are not the
    run's own. `compare_with` names further runs, each of which reads the columns that it was trained with itself, or the predictions.jsonl
    of their evaluation on the same rows. `progress` is told the number of rows done. DataError names the row whose label the run does not
    know, before anything is classified; ConfigError where the report would be written over the rows; ArtifactError where the run is
    incomplete or the report cannot be written.
    """
    run = Path(run_folder)
    target = checked_path(out) if out is not None else run / "report"
    manifest = read_manifest(run) if classifier is None or (run / MANIFEST).is_file() else {}
    labels = LabelSet(classifier.labels if classifier else tuple(manifest["labels"]))
    notes: list[str] = []
    labelling = Labelling.from_json(manifest)
    labelling = replace(labelling, separator=label_separator or labelling.separator)
    named = ColumnNames(text_column=text_column, pair_column=pair_column, label_column=label_column)
    columns = columns_as_trained(run, manifest, named)
    files = labelled_files(data, columns, manifest.get(READ_FROM, ()), notes)
    refuse_overwriting(target, files)
    source = files[0] if len(files) == 1 else data
    examples = read_labelled(files, run, manifest, labels, labelling, columns, class_names)
    (examples,) = under_new_names([examples], manifest, labels, notes)
    own = labels
    candidates = candidates_of(examples)
    if candidates and (classifier.takes_labels if classifier else manifest["method"] == "generate"):
        labels = with_offered(labels, examples)
    elif candidates:
        notes.append(UNREAD_CANDIDATES)
        candidates = None
    check_rows(examples, labels, ADDED, prefix)
    gold = labelling.gold(examples, labels)
    # First: it takes seconds, and may be damaged.
    baseline = _baseline_answers(run / "baseline", examples, labelling, labels, own, candidates, notes)
    name, *others = names_of([run, *compare_with])
    compared = dict(zip(others, compare_with, strict=True))
    as_read = read_by_others(compared, examples, named, notes)
    notes += met_before(run, files, examples, compared, as_read)
    entries = [Entry(BASELINE, baseline)] if baseline is not None and compare_with else []
    entries += score_others(compared, as_read, examples, labels, own, device, notes)

    answered = answer_rows(classifier or _load(run, device, trust), examples, labels, gold, progress)
    evaluation = Evaluation(
        metrics=figures_of(gold, answered.answers, labels, uncertainty=True),
        baseline=None if baseline is None else figures_of(gold, baseline, labels, uncertainty=True),
        out=target,
        mistakes=_with_passages(_mistakes(examples, gold, answered.answers, labels), answered.predictions),
        notes=(*notes, *remarks(examples, answered.predictions, labels)),
        confidence=answered.confidence,
        comparison=compare([Entry(name, answered.answers), *entries], gold, labels) if entries else (),
        levels=by_level(labelling.hierarchy, gold, answered.answers, labels),
    )
    return _write_report(evaluation, run, manifest, source, examples, answered, labels, prefix)


def _load(run: Path, device: Device, trust: TrustConfig | None) -> Classifier:
    from fenlei.inference.classifier import Classifier  # here: rows are checked before torch is imported

    return Classifier.load(run, device=device, trust=trust)


def _mistakes(examples: Sequence[Example], gold: np.ndarray, answers: Answers, labels: LabelSet) -> tuple[Mistake, ...]:
    if isinstance(answers, MultiLabelAnswers):
        return find_wrong_sets(examples, gold, answers, labels)
    return find_mistakes(examples, gold, answers, labels)


def _with_passages(mistakes: Sequence[Mistake], predictions: Sequence[Prediction]) -> tuple[Mistake, ...]:
    """The same with the words that counted most."""
    return tuple(replace(one, passage=decisive_passage(one.example.whole, predictions[one.row])) for one in mistakes)


def _baseline_answers(
    folder: Path,
    examples: Sequence[Example],
    labelling: Labelling,
    labels: LabelSet,
    own: LabelSet,
    candidates: Candidates | None,
    notes: list[str],
) -> Answers | None:
    """None where the run has no baseline, and where rows offer labels besides the run's `own`, which none knows."""
    if not folder.is_dir():
        return None
    if len(labels) > len(own):
        notes.append(f"the {BASELINE} is left out: it knows the labels that the run was trained on, and rows offer others")
        return None
    baseline = Baseline.load(folder)
    if baseline.n_labels != len(labels):
        raise ArtifactError(f"{folder}: knows {baseline.n_labels} labels, the run {len(labels)}; remove the folder or train again")
    return baseline_answers(baseline, [example.whole for example in examples], labelling, labels, candidates)


def _written_row(example: Example, prediction: Prediction, prefix: str) -> dict[str, Any]:
    row = predicted_row(example.columns, prediction, probabilities=True, prefix=prefix, text=example.text)
    return {**row, f"{prefix}where": example.where, f"{prefix}gold": example.gold}


def _write_report(
    evaluation: Evaluation,
    run: Path,
    manifest: dict[str, Any],
    source: str | Path,
    examples: Sequence[Example],
    answered: AnsweredRows,
    labels: LabelSet,
    prefix: str,
) -> Evaluation:
    """Every file of the report; the evaluation with what there is to say of its pictures."""
    metrics, out = evaluation.metrics, evaluation.out
    plot = confusion_plot(metrics) if isinstance(metrics, Metrics) else None  # sets of labels have no such matrix
    evaluation = replace(evaluation, notes=(*evaluation.notes, *([plot.note] if plot and plot.note else [])))
    tokens_cut = [one.tokens_cut for one in answered.predictions]
    page = Page(
        title=f"{run.resolve().name} on {Path(source).name}",
        metrics=metrics,
        baseline=evaluation.baseline,
        mistakes=evaluation.mistakes,
        confusion_png=plot.png if plot else None,
        confidence=evaluation.confidence,
        lengths=by_length([len(example.whole) for example in examples], answered.right, tokens_cut),
        cut=what_was_cut(answered.right, tokens_cut),
        comparison=evaluation.comparison,
        levels=evaluation.levels,
        history=_history(run),
        facts=(("Run", str(run)), ("Rows evaluated", f"{metrics.rows:,} of {source}"), *facts(manifest)),
        notes=evaluation.notes,
    )
    said, suspected = answered.predictions, f"{prefix}label_suspected"
    write_rows(out / "predictions.jsonl", (_written_row(example, one, prefix) for example, one in zip(examples, said, strict=True)))
    bad = ({**_written_row(one.example, said[one.row], prefix), suspected: one.label_suspected} for one in evaluation.mistakes)
    write_rows(out / "bad_cases.jsonl", bad)
    if evaluation.comparison:
        write_rows(out / "differences.jsonl", differing_rows(evaluation.comparison, examples, labels))
    else:
        remove(out / "differences.jsonl")
    write_page(out, page)
    write_figures(out / "metrics.json", _figures(evaluation, run, source))
    return evaluation


def _figures(evaluation: Evaluation, run: Path, source: str | Path) -> dict[str, Any]:
    return {
        "run": str(run),
        "data": str(source),
        **evaluation.metrics.to_json(),
        "confidence": evaluation.confidence.to_json(),
        "baseline": evaluation.baseline.to_json() if evaluation.baseline else None,
        "comparison": [one.to_json() for one in evaluation.comparison],
        "levels": [asdict(one) for one in evaluation.levels],
    }


def _history(run: Path) -> tuple[dict[str, Any], ...]:
    """The course of training; empty where the run's folder does not tell."""
    try:
        return tuple(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["history"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()  # a report is worth having without it

"""A run measured on labelled rows, beside its baseline, and written down as a report."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fenlei.artifact import read_manifest, saving
from fenlei.config import DataConfig, Device, RunConfig
from fenlei.data.examples import Example, check_gold
from fenlei.data.folders import find_split_files
from fenlei.data.label_file import read_class_file
from fenlei.data.readers import find_class_file, read_examples
from fenlei.errors import ArtifactError, DataError
from fenlei.evaluation.calibration import probabilities
from fenlei.evaluation.metrics import Metrics, compute_metrics
from fenlei.inference.bulk import WINDOW_ROWS, predict_examples, predicted_row, to_json
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline
from fenlei.report.markdown import render_markdown
from fenlei.report.mistakes import Mistake, find_mistakes
from fenlei.report.page import Page, render_html
from fenlei.report.plots import confusion_plot
from fenlei.report.wording import facts

if TYPE_CHECKING:
    from fenlei.inference.classifier import Classifier, Prediction

ADDED = ("prediction", "confidence", "probabilities", "calibrated", "tokens_cut", "where", "gold")
"""Columns that the written rows have beside their own: `where` is file:line, `gold` the label as the run names it."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and where the report lies."""

    metrics: Metrics
    baseline: Metrics | None
    """Of the run's TF-IDF baseline on the same rows; None where the run has none."""
    out: Path
    mistakes: tuple[Mistake, ...]
    """Every wrong row, the most confident first."""
    notes: tuple[str, ...]
    """Lines to print: what was cut, what the figures cannot say."""


def evaluate_run(
    run_folder: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    prefix: str = "",
    device: Device = "auto",
    classifier: Classifier | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Classifies the labelled rows of `data` and writes the report to `out` (default: `report` in the run's folder).

    Columns default to those the run was trained with. `data` may be a folder: its test file, else its dev file. `class_names` turns
    label ids of the file into names. `prefix` goes before the name of each column added to written rows. `classifier` saves loading
    one. `progress` is told the number of rows done. DataError names the row whose label the run does not know, before anything is
    classified; ArtifactError where the run is incomplete or the report cannot be written.
    """
    run = Path(run_folder)
    target = Path(out) if out is not None else run / "report"
    labels = LabelSet(classifier.labels if classifier else tuple(read_manifest(run)["labels"]))
    notes: list[str] = []
    source = _labelled_file(data, notes)
    examples = _read(source, run, labels, text_column, label_column, class_names)
    own = len(labels)
    if any(example.candidates is not None for example in examples) and _takes_labels(run, classifier):
        labels = _with_offered(labels, examples)
    _check_rows(examples, labels, prefix)
    gold = np.array(labels.ids([str(example.label) for example in examples]), dtype=np.int64)
    # First: it takes seconds, and may be damaged. It does not know labels that rows bring along.
    baseline = _baseline_metrics(run / "baseline", examples, gold, labels) if len(labels) == own else None

    predictions = _predict(classifier or _load(run, device), examples, progress)
    scores = np.array([[one.probabilities.get(name, 0.0) for name in labels] for one in predictions], dtype=np.float32)
    metrics = compute_metrics(gold, scores, labels)
    mistakes = find_mistakes(examples, gold, scores, labels)
    plot = confusion_plot(metrics)
    notes += [*_remarks(examples, predictions, labels), *([plot.note] if plot.note else [])]
    evaluation = Evaluation(metrics, baseline, target, mistakes, tuple(notes))
    rows = [_written_row(example, one, prefix) for example, one in zip(examples, predictions, strict=True)]
    _write_report(evaluation, run, source, rows, plot.png)
    return evaluation


def _labelled_file(data: str | Path, notes: list[str]) -> str | Path:
    """`data` itself, or the test (else dev) file of the folder that it is."""
    if not Path(data).is_dir():
        return data
    files = find_split_files(data)
    chosen = files.test or files.dev
    if len(chosen) != 1:
        raise DataError(f"{data}: expected one test or dev file in the folder, found {len(chosen)}; name the file to evaluate on")
    if not files.test:
        notes.append(f"{chosen[0]}: dev rows, since the folder has no test file; if they chose the checkpoint, the figures flatter it")
    return chosen[0]


def _read(
    source: str | Path,
    run: Path,
    labels: LabelSet,
    text_column: str | None,
    label_column: str | None,
    class_names: Sequence[str] | None,
) -> tuple[Example, ...]:
    """The rows, read as the run's own were where the caller does not say otherwise."""
    trained = RunConfig.from_yaml(run / "config.yaml").data if (run / "config.yaml").is_file() else DataConfig()
    if class_names is None and (trained.class_file or _class_file_beside(source) == labels.names):
        class_names = labels.names  # the run was trained on ids of these names: so may the file hold ids
    return tuple(
        read_examples(
            source,
            text_column=trained.text_column if text_column is None else text_column,
            label_column=trained.label_column if label_column is None else label_column,
            class_names=class_names,
        )
    )


def _class_file_beside(source: str | Path) -> tuple[str, ...] | None:
    path = find_class_file(source)
    try:
        return read_class_file(path) if path else None
    except DataError:
        return None  # nobody named this file: it may be about something else


def _takes_labels(run: Path, classifier: Classifier | None) -> bool:
    return classifier.takes_labels if classifier else bool(read_manifest(run)["method"] == "generate")


def _with_offered(labels: LabelSet, examples: Sequence[Example]) -> LabelSet:
    """The run's labels and those that rows offer; DataError for a row whose own label is none of its candidates."""
    for example in examples:
        check_gold(example)
    return LabelSet.in_order_of_appearance([*labels, *(name for example in examples for name in example.candidates or ())])


def _check_rows(examples: Sequence[Example], labels: LabelSet, prefix: str) -> None:
    """DataError for labels that the run does not know, and for columns that the written rows would have twice."""
    strange = [example for example in examples if example.label not in labels]
    if strange:
        first = strange[0]
        others = f", and {len(strange) - 1:,} more rows have such labels" if len(strange) > 1 else ""
        raise DataError(f"{first.where}: {labels.unknown(str(first.label))}{others}; correct the file, or train on rows of that class")
    for example in examples:
        clash = [prefix + name for name in ADDED if prefix + name in example.columns]
        if clash:
            raise DataError(
                f"{example.where}: the input already has a column {clash[0]!r}, which would be overwritten; "
                f"name the new columns apart, for example --prefix {prefix}fenlei_"
            )


def _load(run: Path, device: Device) -> Classifier:
    from fenlei.inference.classifier import Classifier  # here: rows are checked before torch is imported

    return Classifier.load(run, device=device)


def _predict(classifier: Classifier, examples: Sequence[Example], progress: Callable[[int], None] | None) -> list[Prediction]:
    """In the windows of bulk prediction, so that `evaluate` and `predict` give a row the same answer to the bit."""
    predictions: list[Prediction] = []
    for start in range(0, len(examples), WINDOW_ROWS):
        predictions += predict_examples(classifier, examples[start : start + WINDOW_ROWS])
        if progress:
            progress(len(predictions))
    return predictions


def _remarks(examples: Sequence[Example], predictions: Sequence[Prediction], labels: LabelSet) -> Iterator[str]:
    cut = [one.tokens_cut for one in predictions if one.tokens_cut]
    if cut:
        yield f"{len(cut):,} of {len(examples):,} texts were longer than the run takes: {sum(cut):,} tokens were not read"
    if not all(one.calibrated for one in predictions):
        yield "The probabilities are not calibrated: confidence, log-loss and calibration error are those of the raw network."
    rows = Counter(example.label for example in examples)
    absent = [name for name in labels if not rows[name]]
    if absent:
        yield f"{len(absent)} of {len(labels)} classes have no row here and count 0 in the macro figures: {', '.join(absent[:8])}" + (
            ", ..." if len(absent) > 8 else ""
        )


def _baseline_metrics(folder: Path, examples: Sequence[Example], gold: np.ndarray, labels: LabelSet) -> Metrics | None:
    if not folder.is_dir():
        return None
    baseline = Baseline.load(folder)
    if baseline.n_labels != len(labels):
        raise ArtifactError(f"{folder}: knows {baseline.n_labels} labels, the run {len(labels)}; remove the folder or train again")
    logits = baseline.logits([example.text for example in examples])
    return compute_metrics(gold, probabilities(logits, baseline.temperature), labels)


def _written_row(example: Example, prediction: Prediction, prefix: str) -> dict[str, Any]:
    row = predicted_row(example.columns, prediction, probabilities=True, prefix=prefix)
    return {**row, f"{prefix}where": example.where, f"{prefix}gold": example.label}


def _write_report(evaluation: Evaluation, run: Path, source: str | Path, rows: Sequence[Mapping[str, Any]], png: bytes) -> None:
    """Every file of the report, each whole or not at all."""
    metrics, out = evaluation.metrics, evaluation.out
    manifest = read_manifest(run) if (run / "fenlei.json").is_file() else {}
    page = Page(
        title=f"{run.resolve().name} on {Path(source).name}",
        metrics=metrics,
        baseline=evaluation.baseline,
        mistakes=evaluation.mistakes,
        confusion_png=png,
        facts=(("Run", str(run)), ("Rows evaluated", f"{metrics.rows:,} of {source}"), *facts(manifest)),
        notes=evaluation.notes,
    )
    baseline = evaluation.baseline.to_json() if evaluation.baseline else None
    figures = {"run": str(run), "data": str(source), **metrics.to_json(), "baseline": baseline}
    _write(out / "predictions.jsonl", _json_lines(rows))
    _write(out / "bad_cases.jsonl", _json_lines([rows[mistake.row] for mistake in evaluation.mistakes]))
    _write(out / "confusion.png", png)
    _write(out / "report.md", _encoded(render_markdown(page)))
    _write(out / "report.html", _encoded(render_html(page)))
    _write(out / "metrics.json", _encoded(json.dumps(figures, ensure_ascii=False, indent=2) + "\n"))


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return _encoded("".join(to_json(row) + "\n" for row in rows))


def _encoded(text: str) -> bytes:
    r"""UTF-8; bytes of a file name that are no UTF-8, which Python holds as lone surrogates, as their \u escape."""
    return text.encode("utf-8", "backslashreplace")


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

"""A large run's knowledge in a small model: a student learns from what the run says of labelled and unlabelled texts.

Hinton et al., Distilling the Knowledge in a Neural Network (2015).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fenlei.artifact import MANIFEST, fingerprint, read_manifest, write_text
from fenlei.config import Device, RunConfig
from fenlei.data.former_labels import FORMER_LABELS, former_labels
from fenlei.data.splits import Dataset
from fenlei.errors import ConfigError
from fenlei.evaluation.answers import Answers, MultiLabelAnswers, right_rows
from fenlei.evaluation.comparison import PairedTest, mcnemar
from fenlei.evaluation.figures import AnyMetrics, MainFigure, figures_of, main_figure
from fenlei.evaluation.multi_label import MultiLabelMetrics
from fenlei.inference.classifier import Classifier
from fenlei.inference.loading import load_run_from
from fenlei.inference.trust import load_scores, load_trust
from fenlei.labels import LabelSet
from fenlei.text.pairs import Text
from fenlei.training.fit import TrainResult, run_training
from fenlei.training.held_out import TEST, lines_of
from fenlei.training.lessons import Lessons, taught, taught_loss
from fenlei.training.model_card import escaped
from fenlei.training.objectives import choose_loss
from fenlei.training.progress import Progress
from fenlei.training.ranks import is_first
from fenlei.training.resume import Command
from fenlei.training.setup import Setup, prepare
from fenlei.training.student_rows import changed_since, student_config, student_rows, unlabelled_rows
from fenlei.training.teacher import answers_with, clocked_answers, load_teacher, rows_per_second, soft_labels

REPORT = "distillation.json"


@dataclass(frozen=True)
class Measured:
    """One of the two, on the calibrating rows: neither was selected by them; multi-label, the student's thresholds were."""

    name: str
    metrics: AnyMetrics
    rows_per_second: float
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "metrics": self.metrics.to_json()}


@dataclass(frozen=True)
class Distillation:
    """A student beside its teacher."""

    training: TrainResult
    teacher: Measured
    student: Measured
    agreement: float
    """Share of the rows that both answer alike, multi-label to the last label."""
    test: PairedTest
    """Teacher first."""
    labelled: int
    """Rows that the student learned from label and teacher."""
    unlabelled: int
    """Rows that it learned from the teacher alone."""

    def to_json(self) -> dict[str, Any]:
        """As plain values, without what the run itself holds."""
        rows = {"labelled": self.labelled, "unlabelled": self.unlabelled}
        sides = {"teacher": self.teacher.to_json(), "student": self.student.to_json()}
        return {**sides, "agreement": self.agreement, "mcnemar": asdict(self.test), "rows": rows}


def distill(
    run: str | Path,
    to: str | Path,
    *,
    out: str | Path,
    data: str | Path | None = None,
    unlabeled: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
    **options: Any,
) -> Distillation:
    """Trains `to` (a model as `train` takes it) on what `run` says of its own training rows, or `data`, and of the texts of `unlabeled`.

    `options` are those of fenlei.config by name; what they do not say of data and seed is as in `run`, so that its dev rows stay dev rows.
    The report is `distillation.json` in the student's folder, and in its README.md. The errors are those of `train`; DataError too where a
    label is none of the teacher's.
    """
    folder, target = Path(run), Path(out)
    manifest = read_manifest(folder)
    config = student_config(folder, manifest, {**options, "model": str(to)}, data)
    exams: list[_Exam] = []

    def build(given: RunConfig) -> Setup:
        setup, exam = _build(folder, given, unlabeled, target, announce)
        exams.append(exam)
        return setup

    def report(training: TrainResult, student: dict[str, Any]) -> Distillation:
        result = _concluded(training, student, exams[0])
        if is_first():
            write_text(target / REPORT, json.dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n")
            write_text(target / "README.md", (target / "README.md").read_text(encoding="utf-8") + _card_section(result))
        return result

    command = Command("distill", folder)
    return run_training(config, target, build, command=command, report=report, resume=resume, progress=progress, announce=announce)


@dataclass(frozen=True)
class _Exam:
    """The rows that both are asked, and the teacher's answers."""

    texts: tuple[Text, ...]
    gold: np.ndarray
    """Label ids, int64 (rows,); multi-label: bool (rows, labels)."""
    answers: Answers
    """The teacher's."""
    teacher: Measured
    device: Device
    labelled: int
    unlabelled: int


def _build(
    run: Path, config: RunConfig, unlabeled: str | Path | None, out: Path, announce: Callable[[str], None] | None
) -> tuple[Setup, _Exam]:
    """The student, ready to learn, and what it will be compared by."""
    if config.model.tuning == "none" or config.model.objective == "tokens":
        raise ConfigError("a student learns to give the teacher's probabilities: tuning 'none' and objective 'tokens' do not")
    if config.optimization.imbalance == "balanced-sampling":
        raise ConfigError("imbalance 'balanced-sampling' draws rows by their labels, and texts without have none; take another")
    manifest = read_manifest(run)
    dataset = student_rows(run, manifest, config.data, seed=config.optimization.seed)
    _check_question(config, dataset)
    pool, notes = unlabelled_rows(unlabeled, manifest, config.data, dataset)
    teacher = load_teacher(run, config.optimization.device)  # behind all that can be refused without it
    if announce:
        how = " in 8-bit integers, as it was trained" if teacher.describe().get("int8") else ""
        announce(f"asking the teacher about {len(dataset.train) + len(pool):,} texts{how}")
    said = soft_labels(teacher, [row.input for row in (*dataset.train, *pool)], out)
    exam = _examine(teacher, run.resolve().name, dataset, len(pool), config.optimization.device)
    del teacher  # before the student is loaded: two large networks may not fit
    notes += changed_since(manifest)
    setup = prepare(config, dataset=replace(dataset, notes=(*dataset.notes, *notes)), unlabelled=pool)
    several, told = dataset.multi_label, {"run": str(run), "manifest": fingerprint(run / MANIFEST), FORMER_LABELS: former_labels(manifest)}
    lessons = Lessons(
        taught(torch.from_numpy(setup.label_ids), torch.from_numpy(said)),
        taught_loss(choose_loss(setup.config, setup.class_counts, multi_label=several), multi_label=several),
        unlabelled=pool,
        origin={"distilled_from": {**told, "unlabelled_rows": len(pool), TEST: lines_of(manifest, TEST)}},
    )
    return replace(setup, lessons=lessons), exam


def _check_question(config: RunConfig, dataset: Dataset) -> None:
    """ConfigError where the student would be asked something else than its teacher, who answers bare texts with all its labels."""
    if config.model.shots:
        raise ConfigError("shots change what the student is asked, not what its teacher is; leave them out")
    rows = (*dataset.train, *dataset.selecting, *dataset.calibrating, *dataset.test)
    offering = next((row for row in rows if row.candidates is not None), None)
    if config.model.method == "generate" and offering is not None:
        raise ConfigError(
            f"{offering.where}: the row has candidates of its own, among which a student that generates would be asked, and its teacher "
            "answers with all labels; take that column out of the rows, or take --method head"
        )


def _examine(teacher: Classifier, name: str, dataset: Dataset, unlabelled: int, device: Device) -> _Exam:
    rows = dataset.calibrating
    texts = tuple(row.input for row in rows)
    gold = dataset.gold(rows)
    probabilities, pace = clocked_answers(teacher, texts)
    answers = answers_with(teacher).answers(probabilities)
    metrics = figures_of(gold, answers, dataset.labels, uncertainty=True)
    worth = Measured(name, metrics, pace, int(teacher.describe()["parameters"]["all"]))
    return _Exam(texts, gold, answers, worth, device, len(dataset.train), unlabelled)


def _concluded(training: TrainResult, manifest: dict[str, Any], exam: _Exam) -> Distillation:
    """The student, loaded back, beside the teacher."""
    student = Classifier(load_run_from(training.out, manifest, device=exam.device), load_trust(training.out, manifest))
    answers = student.trust.answers(student.trust.probabilities(load_scores(training.out)["calibrating"].logits))
    metrics = figures_of(exam.gold, answers, LabelSet(student.labels), uncertainty=True)
    name = training.out.resolve().name
    measured = Measured(name, metrics, rows_per_second(student, exam.texts), int(student.describe()["parameters"]["all"]))
    test = mcnemar(right_rows(exam.gold, exam.answers), right_rows(exam.gold, answers))
    return Distillation(training, exam.teacher, measured, _agreement(exam.answers, answers), test, exam.labelled, exam.unlabelled)


def _agreement(first: Answers, second: Answers) -> float:
    given = second.chosen if isinstance(second, MultiLabelAnswers) else second.argmax(axis=1)
    return float(right_rows(given, first).mean())


def _card_section(result: Distillation) -> str:
    """Markdown for the student's model card."""
    figures = [main_figure(one.metrics) for one in (result.teacher, result.student)]
    rows = [
        f"| {role}, {escaped(one.name)} | {figure.value:.3f}{_spread(figure)} | {one.metrics.macro_f1:.3f} | "
        f"{one.rows_per_second:,.0f} | {one.parameters:,} |"
        for role, one, figure in zip(("teacher", "student"), (result.teacher, result.student), figures, strict=True)
    ]
    several = isinstance(result.student.metrics, MultiLabelMetrics)
    chosen = " The student's thresholds were chosen on these rows, which flatters its figures." if several else ""
    return "\n".join(
        [
            "",
            "## Distilled",
            "",
            f"Learned from a teacher's probabilities on {result.labelled:,} labelled and {result.unlabelled:,} unlabelled texts. On the "
            f"{result.student.metrics.rows:,} dev rows that calibrated, both give the same answer to {result.agreement:.1%} "
            f"(McNemar p {result.test.p_value:.3f}).{chosen}",
            "",
            f"| | {figures[0].name} | macro F1 | rows a second | parameters |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _spread(figure: MainFigure) -> str:
    return "" if figure.interval is None else f" ({figure.interval[0]:.3f} to {figure.interval[1]:.3f})"

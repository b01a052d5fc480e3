"""One evaluation as Markdown, for a terminal, a merge request or a model's page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fenlei.evaluation.metrics import Metrics
from fenlei.report.mistakes import most_confused
from fenlei.report.page import SHOWN_MISTAKES, Page, excerpt
from fenlei.report.wording import BASELINE, headline, percent, three_places, verdict


def render_markdown(page: Page) -> str:
    """What the page for the browser shows; the confusion matrix is the picture confusion.png beside the file."""
    parts = [
        f"# {_escaped(page.title)}",
        _escaped(verdict(page.metrics, page.baseline)),
        _headline(page),
        "## By class",
        _classes(page.metrics, page.baseline),
        "## Confusion",
        "![Confusion matrix](confusion.png)",
        *_confused(page.metrics),
        *_mistakes(page),
        "## About this evaluation",
        _list(f"{name}: {value}" for name, value in page.facts),
        _list(page.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(page: Page) -> str:
    with_baseline = page.baseline is not None
    header = ("", "Model", BASELINE) if with_baseline else ("", "Model")
    figures = headline(page.metrics, page.baseline)
    return _table(header, [(one.name, one.model, one.baseline)[: len(header)] for one in figures])


def _classes(metrics: Metrics, baseline: Metrics | None) -> str:
    rows = []
    for at, one in enumerate(metrics.classes):
        figures = [one.precision, one.recall, one.f1, *([baseline.classes[at].f1] if baseline else [])]
        rows.append((one.name, *map(three_places, figures), f"{one.support:,}"))
    return _table(("Class", "Precision", "Recall", "F1", *(["Baseline F1"] if baseline else []), "Rows"), rows)


def _confused(metrics: Metrics) -> Iterable[str]:
    rows = [(one.gold, one.predicted, f"{one.rows:,}", percent(one.share)) for one in most_confused(metrics)]
    if rows:
        yield _table(("Labelled", "Predicted", "Rows", "Share of the class"), rows)


def _mistakes(page: Page) -> Iterable[str]:
    shown = page.mistakes[:SHOWN_MISTAKES]
    rows = [(one.example.where, excerpt(one.example.text), one.gold, one.predicted, percent(one.confidence)) for one in shown]
    if rows:
        yield "## Most confident errors"
        yield _table(("Row", "Text", "Labelled", "Predicted", "Confidence"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~$])", r"\\\1", " ".join(text.split()))

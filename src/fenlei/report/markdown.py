"""One evaluation as Markdown, for a terminal, a merge request or a model's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fenlei.report.comparison import by_class
from fenlei.report.page import PAIR_HEADINGS, SHORT_CHARACTERS, SHOWN_MISTAKES, Page, confused_pairs, excerpt
from fenlei.report.wording import (
    BASELINE,
    LEVEL_HEADINGS,
    class_cells,
    class_headings,
    comparison_headings,
    confidence_lines,
    contender_cells,
    headline,
    level_cells,
    percent,
    three_places,
    verdict,
)
from fenlei.training.model_card import escaped


def render_markdown(page: Page) -> str:
    """What the page for the browser shows; the confusion matrix is the picture confusion.png beside the file."""
    parts = [
        f"# {escaped(page.title)}",
        escaped(verdict(page.metrics, page.baseline)),
        _headline(page),
        *_comparison(page),
        *_levels(page),
        "## Confidence",
        _list(confidence_lines(page.metrics, page.confidence)),
        "## By class",
        _table(class_headings(page.baseline), class_cells(page.metrics, page.baseline)),
        *(["## Confusion", "![Confusion matrix](confusion.png)"] if page.confusion_png is not None else []),
        *_confused(page),
        *_mistakes(page),
        "## About this evaluation",
        _list(f"{name}: {value}" for name, value in page.facts),
        _list(page.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(page: Page) -> str:
    with_baseline = page.baseline is not None
    header = ("", "Model", "95 % interval", BASELINE) if with_baseline else ("", "Model", "95 % interval")
    figures = headline(page.metrics, page.baseline)
    return _table(header, [(one.name, one.model, one.spread, one.baseline)[: len(header)] for one in figures])


def _comparison(page: Page) -> Iterable[str]:
    if not page.comparison:
        return
    yield "## Side by side"
    yield _table(comparison_headings(page.metrics), map(contender_cells, page.comparison))
    yield "F1 by class"
    rows = [(one.name, *map(three_places, one.f1), f"{one.support:,}") for one in by_class(page.comparison)]
    yield _table(("", *(one.name for one in page.comparison), "Rows"), rows)


def _levels(page: Page) -> Iterable[str]:
    if page.levels:
        yield "## By level"
        yield _table(LEVEL_HEADINGS, map(level_cells, page.levels))


def _confused(page: Page) -> Iterable[str]:
    rows = []
    for pair in confused_pairs(page):
        example = excerpt(pair.examples[0].whole, SHORT_CHARACTERS) if pair.examples else ""
        rows.append((pair.gold, pair.predicted, f"{pair.rows:,}", percent(pair.share), example))
    if rows:
        yield _table((*PAIR_HEADINGS[page.confusion_png is None], "Rows", "Share of the class", "For example"), rows)


def _mistakes(page: Page) -> Iterable[str]:
    rows = []
    for one in page.mistakes[:SHOWN_MISTAKES]:
        suspected = "yes" if one.label_suspected else ""
        rows.append(
            (one.example.where, excerpt(one.passage or one.example.whole), one.gold, one.predicted, percent(one.confidence), suspected)
        )
    if rows:
        yield "## Most confident errors"
        yield _table(("Row", "Text", "Labelled", "Predicted", "Confidence", "Label suspected"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[escaped(name) for name in header], ["---"] * len(header), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)

"""One evaluation as a page for the browser: one file, no network, no script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fenlei.evaluation.figures import AnyMetrics, main_figure
from fenlei.evaluation.metrics import Metrics
from fenlei.report.charts import PLANE, coverage_chart, length_chart, reliability_chart, training_charts
from fenlei.report.comparison import Contender, by_class
from fenlei.report.confidence import Confidence
from fenlei.report.lengths import Cut, LengthGroup
from fenlei.report.levels import Level
from fenlei.report.mistakes import ConfusedPair, Mistake, most_confused, taken_for
from fenlei.report.wording import (
    BASELINE,
    LEVEL_HEADINGS,
    compared,
    headline,
    interval,
    level_cells,
    p_value,
    percent,
    three_places,
    verdict,
)

MATRIX_CLASSES = 40
"""Above this many classes the table of all pairs is too big to read: the commonest confusions and the picture remain."""
SHOWN_MISTAKES = 50
SHOWN_SUSPECTED = 20
SHOWN_CHARACTERS = 300
"""Of a wrong row's text; bad_cases.jsonl has all of it."""
SHORT_CHARACTERS = 80
"""Of an example."""
PAIR_HEADINGS = {False: ("Labelled", "Predicted"), True: ("Missed", "Given in its place")}
"""Of a confused pair; the second for multi-label."""


@dataclass(frozen=True)
class Page:
    """What a report shows. Every string in it may hold anything: who renders it escapes."""

    title: str
    metrics: AnyMetrics
    baseline: AnyMetrics | None
    mistakes: tuple[Mistake, ...]
    """The most confident first."""
    confusion_png: bytes | None
    """For the Markdown; the page for the browser draws its own, for the browser has the fonts. None for multi-label."""
    confidence: Confidence
    lengths: tuple[LengthGroup, ...] = ()
    cut: Cut | None = None
    """None where every text was read to its end."""
    comparison: tuple[Contender, ...] = ()
    levels: tuple[Level, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    """The log of the training."""
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value: what was evaluated, on what."""
    notes: tuple[str, ...] = ()


def render_html(page: Page) -> str:
    """The whole page, self-contained, light or dark as the reader's system is."""
    calibrated = page.confidence.before != page.confidence.after
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            page=page,
            main=main_figure(page.metrics),
            verdict=verdict(page.metrics, page.baseline),
            headline=headline(page.metrics, page.baseline),
            spans=_spans(page.metrics, page.baseline),
            classes=_class_rows(page.metrics, page.baseline),
            averages=_averages(page.metrics),
            matrix=_matrix(page.metrics) if isinstance(page.metrics, Metrics) else None,
            compared=[compared(one.metrics, rounded=one.rounded) for one in page.comparison],
            best=max((main_figure(one.metrics).value for one in page.comparison), default=None),
            main_of=main_figure,
            compared_classes=by_class(page.comparison),
            level_headings=LEVEL_HEADINGS,
            levels=[level_cells(one) for one in page.levels],
            small=len(page.metrics.classes) <= MATRIX_CLASSES,
            confused=confused_pairs(page),
            mistakes=page.mistakes[:SHOWN_MISTAKES],
            suspected=[one for one in page.mistakes if one.label_suspected],
            reliability=reliability_chart(page.confidence, calibrated=calibrated),
            calibrated=calibrated,
            coverage=coverage_chart(page.confidence),
            lengths=length_chart(page.lengths) if len(page.lengths) > 1 else None,
            training=training_charts(page.history),
            pair_headings=PAIR_HEADINGS[page.confusion_png is None],
            baseline_name=BASELINE,
            shown_suspected=SHOWN_SUSPECTED,
            plane=PLANE,
        )
    )


def confused_pairs(page: Page) -> tuple[ConfusedPair, ...]:
    """The commonest confusions, with examples."""
    if isinstance(page.metrics, Metrics):
        return most_confused(page.metrics, page.mistakes)
    return taken_for(page.metrics, page.mistakes)


def excerpt(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """The beginning of a text, as much as a table takes."""
    return text if len(text) <= most else text[:most] + " …"


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates and what they know of figures; what they are given is escaped."""
    folder = Path(__file__).parent / "templates"
    found = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {
        "percent": percent,
        "interval": interval,
        "three_places": three_places,
        "excerpt": excerpt,
        "short": lambda text: excerpt(text, SHORT_CHARACTERS),
        "p_value": p_value,
        "file_name": lambda source: Path(source).name,
    }
    return found


def _spans(metrics: AnyMetrics, baseline: AnyMetrics | None) -> dict[str, Any]:
    """Main figures with their intervals, as places (0 to 100) on one scale that ends at a round percentage below the lowest."""
    named = [(name, main_figure(one)) for name, one in (("Model", metrics), (BASELINE, baseline)) if one is not None]
    bounds = [one.interval or (one.value, one.value) for _, one in named]
    start = max(0, math.floor(min(low for low, _ in bounds) * 10 - 0.2) * 10)

    def place(share: float) -> float:
        return round((100 * share - start) / (100 - start) * 100, 2)

    rows = [
        {
            "name": name,
            "low": place(low),
            "at": place(one.value),
            "high": place(high),
            "value": one.value,
        }
        for (name, one), (low, high) in zip(named, bounds, strict=True)
    ]
    return {"start": start, "rows": rows}


def _class_rows(metrics: AnyMetrics, baseline: AnyMetrics | None) -> list[dict[str, Any]]:
    return [{"model": one, "baseline": baseline.classes[at] if baseline else None} for at, one in enumerate(metrics.classes)]


def _averages(metrics: AnyMetrics) -> tuple[dict[str, Any], ...]:
    """The last lines of the classification report."""
    kinds = ("macro", "weighted", "micro") if isinstance(metrics, Metrics) else ("macro", "weighted", "micro", "samples")
    return tuple(
        {"name": f"{kind} average", **{figure: getattr(metrics, f"{kind}_{figure}") for figure in ("precision", "recall", "f1")}}
        for kind in kinds
    )


def _matrix(metrics: Metrics) -> tuple[dict[str, Any], ...]:
    """One entry a gold class: its name, its rows, and for every predicted class the count, its share and its shade from 0 to 1.

    The shade of the diagonal is the share of the row; that of an error its square root, for a few per cent are worth seeing. Of too many
    classes for a table only cells with rows, which are few among the millions that there may be.
    """
    names = metrics.names
    shares = metrics.confusion / np.maximum(metrics.confusion.sum(axis=1, keepdims=True), 1)
    shown = np.ones_like(metrics.confusion) if len(names) <= MATRIX_CLASSES else metrics.confusion
    return tuple(
        {
            "name": one.name,
            "support": one.support,
            "cells": [
                {
                    "predicted": names[column],
                    "at": column,
                    "count": int(metrics.confusion[at, column]),
                    "share": float(shares[at, column]),
                    "shade": round(float(shares[at, column] if at == column else shares[at, column] ** 0.5), 3),
                    "right": at == column,
                }
                for column in np.flatnonzero(shown[at]).tolist()
            ],
        }
        for at, one in enumerate(metrics.classes)
    )

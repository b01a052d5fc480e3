"""One evaluation as a page for the browser: one file, no network, no script."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fenlei.evaluation.metrics import Metrics
from fenlei.report.mistakes import Mistake, most_confused
from fenlei.report.wording import BASELINE, headline, interval, percent, three_places, verdict

MATRIX_CLASSES = 40
"""Above this many classes the table of all pairs is too big to read: the commonest confusions and the picture remain."""
SHOWN_MISTAKES = 50
SHOWN_CHARACTERS = 300
"""Of a wrong row's text; bad_cases.jsonl has all of it."""


@dataclass(frozen=True)
class Page:
    """What a report shows. Every string in it may hold anything: who renders it escapes."""

    title: str
    metrics: Metrics
    baseline: Metrics | None
    mistakes: tuple[Mistake, ...]
    """The most confident first."""
    confusion_png: bytes
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value: what was evaluated, on what."""
    notes: tuple[str, ...] = ()


def render_html(page: Page) -> str:
    """The whole page, self-contained, light or dark as the reader's system is."""
    return _template().render(
        page=page,
        verdict=verdict(page.metrics, page.baseline),
        headline=headline(page.metrics, page.baseline),
        spans=_spans(page.metrics, page.baseline),
        classes=_class_rows(page.metrics, page.baseline),
        matrix=_matrix(page.metrics) if len(page.metrics.classes) <= MATRIX_CLASSES else (),
        confused=most_confused(page.metrics),
        mistakes=page.mistakes[:SHOWN_MISTAKES],
        picture=base64.b64encode(page.confusion_png).decode("ascii"),
        baseline_name=BASELINE,
    )


def excerpt(text: str) -> str:
    """The beginning of a text, as much as a table takes."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


@lru_cache(maxsize=1)
def _template() -> Template:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "three_places": three_places,
        "excerpt": excerpt,
        "file_name": lambda source: Path(source).name,
    }
    return environment.get_template("report.html.j2")


def _spans(metrics: Metrics, baseline: Metrics | None) -> dict[str, Any]:
    """Accuracies with their intervals, as places (0 to 100) on one scale that ends at a round percentage below the lowest."""
    named = [("Model", metrics)] + ([(BASELINE, baseline)] if baseline else [])
    start = max(0, math.floor(min(one.accuracy_interval[0] for _, one in named) * 10 - 0.2) * 10)

    def place(share: float) -> float:
        return round((100 * share - start) / (100 - start) * 100, 2)

    rows = [
        {
            "name": name,
            "low": place(one.accuracy_interval[0]),
            "at": place(one.accuracy),
            "high": place(one.accuracy_interval[1]),
            "metrics": one,
        }
        for name, one in named
    ]
    return {"start": start, "rows": rows}


def _class_rows(metrics: Metrics, baseline: Metrics | None) -> list[dict[str, Any]]:
    return [{"model": one, "baseline": baseline.classes[at] if baseline else None} for at, one in enumerate(metrics.classes)]


def _matrix(metrics: Metrics) -> tuple[dict[str, Any], ...]:
    """One entry a gold class: its name, its rows, and for every predicted class the count and its shade from 0 to 1.

    The shade of the diagonal is the share of the row; that of an error its square root, for a few per cent are worth seeing.
    """
    shares = metrics.confusion / np.maximum(metrics.confusion.sum(axis=1, keepdims=True), 1)
    return tuple(
        {
            "name": one.name,
            "support": one.support,
            "cells": [
                {
                    "predicted": name,
                    "count": int(metrics.confusion[at, column]),
                    "shade": round(float(shares[at, column] if at == column else shares[at, column] ** 0.5), 3),
                    "right": at == column,
                }
                for column, name in enumerate(metrics.names)
            ],
        }
        for at, one in enumerate(metrics.classes)
    )

"""Plots as shapes on a plane of WIDTH by HEIGHT; the page draws them as SVG, whose text the reader's browser sets in the reader's fonts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fenlei.evaluation.reliability import ReliabilityBin
from fenlei.report.confidence import Confidence
from fenlei.report.lengths import LengthGroup
from fenlei.report.wording import percent

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 42, 388, 12, 212
"""Edges of the plot itself; ticks and names of the axes lie outside."""
PLANE = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
"""The same for the template."""


LEAST_SHARE = 0.01
"""Of the rows, that a point of a line stands for at least: fewer make it jump."""

LEAST_COVERAGE = 0.02
"""Where the curve of accuracy begins: that of a handful of rows is 0 or 1."""


MEASURED = {"eval_accuracy": ("accuracy", "model"), "eval_micro_f1": ("micro F1", "model"), "eval_macro_f1": ("macro F1", "other")}
"""Curves of what is measured while training: name and tone by the log's key."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A polyline."""

    name: str
    tone: str
    """model, other or wrong: the page's colours."""
    points: str
    dashed: bool = False
    dots: tuple[tuple[float, float, str], ...] = ()
    """x, y and what is told on hovering."""


@dataclass(frozen=True)
class Bar:
    """A rectangle from the bottom, and the interval of its height."""

    x: float
    y: float
    width: float
    height: float
    title: str
    whisker: tuple[float, float, float] | None = None
    """x, y of its low and of its high end."""
    weight: float = 1.0
    """How deep its colour is, 0 to 1: a bar of few rows says little."""


@dataclass(frozen=True)
class Chart:
    """One plot."""

    title: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()


def reliability_chart(confidence: Confidence, *, calibrated: bool) -> Chart:
    """Accuracy over confidence: bars as the run answers, a line for the raw network, the diagonal for perfection."""
    width = (RIGHT - LEFT) / len(confidence.after)
    most = max(one.rows for one in confidence.after)
    bars = [
        Bar(
            x_of(one.low) + 1,
            y_of(one.accuracy, 0, 1),
            width - 2,
            BOTTOM - y_of(one.accuracy, 0, 1),
            f"{one.rows:,} rows with a confidence of {percent(one.low)} to {percent(one.high)}: {percent(one.accuracy)} right",
            weight=round(0.15 + 0.85 * math.sqrt(one.rows / most), 2),
        )
        for one in confidence.after
        if one.rows
    ]
    lines = [Line("perfect", "other", points_of([(0, 0), (1, 1)], 0, 1), dashed=True)]
    if calibrated:
        lines.append(_raw(confidence.before))
    y_ticks = _percents(0, lambda y: y_of(y, 0, 1))
    return Chart("Reliability", "confidence", "accuracy", _percents(0, x_of), y_ticks, tuple(lines), tuple(bars))


def coverage_chart(confidence: Confidence) -> Chart:
    """Accuracy of the most confident rows, over the share of the rows that they are."""
    curve = [(x, y) for x, y in zip(confidence.coverages, confidence.accuracies, strict=True) if x >= LEAST_COVERAGE]
    silence = confidence.silence
    # The rows that are answered may be fewer than the curve begins with, or others.
    answered = [] if silence is None or silence.accuracy is None else [silence.accuracy]
    low = _floor(min([*(accuracy for _, accuracy in curve), *answered]))
    dots: tuple[tuple[float, float, str], ...] = ()
    if silence is not None and silence.accuracy is not None:
        told = f"from confidence {silence.min_confidence:.6g} on: {percent(silence.coverage)} answered, {percent(silence.accuracy)} right"
        dots = ((x_of(silence.coverage), y_of(silence.accuracy, low, 1), told),)
    line = Line("accuracy", "model", points_of(curve, low, 1), dots=dots)
    return Chart("Accuracy against coverage", "share answered", "accuracy", _percents(0, x_of), _y_percents(low), (line,))


def length_chart(groups: Sequence[LengthGroup]) -> Chart:
    """Accuracy of texts by their number of characters."""
    low = _floor(min(one.interval[0] for one in groups))
    width = (RIGHT - LEFT) / len(groups)
    bars, ticks = [], []
    for at, one in enumerate(groups):
        x, y = LEFT + at * width, y_of(one.accuracy, low, 1)
        span = f"{one.shortest}" if one.shortest == one.longest else f"{one.shortest}-{one.longest}"
        told = f"{one.rows:,} texts of {span} characters: {percent(one.accuracy)} right" + (f", {one.cut:,} cut" if one.cut else "")
        whisker = (x + width / 2, y_of(one.interval[0], low, 1), y_of(one.interval[1], low, 1))
        bars.append(Bar(x + 3, y, width - 6, BOTTOM - y, told, whisker))
        ticks.append(Tick(x + width / 2, _brief(one.longest)))
    return Chart("Accuracy by length", "characters, at most", "accuracy", tuple(ticks), _y_percents(low), bars=tuple(bars))


def training_charts(history: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """The course of training, from the log that the trainer kept: the loss, and the accuracy (or micro F1) and macro F1 on the selecting
    rows.
    """
    wanted = (
        ("Loss", {"loss": ("training rows", "other"), "eval_loss": ("selecting rows", "model")}),
        ("On the selecting rows", MEASURED),
    )
    charts = (_training_chart(title, history, series) for title, series in wanted)
    return tuple(chart for chart in charts if chart is not None)


def x_of(share: float) -> float:
    """Where a share of the way from the left edge to the right one lies."""
    return round(LEFT + share * (RIGHT - LEFT), 1)


def y_of(value: float, low: float, high: float) -> float:
    """Where a value lies on an axis from `low` to `high`."""
    return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)


def points_of(curve: Sequence[tuple[float, float]], low: float, high: float) -> str:
    """Of x from 0 to 1 and y from low to high, as SVG wants them."""
    return " ".join(f"{x_of(x)},{y_of(y, low, high)}" for x, y in curve)


def _training_chart(title: str, history: Sequence[Mapping[str, Any]], wanted: dict[str, tuple[str, str]]) -> Chart | None:
    """None where nothing of it was logged."""
    series = {key: [(entry["step"], float(entry[key])) for entry in history if key in entry and "step" in entry] for key in wanted}
    values = [value for points in series.values() for _, value in points]
    if not values:
        return None
    last = max(step for points in series.values() for step, _ in points)
    is_loss = "loss" in wanted
    low, high = (0.0, _ceiling(max(values))) if is_loss else (_floor(min(values)), 1.0)
    lines = []
    for key, points in series.items():
        name, tone = wanted[key]
        dots = tuple((x_of(step / last), y_of(value, low, high), f"step {step}: {name} {value:.4f}") for step, value in points)
        few = dots if key.startswith("eval") and len(dots) <= 40 else ()
        if points:
            lines.append(Line(name, tone, points_of([(step / last, value) for step, value in points], low, high), dots=few))
    x_ticks = tuple(Tick(x_of(share), f"{round(share * last):,}") for share in (0, 0.25, 0.5, 0.75, 1))
    y_ticks = tuple(Tick(y_of(at, low, high), f"{at:.2f}") for at in _even(low, high)) if is_loss else _y_percents(low)
    return Chart(title, "step", "loss" if is_loss else "", x_ticks, y_ticks, tuple(lines))


def _raw(bins: Sequence[ReliabilityBin]) -> Line:
    least = LEAST_SHARE * sum(one.rows for one in bins)
    seen = [one for one in bins if one.rows >= least]
    dots = tuple(
        (x_of(one.confidence), y_of(one.accuracy, 0, 1), f"before calibration: {percent(one.accuracy)} right at {percent(one.confidence)}")
        for one in seen
    )
    return Line("before calibration", "wrong", points_of([(one.confidence, one.accuracy) for one in seen], 0, 1), dots=dots)


def _percents(low: float, place: Callable[[float], float]) -> tuple[Tick, ...]:
    return tuple(Tick(place(at), f"{100 * at:.0f}%") for at in _even(low, 1.0))


def _y_percents(low: float) -> tuple[Tick, ...]:
    return tuple(Tick(y_of(at, low, 1), f"{100 * at:g}%") for at in _even(low, 1.0))


def _even(low: float, high: float) -> list[float]:
    return [round(low + (high - low) * at / 4, 4) for at in range(5)]


def _floor(share: float) -> float:
    """A round share at or below `share`, from which an axis to 1 shows differences: 0.8 for 0.83, 0.96 for 0.97."""
    for step in (0.04, 0.2, 0.4):
        if 1 - share <= step:
            return round(1 - step, 2)
    return 0.0


def _ceiling(value: float) -> float:
    """The first of 1, 2, 4 and 8 times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value * 0.999)


def _brief(count: int) -> str:
    return f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"

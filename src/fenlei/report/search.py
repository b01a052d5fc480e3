"""A search written down: its trials as a table, what mattered, its course, and what the best trial is worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from fenlei.artifact import write_text
from fenlei.report.charts import PLANE, Chart, Line, Tick, points_of, x_of, y_of
from fenlei.report.files import write_figures, write_rows
from fenlei.report.page import environment
from fenlei.report.wording import p_value, percent
from fenlei.training.search.outcome import TrialRecord
from fenlei.training.tune import TuneResult

REPORT, TRIALS, FIGURES = "report.html", "trials.jsonl", "search.json"


def write_search(result: TuneResult) -> None:
    """Writes the page for the browser, the trials as JSON lines, and the figures, into the search's folder."""
    write_rows(result.out / TRIALS, [dataclasses.asdict(one) for one in result.trials])
    write_figures(result.out / FIGURES, figures(result))
    write_text(result.out / REPORT, render_search(result))


def render_search(result: TuneResult) -> str:
    """The page, self-contained."""
    names = sorted({name for one in result.trials for name in one.options})
    return (
        environment()
        .get_template("search.html.j2")
        .render(
            result=result,
            best=best_trial(result),
            names=names,
            trials=ranked(result),
            option=option,
            held_out=held_out_line(result),
            history=history_chart(result),
            importances=result.importances,
            plane=PLANE,
        )
    )


def figures(result: TuneResult) -> dict[str, Any]:
    """As JSON."""
    beside = result.held_out
    return {
        "out": str(result.out),
        "best": str(result.best),
        "best_trial": best_trial(result).number,
        "options": result.options,
        "macro_f1": best_trial(result).macro_f1,
        "held_out": None
        if beside is None
        else {
            "rows": beside.best.rows,
            "best": {"accuracy": beside.best.accuracy, "macro_f1": beside.best.macro_f1},
            "defaults": {"accuracy": beside.defaults.accuracy, "macro_f1": beside.defaults.macro_f1},
            "mcnemar_p": beside.test.p_value,
        },
        "importances": result.importances,
        "stages": list(result.stages),
        "full_trainings": round(result.full_trainings, 2),
        "seconds": round(result.seconds, 1),
        "trials": [dataclasses.asdict(one) for one in result.trials],
        "notes": list(result.notes),
    }


def trials_table(result: TuneResult) -> Table:
    """For the terminal: one row a trial, the best first."""
    names = sorted({name for one in result.trials for name in one.options})
    table = Table(title="Trials, the best first; macro F1 on the selecting rows", title_justify="left")
    for heading in ("Trial", "Macro F1", "Came to", *names, "Seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    for one in ranked(result):
        figure = "" if one.macro_f1 is None else f"{one.macro_f1:.4f}"
        came_to = "failed" if one.state == "failed" else f"{one.step} %"
        number = f"{one.number}{' (defaults)' if one.defaults else ''}"
        options = (Text(option(one.options.get(name))) for name in names)  # as Text: [INST] in a prompt is no markup
        table.add_row(number, figure, came_to, *options, f"{one.seconds:,.0f}")
    return table


def held_out_line(result: TuneResult) -> str:
    """What the best trial is worth on rows that chose nothing, in one sentence."""
    beside = result.held_out
    if beside is None:
        if best_trial(result).defaults:
            return "No trial was better than the defaults."
        if any(one.defaults and one.state == "failed" for one in result.trials):
            return "The training with the defaults failed, so nothing says what the search has won."
        return "The defaults were not tried, so nothing says what the search has won."
    gain = 100 * (beside.best.accuracy - beside.defaults.accuracy)
    verdict = f"{abs(gain):.1f} points {'more' if gain > 0 else 'less'} accurate than" if abs(gain) >= 0.05 else "level with"
    return (
        f"On the {beside.best.rows:,} dev rows that chose nothing, the best trial is {verdict} the defaults: accuracy "
        f"{percent(beside.best.accuracy)} against {percent(beside.defaults.accuracy)}, macro F1 {percent(beside.best.macro_f1)} against "
        f"{percent(beside.defaults.macro_f1)} (McNemar's p {p_value(beside.test.p_value)})."
    )


def best_trial(result: TuneResult) -> TrialRecord:
    """The complete trial with the highest figure."""
    return next(one for one in ranked(result) if one.state == "complete")


def ranked(result: TuneResult) -> list[TrialRecord]:
    """Those that came furthest first, among them the best: figures of few rows are not those of all."""
    return sorted(result.trials, key=lambda one: (one.state == "failed", -one.step, -(one.macro_f1 or 0.0), one.number))


def option(value: Any) -> str:
    """A searched option as short as it can be."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def history_chart(result: TuneResult) -> Chart | None:
    """Every trial's figure by its number, and the best complete one so far; None where no trial has one."""
    shown = [(one, one.macro_f1) for one in result.trials if one.macro_f1 is not None]
    if not shown:
        return None
    values = [value for _, value in shown]
    low, high = math.floor(20 * min(values)) / 20, math.ceil(20 * max(values) + 0.01) / 20
    last = max(1, max(one.number for one, _ in shown))

    def place(number: float, value: float) -> tuple[float, float]:
        return x_of(number / last), y_of(value, low, high)

    def dots(state: str) -> tuple[tuple[float, float, str], ...]:
        told = "trial {}: macro F1 {:.4f} after {} %"
        return tuple((*place(one.number, value), told.format(one.number, value, one.step)) for one, value in shown if one.state == state)

    best = points_of([(number / last, value) for number, value in _best_so_far(shown, last)], low, high)
    lines = (Line("best so far", "model", best, dots=dots("complete")), Line("ended early", "other", "", dots=dots("pruned")))
    x_ticks = tuple(Tick(place(number, low)[0], str(number)) for number in sorted({round(last * share / 4) for share in range(5)}))
    y_ticks = tuple(Tick(place(0, at)[1], f"{at:.3f}") for at in (low + (high - low) * share / 4 for share in range(5)))
    return Chart("Course of the search", "trial", "macro F1", x_ticks, y_ticks, lines)


def _best_so_far(shown: Sequence[tuple[TrialRecord, float]], last: int) -> list[tuple[float, float]]:
    """Corners of the stairs that the best complete figure climbs, up to the trial `last`."""
    corners: list[tuple[float, float]] = []
    for one, value in shown:
        best = corners[-1][1] if corners else -math.inf
        if one.state == "complete" and value > best:
            corners += [(one.number, best)] * bool(corners) + [(one.number, value)]
    return [*corners, (last, corners[-1][1])] if corners else []

"""Metrics as tables for the terminal, the baseline beside the model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fenlei.evaluation.figures import AnyMetrics
from fenlei.report.comparison import Contender
from fenlei.report.levels import Level
from fenlei.report.wording import BASELINE, LEVEL_HEADINGS, compared, headline, level_cells, p_value, three_places, verdict


def metrics_tables(metrics: AnyMetrics, baseline: AnyMetrics | None = None) -> Group:
    """Headline figures, one row a class, and the verdict: print it on a rich console."""
    return Group(headline_table(metrics, baseline), class_table(metrics, baseline), Text(verdict(metrics, baseline)))


def headline_table(metrics: AnyMetrics, baseline: AnyMetrics | None = None) -> Table:
    """One row a figure."""
    table = Table(title=f"On {metrics.rows:,} rows", title_justify="left")
    table.add_column("")
    table.add_column("Model", justify="right")
    table.add_column("95 % interval")
    if baseline:
        table.add_column(BASELINE, justify="right")
    for figure in headline(metrics, baseline):
        table.add_row(figure.name, figure.model, figure.spread, *([figure.baseline] if baseline else []))
    return table


def comparison_table(contenders: Sequence[Contender]) -> Table:
    """One row a classifier."""
    table = Table(title="Side by side", title_justify="left")
    table.add_column("", overflow="fold")
    for heading in (*compared(contenders[0].metrics), "Right alone", "Wrong alone", "McNemar p"):
        table.add_column(heading, justify="right")
    for one in contenders:
        test = one.test
        against = ("", "", "") if test is None else (f"{test.only_second:,}", f"{test.only_first:,}", p_value(one.p_value))
        table.add_row(Text(one.name), *compared(one.metrics, rounded=one.rounded).values(), *against)
    return table


def level_table(levels: Sequence[Level]) -> Table:
    """One row a level of the hierarchy."""
    table = Table(title="By level", title_justify="left")
    for heading in LEVEL_HEADINGS:
        table.add_column(heading, justify="right")
    for one in levels:
        table.add_row(*level_cells(one))
    return table


def class_table(metrics: AnyMetrics, baseline: AnyMetrics | None = None) -> Table:
    """One row a class, in label order."""
    table = Table(title="By class", title_justify="left")
    table.add_column("Class", overflow="fold")
    for heading in ("Precision", "Recall", "F1", *(["Baseline F1"] if baseline else []), "Rows"):
        table.add_column(heading, justify="right")
    for at, one in enumerate(metrics.classes):
        figures = [one.precision, one.recall, one.f1, *([baseline.classes[at].f1] if baseline else [])]
        table.add_row(Text(one.name), *map(three_places, figures), f"{one.support:,}")  # as Text: a label such as [red] is no markup
    return table

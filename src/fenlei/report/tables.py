"""Metrics as tables for the terminal, the baseline beside the model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fenlei.evaluation.figures import AnyMetrics
from fenlei.report.comparison import Contender
from fenlei.report.levels import Level
from fenlei.report.wording import (
    BASELINE,
    LEVEL_HEADINGS,
    class_cells,
    class_headings,
    comparison_headings,
    contender_cells,
    headline,
    level_cells,
    verdict,
)


def metrics_tables(metrics: AnyMetrics, baseline: AnyMetrics | None = None) -> Group:
    """Headline figures, one row a class, and the verdict: print it on a rich console."""
    return Group(headline_table(metrics, baseline), class_table(metrics, baseline), Text(verdict(metrics, baseline)))


def headline_table(metrics: AnyMetrics, baseline: AnyMetrics | None = None) -> Table:
    """One row a figure."""
    table = Table(title=f"On {metrics.rows:,} rows", title_justify="left")
    table.add_column("", overflow="fold")
    table.add_column("Model", justify="right", overflow="fold")
    table.add_column("95 % interval", overflow="fold")
    if baseline:
        table.add_column(BASELINE, justify="right", overflow="fold")
    for figure in headline(metrics, baseline):
        table.add_row(figure.name, figure.model, figure.spread, *([figure.baseline] if baseline else []))
    return table


def comparison_table(contenders: Sequence[Contender]) -> Table:
    """One row a classifier."""
    table = Table(title="Side by side", title_justify="left")
    _add_columns(table, comparison_headings(contenders[0].metrics))
    for name, *figures in map(contender_cells, contenders):
        table.add_row(Text(name), *figures)
    return table


def level_table(levels: Sequence[Level]) -> Table:
    """One row a level of the hierarchy."""
    table = Table(title="By level", title_justify="left")
    for heading in LEVEL_HEADINGS:
        table.add_column(heading, justify="right", overflow="fold")
    for one in levels:
        table.add_row(*level_cells(one))
    return table


def class_table(metrics: AnyMetrics, baseline: AnyMetrics | None = None) -> Table:
    """One row a class, in label order."""
    table = Table(title="By class", title_justify="left")
    _add_columns(table, class_headings(baseline))
    for name, *figures in class_cells(metrics, baseline):
        table.add_row(Text(name), *figures)  # as Text: a label such as [red] is no markup
    return table


def _add_columns(table: Table, headings: Sequence[str]) -> None:
    """One of names, which may be long, and those of figures."""
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", overflow="fold")

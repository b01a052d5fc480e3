"""`fenlei tune`: better options for a run, searched trial by trial."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.options import DATA, HELP, config_of, with_run_options
from fenlei.config import Pruner, SearchConfig

if TYPE_CHECKING:
    from fenlei.training.tune import TuneResult

EXAMPLES = (
    "fenlei tune news.jsonl --model nano --trials 12 --out searches/nano",
    "fenlei tune news.jsonl --model Qwen/Qwen3-0.6B --space space.yaml --workers 2 --out searches/qwen",
    "fenlei tune news.jsonl --model nano --storage postgresql+psycopg://me@db/searches --out searches/shared",
)
SEARCH = "Search options"
USUAL = SearchConfig()
MULTI_LABEL = ("multi_label", "label_separator")
"""Options of data that is not searched yet."""


@partial(with_run_options, names=[name for name in HELP if name not in MULTI_LABEL])
def tune(
    data: Annotated[str | None, DATA] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder for the search. An unfinished search there is continued.")],
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of options; the command line wins.")] = None,
    trials: Annotated[int, typer.Option(help="Trials of the whole study.", rich_help_panel=SEARCH)] = USUAL.trials,
    space: Annotated[
        Path | None, typer.Option(help="YAML file of what is searched (default: around the defaults).", rich_help_panel=SEARCH)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="`memory`, journal:FILE, sqlite:///FILE or a PostgreSQL URL (default: study.db in --out).", rich_help_panel=SEARCH
        ),
    ] = USUAL.storage,
    workers: Annotated[int, typer.Option(help="Processes on this machine.", rich_help_panel=SEARCH)] = USUAL.workers,
    pruner: Annotated[Pruner, typer.Option(help="Which trials end early.", rich_help_panel=SEARCH)] = USUAL.pruner,
    first_rows: Annotated[
        int | None,
        typer.Option(help="Training rows of a trial's first stage (default: a ninth, at least 2,000).", rich_help_panel=SEARCH),
    ] = USUAL.first_rows,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    options: dict[str, Any],
) -> None:
    """Search better options for a run, by the dev rows that select; test is not touched."""
    from fenlei.cli.display import TrainingDisplay
    from fenlei.report.search import write_search
    from fenlei.training.tune import tune as search

    run_config = config_of(data, config, options)
    asked: dict[str, Any] = {"trials": trials, "storage": storage, "workers": workers, "pruner": pruner, "first_rows": first_rows}
    with TrainingDisplay() as display:
        result = search(out=out, config=run_config, space=space, announce=display.announce, **asked)
    write_search(result)
    _show(result, json)


def _show(result: TuneResult, as_json: bool) -> None:
    from fenlei.cli.display import notes, print_json, tables, typed
    from fenlei.report.search import REPORT, figures, held_out_line, trials_table

    if as_json:
        print_json(figures(result))
        return
    tables().print(trials_table(result))
    notes().print(held_out_line(result), markup=False)
    notes().print(
        f"{len(result.trials)} trials in {result.seconds:,.0f} s, for the price of {result.full_trainings:.1f} trainings on all rows. "
        f"The best run is in {result.best}, the report in {result.out / REPORT}",
        markup=False,
    )
    notes().print(f"Next: {typed('fenlei', 'evaluate', result.best)} TEST_FILE", markup=False)

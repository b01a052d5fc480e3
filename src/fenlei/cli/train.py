"""`fenlei train`: a labelled file and a model to a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.options import DATA, config_of, with_run_options
from fenlei.cli.trust import shown_first
from fenlei.errors import FenleiError

if TYPE_CHECKING:
    from fenlei.report.evaluation import Evaluation
    from fenlei.training.fit import TrainResult


EXAMPLES = (
    "fenlei train news.jsonl --model nano --out runs/news",
    "fenlei train news.csv --model Qwen/Qwen3-0.6B --text-column title,body --out runs/qwen",
    "fenlei train modelscope:swift/zh_cls_fudan-news --model nano --out runs/fudan",
    "fenlei train --config run.yaml --lr 1e-4 --out runs/again",
)


@with_run_options
def train(
    data: Annotated[str | None, DATA] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "--output-dir", help="Folder for the run; it must not hold one already. Required unless --dry-run."),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of options; the command line wins.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show rows, lengths, memory and time of the run, then stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    options: dict[str, Any],
) -> None:
    """Train a classifier on a labelled file."""
    run_config = config_of(data, config, options)
    if dry_run:
        _show_plan(run_config, json)
        return
    if out is None:
        raise typer.BadParameter("name the folder that the run goes to", param_hint="'--out'")

    from fenlei.cli.display import TrainingDisplay
    from fenlei.training.fit import train as fit
    from fenlei.training.ranks import is_first
    from fenlei.training.tracking import Trackers

    test: Evaluation | None = None
    with Trackers() as trackers:
        with TrainingDisplay() as display:
            result, failure = shown_first(
                lambda: fit(out=out, config=run_config, resume=resume, progress=display, announce=display.announce, trackers=trackers)
            )
        if not is_first():
            return
        if result.test_data is not None:
            from fenlei.report.evaluation import evaluate_run

            try:
                test = evaluate_run(result.out, result.test_data, device=run_config.optimization.device)
                trackers.outcome("test", test.metrics, [test.out / "report.html"])
            except FenleiError as error:
                failure = failure or error
    _show_result(result, test, json)
    if failure is not None:
        raise failure


def _show_plan(run_config: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from fenlei.cli.display import print_json
    from fenlei.training.dry_run import dry_run

    plan = dry_run(config=run_config)
    if as_json:
        print_json(asdict(plan))
    else:
        typer.echo(str(plan))


def _show_result(result: TrainResult, test: Evaluation | None, as_json: bool) -> None:
    from fenlei.artifact import read_manifest
    from fenlei.cli.display import asking, notes, print_json, tables, typed
    from fenlei.report.tables import metrics_tables

    if as_json:
        print_json(_plain(result) | {"test": test.metrics.to_json() if test else None})
        return
    console = notes()
    selected = "" if read_manifest(result.out)["tuning"] == "none" else " that selected the checkpoint"
    console.print(f"On the dev rows{selected} ({result.metrics.rows:,}):", markup=False)
    tables().print(metrics_tables(result.metrics, result.baseline))
    if test is not None:
        console.print(f"On the test rows ({test.metrics.rows:,}), seen for the first time:", markup=False)
        tables().print(metrics_tables(test.metrics, test.baseline))
        for note in test.notes:
            console.print(note, style="dim", markup=False)
    console.print(f"Trained in {result.seconds:,.0f} s. The run is in {result.out}", markup=False)
    following = f"its report in {test.out}" if test else f"{typed('fenlei', 'evaluate', result.out)} TEST_FILE"
    console.print(f"Next: {asking(result.out)}    {following}", markup=False)


def _plain(result: TrainResult) -> dict[str, Any]:
    return {
        "out": str(result.out),
        "labels": list(result.labels),
        "metrics": result.metrics.to_json(),
        "baseline": result.baseline.to_json() if result.baseline else None,
        "trainable": result.trainable,
        "parameters": result.parameters,
        "seconds": round(result.seconds, 1),
        "notes": list(result.notes),
    }

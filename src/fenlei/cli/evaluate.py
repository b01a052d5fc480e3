"""`fenlei evaluate`: a run's figures on labelled rows, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fenlei.config import Device

if TYPE_CHECKING:
    from fenlei.report.evaluation import Evaluation

EXAMPLES = (
    "fenlei evaluate runs/news test.jsonl",
    "fenlei evaluate runs/news test.csv --out report --json",
)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled file, or a folder with a test file.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "--output-dir", help="Folder for the report; default: RUN/report.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: the one the run was trained on.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the label; default: the one the run was trained on.")] = None,
    class_file: Annotated[Path | None, typer.Option(help="File of class names, one a line, if the labels are their numbers.")] = None,
    prefix: Annotated[str, typer.Option(help="Put before the names of the columns added to the report's rows.", show_default=False)] = "",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a run on labelled rows, beside its baseline."""
    from fenlei.cli.display import counting_rows
    from fenlei.data.label_file import read_class_file
    from fenlei.models.allocator import keep_freed_memory
    from fenlei.report.evaluation import evaluate_run

    keep_freed_memory()
    with counting_rows("evaluating", data) as progress:
        evaluation = evaluate_run(
            run,
            data,
            out=out,
            text_column=text_column,
            label_column=label_column,
            class_names=None if class_file is None else read_class_file(class_file),
            prefix=prefix,
            device=device,
            progress=progress,
        )
    _show(evaluation, json)


def _show(evaluation: Evaluation, as_json: bool) -> None:
    from fenlei.cli.display import notes, print_json, tables
    from fenlei.report.tables import metrics_tables

    if as_json:
        baseline = evaluation.baseline.to_json() if evaluation.baseline else None
        told = {"report": str(evaluation.out), "mistakes": len(evaluation.mistakes), "notes": list(evaluation.notes)}
        print_json({"metrics": evaluation.metrics.to_json(), "baseline": baseline, **told})
        return
    tables().print(metrics_tables(evaluation.metrics, evaluation.baseline))
    for note in evaluation.notes:
        notes().print(note, markup=False)
    notes().print(f"{len(evaluation.mistakes):,} wrong rows. The report is in {evaluation.out}", markup=False)

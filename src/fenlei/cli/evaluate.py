"""`fenlei evaluate`: a run's figures on labelled rows, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.trust import MinConfidence, SetByClass, SetCoverage, SetScoreOption, TargetAccuracy, asked, tell_what_promises_lack
from fenlei.cli.verify import Verify, verify_runs
from fenlei.config import Device

if TYPE_CHECKING:
    from fenlei.report.evaluation import Evaluation

EXAMPLES = (
    "fenlei evaluate runs/news test.jsonl",
    "fenlei evaluate runs/news test.csv --out report --json",
    "fenlei evaluate runs/qwen test.jsonl --compare runs/deepseek runs/bert",
    "fenlei evaluate runs/news test.jsonl --target-accuracy 0.99 --set-coverage 0.95",
)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled file, a folder with a test file, or a data set on a hub.")],
    more_runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Further runs after --compare.")] = None,
    *,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", metavar="RUN...", help="Runs to test against, or their predictions.jsonl on the same rows."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "--output-dir", help="Folder for the report; default: RUN/report.")] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="Column of the second text, for a run on pairs; default: the one it was trained on.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: the one the run was trained on.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the label; default: the one the run was trained on.")] = None,
    class_file: Annotated[Path | None, typer.Option(help="File of class names, one a line, if the labels are their numbers.")] = None,
    label_separator: Annotated[
        str | None, typer.Option(help="Multi-label: what joins a row's labels in one string; default: as the run was trained.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before the names of the columns added to the report's rows.", show_default=False)] = "",
    min_confidence: MinConfidence = None,
    target_accuracy: TargetAccuracy = None,
    set_coverage: SetCoverage = None,
    set_score: SetScoreOption = "lac",
    set_by_class: SetByClass = False,
    verify: Verify = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a run on labelled rows, beside its baseline."""
    if more_runs and not compare:
        raise typer.BadParameter(f"{more_runs[0]}: one file or folder is evaluated; further runs come after --compare", param_hint="RUN")

    from fenlei.cli.display import counting_rows
    from fenlei.data.label_file import read_class_file
    from fenlei.models.allocator import keep_freed_memory
    from fenlei.report.evaluation import evaluate_run

    keep_freed_memory()
    others = [*(compare or ()), *(more_runs or ())]
    if verify:
        verify_runs([run, *others])
    trust = asked(min_confidence, target_accuracy, set_coverage, set_score, set_by_class)
    tell_what_promises_lack(run, trust, bare=False)  # the report counts the rows that nothing is promised of
    with counting_rows("evaluating", data) as progress:
        evaluation = evaluate_run(
            run,
            data,
            out=out,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
            class_names=None if class_file is None else read_class_file(class_file),
            label_separator=label_separator,
            prefix=prefix,
            device=device,
            trust=trust,
            compare_with=others,
            progress=progress,
        )
    _show(evaluation, json)


def _show(evaluation: Evaluation, as_json: bool) -> None:
    from dataclasses import asdict

    from fenlei.cli.display import notes, print_json, tables
    from fenlei.report.tables import comparison_table, level_table, metrics_tables
    from fenlei.report.wording import confidence_lines

    if as_json:
        baseline = evaluation.baseline.to_json() if evaluation.baseline else None
        told = {"report": str(evaluation.out), "mistakes": len(evaluation.mistakes), "notes": list(evaluation.notes)}
        beside: dict[str, Any] = {"levels": [asdict(one) for one in evaluation.levels]}
        beside |= {"confidence": evaluation.confidence.to_json(), "comparison": [one.to_json() for one in evaluation.comparison]}
        print_json({"metrics": evaluation.metrics.to_json(), "baseline": baseline, **beside, **told})
        return
    tables().print(metrics_tables(evaluation.metrics, evaluation.baseline))
    if evaluation.comparison:
        tables().print(comparison_table(evaluation.comparison))
    if evaluation.levels:
        tables().print(level_table(evaluation.levels))
    for line in confidence_lines(evaluation.metrics, evaluation.confidence):
        tables().print(line, markup=False)
    for note in evaluation.notes:
        notes().print(note, markup=False)
    notes().print(f"{len(evaluation.mistakes):,} wrong rows. The report is in {evaluation.out}", markup=False)

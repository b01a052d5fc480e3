"""`fenlei distill`: a large run's knowledge in a small model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.options import CHOSEN, HELP, with_run_options
from fenlei.cli.trust import shown_first

if TYPE_CHECKING:
    from fenlei.training.distill import Distillation

EXAMPLES = (
    "fenlei distill runs/qwen --to nano --unlabeled pool.jsonl --out runs/small",
    "fenlei distill runs/qwen train.jsonl --to Qwen/Qwen3-0.6B --layers 6 --out runs/six",
)

AS_READ = ("text_column", "pair_column", "label_column", "multi_label", "label_separator", "level_separator", "class_file", "seed")
OF_ITS_ROWS = ("dev", "dev_ratio", "test", "test_ratio", "max_train_rows")
DEFAULTS = CHOSEN | dict.fromkeys(AS_READ, "RUN's") | dict.fromkeys(OF_ITS_ROWS, "RUN's, unless DATA is given")
"""What is as in RUN where nothing else is said (training/student_rows.py)."""


@partial(with_run_options, names=[name for name in HELP if name not in ("model", "objective", "shots")], defaults=DEFAULTS)
def distill(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the trained run that teaches.")],
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="Labelled file, folder or data set on a hub; default: what RUN was trained on."),
    ] = None,
    *,
    to: Annotated[str, typer.Option("--to", metavar="MODEL", help="The student: `nano`, a local folder, a GGUF file, or an id on a hub.")],
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder for the student; it must not hold a run already.")],
    unlabeled: Annotated[
        str | None,
        typer.Option("--unlabeled", metavar="POOL", help="File, folder or data set on a hub, of texts to learn from without labels."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    options: dict[str, Any],
) -> None:
    """Train a small model on what a run says of texts.

    Data options and the seed default to those of RUN, so that its dev rows stay dev rows; all others to what suits the student.
    """
    from fenlei.cli.display import TrainingDisplay, print_json
    from fenlei.training.distill import distill as teach
    from fenlei.training.ranks import is_first

    with TrainingDisplay() as display:
        result, failure = shown_first(
            lambda: teach(
                run, to, out=out, data=data, unlabeled=unlabeled, resume=resume, progress=display, announce=display.announce, **options
            )
        )
    if not is_first():
        return
    if json:
        print_json({"out": str(out), **result.to_json(), "seconds": round(result.training.seconds, 1)})
    else:
        _show(result, run)
    if failure is not None:
        raise failure


def _show(result: Distillation, teacher: Path) -> None:
    from rich.table import Table

    from fenlei.cli.display import asking, notes, tables, typed
    from fenlei.evaluation.figures import main_figure
    from fenlei.report.wording import interval, p_value, percent

    table = Table(title=f"On the {result.student.metrics.rows:,} dev rows that calibrated", title_justify="left")
    name = main_figure(result.student.metrics).name
    for heading in ("", name[0].upper() + name[1:], "95 % interval", "Macro F1", "Rows a second", "Parameters"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for role, one in (("Teacher", result.teacher), ("Student", result.student)):
        figure = main_figure(one.metrics)
        spread = "" if figure.interval is None else interval(figure.interval)
        speed = f"{one.rows_per_second:,.0f}"
        table.add_row(role, percent(figure.value), spread, percent(one.metrics.macro_f1), speed, f"{one.parameters:,}")
    tables().print(table)
    alike = f"The same answer for {percent(result.agreement)} of them; McNemar p {p_value(result.test.p_value)}."
    notes().print(alike, markup=False)
    out = result.training.out
    notes().print(f"Trained in {result.training.seconds:,.0f} s. The student is in {out}", markup=False)
    notes().print(f"Next: {typed('fenlei', 'evaluate', out)} TEST_FILE {typed('--compare', teacher)}    {asking(out)}", markup=False)

"""`fenlei extend`: new classes for a finished run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.options import CHOSEN, HELP, PANELS, with_run_options
from fenlei.cli.trust import shown_first

if TYPE_CHECKING:
    from fenlei.training.extension_report import Extension

EXAMPLES = (
    "fenlei extend runs/news weather.jsonl --replay train.jsonl --out runs/news2",
    "fenlei train news.jsonl --model nano --store-exemplars 50 --out runs/news && fenlei extend runs/news weather.jsonl --out runs/news2",
)
DATA_OPTIONS = ("text_column", "pair_column", "label_column", "class_file", "dev", "dev_ratio")
OPTIONS = [
    name
    for panel, part in PANELS.items()
    for name in part.__dataclass_fields__
    if name in HELP and (panel in ("Training options", "Trust options") or name in DATA_OPTIONS)
]

AS_TRAIN = ("class_file", "dev", "learning_rate", "batch_tokens", "max_steps", "early_stopping_patience")
"""Options whose default is that of `fenlei train`, and not what RUN was trained with (training/extend.py)."""
DEFAULTS = (
    CHOSEN
    | dict.fromkeys((name for name in OPTIONS if name not in AS_TRAIN), "RUN's")
    | {"epochs": "one to three, more for few rows; frozen: 10", "batch_size": "at most 32, fewer for few rows; frozen: as for train"}
    | {"baseline": "no"}
)


@partial(with_run_options, names=OPTIONS, defaults=DEFAULTS)
def extend(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run; it stays as it is.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="NEW_DATA",
            help="Labelled file, folder or data set on a hub, of the new classes; generate: or labels.yaml, class.txt.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder for the extended run; it must not hold one already.")],
    replay: Annotated[
        list[str] | None,
        typer.Option("--replay", metavar="DATA", help="Labelled rows of the known classes, once a file; default: the run's exemplars."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    options: dict[str, Any],
) -> None:
    """Teach a run new classes without starting over.

    Its head grows by rows; it learns from the new rows, from as many replayed ones, and from what it said before. Options default to those
    that RUN was trained with, but for steps and learning rate. A run that generates can be given names alone.
    """
    from fenlei.cli.display import TrainingDisplay, print_json
    from fenlei.data.label_file import is_label_file

    if is_label_file(data):
        _by_label_list(run, data, out, json, beside=[*options, *(["replay"] if replay else []), *(["resume"] if resume else [])])
        return

    from fenlei.training.extend import extend as grow
    from fenlei.training.ranks import is_first

    with TrainingDisplay() as display:
        result, failure = shown_first(
            lambda: grow(run, data, out=out, replay=replay or None, resume=resume, progress=display, announce=display.announce, **options)
        )
    if not is_first():
        return
    if json:
        print_json({"out": str(out), "labels": list(result.training.labels), **result.to_json()})
    else:
        _show(result)
    if failure is not None:
        raise failure


def _by_label_list(run: Path, labels: str, out: Path, as_json: bool, *, beside: list[str]) -> None:
    """Of a run that generates: it is asked among further labels, and nothing is trained."""
    from fenlei.cli.display import notes, print_json
    from fenlei.data.label_file import read_label_file
    from fenlei.training.relabel import add_labels

    if beside:
        named = f"'--{beside[0].replace('_', '-')}'"
        raise typer.BadParameter(f"{labels} is a list of labels, from which nothing is learned; give labelled rows", param_hint=named)
    result = add_labels(run, read_label_file(labels, least=1), out=out)
    if as_json:
        print_json({"out": str(out), "labels": list(result.labels)})
        return
    for note in (f"{len(result.labels)} labels: {', '.join(result.labels)}", *result.notes, f"The run is in {out}"):
        notes().print(note, markup=False)


def _show(result: Extension) -> None:
    from rich.table import Table
    from rich.text import Text

    from fenlei.cli.display import asking, notes, tables, typed
    from fenlei.report.wording import percent, three_places

    if result.changes:
        table = Table(title="Known classes, on their dev rows", title_justify="left")
        for heading in ("Class", "Right before", "Right now", "Change", "95 % interval", "Rows"):
            table.add_column(heading, justify="right" if heading != "Class" else "left", overflow="fold")
        for one in result.changes:
            low, high = (f"{100 * bound:+.1f}" for bound in one.interval)
            change = f"{100 * one.change:+.1f}"
            table.add_row(
                Text(one.name or "all of them"), percent(one.before), percent(one.after), change, f"{low} to {high}", f"{one.rows:,}"
            )
        tables().print(table)
    table = Table(title=f"New classes, on all {result.dev_rows:,} dev rows", title_justify="left")
    for heading in ("Class", "Precision", "Recall", "F1", "Rows"):
        table.add_column(heading, justify="right" if heading != "Class" else "left", overflow="fold")
    for new in result.new:
        table.add_row(Text(new.name), *map(three_places, (new.precision, new.recall, new.f1)), f"{new.support:,}")
    tables().print(table)
    cost, out = result.cost, result.training.out
    told = f"{cost.seconds:,.0f} s, {percent(cost.share)} of the cost of training again on all {cost.retraining_rows:,} rows."
    notes().print(f"{told} The run is in {out}", markup=False)
    notes().print(f"Next: {typed('fenlei', 'evaluate', out)} TEST_FILE    {asking(out)}", markup=False)

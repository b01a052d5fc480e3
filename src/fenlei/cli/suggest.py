"""`fenlei suggest`: what to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fenlei.config import Device

if TYPE_CHECKING:
    from fenlei.annotation.suggest import Suggestion

EXAMPLES = (
    "fenlei suggest runs/news pool.jsonl -n 100 > to_label.jsonl",
    "fenlei suggest runs/news pool.csv -n 200 --format label-studio --out tasks.json",
    "cat train.jsonl to_label.jsonl > next.jsonl && fenlei train next.jsonl --model nano --out runs/next",
)
SHOWN = 8


def suggest(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    pool: Annotated[
        str,
        typer.Argument(metavar="POOL", help="File, folder or data set on a hub, of texts without labels; `-` reads JSON lines from stdin."),
    ],
    *,
    n: Annotated[int, typer.Option("-n", "--number", help="How many texts to pick.")] = 100,
    out: Annotated[str, typer.Option("--out", "--output", help="File to write; `-` is stdout.")] = "-",
    format: Annotated[
        Literal["jsonl", "doccano", "label-studio", "argilla"], typer.Option(help="For which tool; `train` reads all.")
    ] = "jsonl",
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: the one the run was trained on.")] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="With --out: print what was picked as JSON.")] = False,
) -> None:
    """Pick the texts that are worth labelling next.

    Two of three are those the run wavers on, the third is unlike what it knows, and no two are alike. Each has the run's answer as its
    label, for a person to confirm or correct.
    """
    from fenlei.annotation.exchange import checked_out, render, write_suggestions
    from fenlei.annotation.suggest import choices
    from fenlei.annotation.suggest import suggest as pick
    from fenlei.cli.display import counting_rows, notes, typed
    from fenlei.config import trained_on
    from fenlei.inference.classifier import Classifier
    from fenlei.models.allocator import keep_freed_memory
    from fenlei.training.held_out import TEST_ROWS

    if out != "-":
        from fenlei.data.sources import split_files

        checked_out(Path(out), format, map(str, split_files(pool).train))
    keep_freed_memory()
    classifier = Classifier.load(run, device=device)
    if text_column is None:
        text_column = trained_on(run).text_column
    with counting_rows("looking at", pool, hidden=out == "-") as progress:
        picked = pick(
            classifier, pool, n, text_column=text_column, progress=progress,
            announce=lambda note: notes().print(note, style="dim", markup=False),
        )  # fmt: skip
    model = run.resolve().name
    if out == "-":
        typer.echo(render(picked, format, model), nl=False)
        return
    written = write_suggestions(picked, Path(out), format, choices(classifier, picked), model)
    _show(picked, json)
    files = " and ".join(str(file) for file in written)
    notes().print(f"{len(picked):,} texts in {files}. Their labels are the run's own answers: correct them, then", markup=False)
    tested = run / TEST_ROWS
    # Put together with the others, its test rows would be dealt to train and dev.
    test = f"{typed('--test', tested)} " if tested.is_file() else ""
    following = f"then fenlei train ALL_ROWS {test}--model ... --out ..."
    notes().print(f"Next: add them to the rows that {run} was trained on, {following}", markup=False)


def _show(picked: list[Suggestion], as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from fenlei.annotation.exchange import render
    from fenlei.cli.display import print_json, tables
    from fenlei.data.examples import joined

    if as_json:
        import json

        print_json([json.loads(line) for line in render(picked, "jsonl", "").split("\n") if line])
        return
    table = Table(title=f"The first {min(SHOWN, len(picked))} of {len(picked):,}", title_justify="left")
    for heading in ("Text", "The run says", "Why"):
        table.add_column(heading, overflow="fold")
    for one in picked[:SHOWN]:
        answer = f"{joined(one.answer)} {100 * one.confidence:.0f} %"
        table.add_row(*(Text(cell) for cell in (" ".join(one.example.text.split())[:60], answer, one.reason)))
    tables().print(table)

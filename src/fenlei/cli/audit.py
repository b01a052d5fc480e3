"""`fenlei audit`: what is wrong with a labelled file, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fenlei.config import Device

EXAMPLES = (
    "fenlei audit news.jsonl",
    "fenlei audit train.csv --test test.csv --fix cleaned.csv",
    "fenlei audit news.jsonl --json > audit.json",
)


def audit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled file, a folder of train, dev and test, or a data set on a hub.")],
    *,
    dev: Annotated[str | None, typer.Option(help="Dev file to check for texts that are also in train.")] = None,
    test: Annotated[str | None, typer.Option(help="Test file to check for texts that are also in train.")] = None,
    fix: Annotated[Path | None, typer.Option("--fix", help="Write train cleaned, .jsonl or .csv, and a log beside it.")] = None,
    run: Annotated[Path | None, typer.Option(help="A trained run to judge the labels; default: a cross-validated baseline.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; 'title,body' joins two.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, where rows are pairs.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    class_file: Annotated[Path | None, typer.Option(help="File of class names, one a line, if the labels are their numbers.")] = None,
    multi_label: Annotated[
        bool | None, typer.Option("--multi-label/--no-multi-label", help="Any number of labels a row; default: where a row lists several.")
    ] = None,
    label_separator: Annotated[str | None, typer.Option(help="Multi-label: what joins a row's labels in one string.")] = None,
    device: Annotated[Device, typer.Option(help="Where to compute with --run.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON, each row with its number.")] = False,
) -> None:
    """Find copies, leaks, conflicts and wrong labels in a file."""
    from fenlei.audit.audit import audit_data
    from fenlei.audit.document import to_document
    from fenlei.audit.fix import checked_fix_target, write_fixed
    from fenlei.audit.tables import audit_tables, next_steps
    from fenlei.cli.display import notes, print_json, tables

    if fix is not None:
        checked_fix_target(fix)
    console = notes()
    reading: dict[str, Any] = {
        "dev": dev, "test": test, "text_column": text_column, "pair_column": pair_column, "label_column": label_column,
        "class_file": class_file, "multi_label": multi_label, "label_separator": label_separator,
    }  # fmt: skip
    found = audit_data(data, run=run, device=device, announce=lambda note: console.print(note, style="dim", markup=False), **reading)
    if json:
        print_json(to_document(found))
    else:
        tables().print(audit_tables(found))
    if found.label_errors.note:
        console.print(found.label_errors.note, style="yellow", markup=False)
    if fix is not None:
        result = write_fixed(found, fix)
        told = f"{result.kept:,} rows kept, {result.removed:,} removed, {result.review:,} to look at"
        console.print(f"{result.out}: {told}; every one of them is in {result.log}", markup=False)
    if not json:
        for step in next_steps(found, data, fix is not None, _as_typed(reading), run):
            console.print(f"Next: {step}", markup=False)


def _as_typed(options: dict[str, Any]) -> list[str]:
    """Those that were given, as words of a command line."""
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words

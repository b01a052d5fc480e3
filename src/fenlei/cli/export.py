"""`fenlei export`: a run to a stock Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    "fenlei export runs/news --out exported",
    "fenlei export runs/news --out exported --texts dev.jsonl",
    "fenlei export runs/news --out exported --push-to-hub acme/news --private",
)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    *,
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder to write; it must be new or empty.")],
    format: Annotated[Literal["merged"], typer.Option(help="merged: one stock folder, adapters and temperature folded in.")] = "merged",
    texts: Annotated[str | None, typer.Option(help="File of texts to prove parity on; default: texts made up from the vocabulary.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text in --texts.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Export even what the stock layout cannot fully express.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Push the folder to Hugging Face (HF_TOKEN).")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a folder that transformers and vLLM load.

    The folder is asked the same texts as the run, and kept only if the labels agree on at least 99.5 %.
    """
    from fenlei.export.merged import PARITY_TEXTS, export_merged
    from fenlei.hubs.push import check_push, push

    if push_to_hub is not None:
        check_push(push_to_hub)
    asked = None if texts is None else _some_texts(texts, text_column, PARITY_TEXTS)
    result = export_merged(run, out, force=force, texts=asked)
    address = (
        None if push_to_hub is None else push(result.out, push_to_hub, private=private, message=f"fenlei export of {run.resolve().name}")
    )
    if not json:
        typer.echo(f"{result.out}: the label of the run on {result.agreement:.2%} of {result.rows:,} texts")
        typer.echo(f"largest logit difference {result.largest_difference:.3g}")
        for note in result.notes:
            typer.echo(note)
        if address is not None:
            typer.echo(f"pushed to {address}")
        return

    from dataclasses import asdict

    from fenlei.cli.display import print_json

    print_json({**asdict(result), "out": str(result.out), "pushed_to": address})


def _some_texts(source: str, text_column: str | None, most: int) -> list[str]:
    from itertools import islice

    from fenlei.data.readers import read_examples

    return [example.text for example in islice(read_examples(source, text_column=text_column, labelled=False), most)]

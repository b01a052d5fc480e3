"""`fenlei export`: a run to a stock Hugging Face folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fenlei.cli.verify import Verify, verify_runs
from fenlei.config import trained_on
from fenlei.errors import DataError

if TYPE_CHECKING:
    from fenlei.text.pairs import Text

EXAMPLES = (
    "fenlei export runs/news --out exported",
    "fenlei export runs/news --out exported --texts dev.jsonl",
    "fenlei export runs/news --out exported --push-to-hub acme/news --private",
    "fenlei export runs/news --out onnx --format onnx --int8 --texts dev.jsonl",
)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    *,
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder to write; it must be new or empty.")],
    format: Annotated[
        Literal["merged", "onnx"],
        typer.Option(help="merged: one stock folder, adapters and temperature folded in; onnx: a graph for ONNX Runtime."),
    ] = "merged",
    int8: Annotated[bool, typer.Option("--int8", help="With --format onnx: 8-bit integers; smaller, faster, slightly less exact.")] = False,
    texts: Annotated[str | None, typer.Option(help="File of texts to prove parity on; default: texts made up from the vocabulary.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text in --texts.")] = None,
    verify: Verify = False,
    force: Annotated[bool, typer.Option("--force", help="Export even what the stock layout cannot fully express.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Push the folder to Hugging Face (HF_TOKEN).")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a folder that transformers and vLLM load, or ONNX Runtime.

    The export is kept only if it gives the run's label on at least 99.5 % of the texts, but for summands of the calibration that its head
    has no place for: how many labels these change is told. With --int8 it is kept in any case, and the difference is reported. With
    --format onnx, where the file of --texts has labels, the accuracy of both is told.
    """
    if int8 and format != "onnx":
        raise typer.BadParameter("belongs to --format onnx; fenlei predict has its own --int8", param_hint="--int8")
    if verify:
        verify_runs([run])
    if format == "onnx":
        if push_to_hub is not None:
            raise typer.BadParameter("pushes a stock folder: give it with --format merged", param_hint="--push-to-hub")
        _export_onnx(run, out, int8, force, texts, text_column, json)
        return

    from fenlei.export.merged import PARITY_TEXTS, export_merged
    from fenlei.hubs.push import check_push, push

    if push_to_hub is not None:
        check_push(push_to_hub)
    asked = None if texts is None else _some_texts(run, _file(texts), text_column, PARITY_TEXTS)
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


def _export_onnx(run: Path, out: Path, int8: bool, force: bool, source: str | None, text_column: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from fenlei.cli.display import print_json
    from fenlei.export.merged import PARITY_TEXTS
    from fenlei.export.onnx_folder import export_onnx

    texts, gold = (None, None) if source is None else _texts_and_labels(run, _file(source), text_column, PARITY_TEXTS)
    result = export_onnx(run, out, int8=int8, force=force, texts=texts, gold=gold)
    if as_json:
        print_json({**asdict(result), "out": str(result.out)})
        return
    typer.echo(f"{result.out}: the label of the run on {result.agreement:.2%} of {result.rows:,} texts")
    typer.echo(f"largest logit difference {result.largest_difference:.3g}")
    typer.echo(f"texts a second: {result.rows_per_second:,.1f}, the run {result.run_rows_per_second:,.1f}")
    if result.accuracy is not None and result.run_accuracy is not None:
        typer.echo(f"accuracy: {result.accuracy:.4f}, the run {result.run_accuracy:.4f}")
    for note in result.notes:
        typer.echo(note)


def _file(texts: str) -> str:
    """The file that --texts names, maybe on a hub."""
    from fenlei.data.sources import one_file

    return str(one_file(texts)[0])


def _texts_and_labels(run: Path, source: str, text_column: str | None, most: int) -> tuple[list[str], list[str] | None]:
    """The texts of a file, and their labels where each has one that the run knows."""
    from itertools import islice

    from fenlei.artifact import read_manifest
    from fenlei.data.columns import learned_from
    from fenlei.data.label_ids import may_hold_ids, with_names
    from fenlei.data.labelling import Labelling
    from fenlei.data.readers import read_examples
    from fenlei.labels import LabelSet

    manifest, trained = read_manifest(run), trained_on(run)
    known, labelling = LabelSet(tuple(manifest["labels"])), Labelling.from_json(manifest)
    column, own = _text_column(run, source, text_column), learned_from(manifest)
    for label_column in dict.fromkeys((trained.label_column, None)):
        with suppress(DataError):  # that of the training may not be there, nor any other
            labelled = read_examples(
                source, text_column=column, label_column=label_column, labelling=labelling, usual_text=own["usual_text"]
            )
            rows = list(islice(labelled, most))
            named = with_names(rows, known, lambda name: may_hold_ids(name, known, trained, manifest))
            labels = [str(row.label) for row in named]
            return [row.text for row in rows], labels if set(labels) <= set(known) else None
    return [row.text for row in islice(read_examples(source, text_column=column, labelled=False, **own), most)], None


def _some_texts(run: Path, source: str, text_column: str | None, most: int) -> list[Text]:
    """The texts of a file; its pairs, in the columns that the run was trained on, where it reads such."""
    from itertools import islice

    from fenlei.artifact import read_manifest
    from fenlei.data.columns import learned_from
    from fenlei.data.readers import read_examples
    from fenlei.text.pairs import columns_of

    manifest = read_manifest(run)
    text_column, pair_column = columns_of(manifest, _text_column(run, source, text_column), None)
    rows = read_examples(source, text_column=text_column, pair_column=pair_column, labelled=False, **learned_from(manifest))
    return [example.input for example in islice(rows, most)]


def _text_column(run: Path, source: str, given: str | None) -> str | None:
    """That given, else that of the run's training where the file has it; None: the one that is found."""
    from fenlei.data.readers import file_layout

    column = given or trained_on(run).text_column
    if given is None and column is not None:
        try:
            file_layout(source, text_column=column, pair_column=None, labelled=False)
        except DataError:
            return None
    return column

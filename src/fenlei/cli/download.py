"""`fenlei download`: a model or a data set from a hub into the local cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fenlei.config import Source

EXAMPLES = (
    "fenlei download Qwen/Qwen3-0.6B",
    "fenlei download Qwen/Qwen3-0.6B --source modelscope --cache-dir models",
    "fenlei download modelscope:swift/zh_cls_fudan-news --dataset",
)


def download(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Hugging Face or ModelScope id, such as Qwen/Qwen3-0.6B or hf:Qwen/Qwen3-0.6B."),
    ],
    *,
    source: Annotated[Source, typer.Option(help="The hub to ask; auto: Hugging Face, then ModelScope.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where to keep it; default: the hub's own cache.")] = None,
    dataset: Annotated[bool, typer.Option("--dataset", help="MODEL is a data set, such as hf:OWNER/NAME.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fetch a model, or the rows of a data set, into the local cache.

    Prints the folder it is in, of a data set its files; what is there already is not fetched again.
    """
    from fenlei.cli.display import print_json

    if dataset:
        if revision is not None or source != "auto" or cache_dir is not None:
            raise typer.BadParameter(
                "a data set says its hub and revision in its name, and goes to the hub's own cache", param_hint="--dataset"
            )
        files = _rows_of(model)
        if json:
            print_json({"data": model, "files": [str(file) for file in files]})
        else:
            typer.echo("\n".join(str(file) for file in files))
        return

    from fenlei.models.hub import resolve_model, resolved_revision

    folder = resolve_model(model, revision=revision, source=source, cache_dir=cache_dir)
    if json:
        print_json({"model": model, "folder": str(folder), "revision": resolved_revision(folder)})
    else:
        typer.echo(str(folder))


def _rows_of(data: str) -> list[Path]:
    from fenlei.data.remote import remote_files

    files = remote_files(data)
    return [*files.train, *files.dev, *files.test]

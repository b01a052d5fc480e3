"""`fenlei download`: a model from a hub into the local cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fenlei.config import Source

EXAMPLES = (
    "fenlei download Qwen/Qwen3-0.6B",
    "fenlei download Qwen/Qwen3-0.6B --source modelscope --cache-dir models",
)


def download(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face or ModelScope id, such as Qwen/Qwen3-0.6B.")],
    *,
    source: Annotated[Source, typer.Option(help="The hub to ask; auto: Hugging Face, then ModelScope.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where to keep it; default: the hub's own cache.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fetch a model into the local cache.

    Prints the folder it is in; what is there already is not fetched again.
    """
    from fenlei.models.hub import resolve_model, resolved_revision

    folder = resolve_model(model, revision=revision, source=source, cache_dir=cache_dir)
    if not json:
        typer.echo(str(folder))
        return

    from fenlei.cli.display import print_json

    print_json({"model": model, "folder": str(folder), "revision": resolved_revision(folder)})

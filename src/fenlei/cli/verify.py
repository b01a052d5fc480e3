"""The option that has a run's files compared with their checksums before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

Verify = Annotated[bool, typer.Option("--verify", help="Compare every file of the run with its checksum first.")]


def verify_runs(paths: Iterable[str | Path]) -> None:
    """ArtifactError where a file of one of the runs is not as it was saved; what is no run is passed over."""
    from fenlei.artifact import MANIFEST, read_manifest
    from fenlei.inference.checksums import verify

    for path in map(Path, paths):
        if (path / MANIFEST).is_file():
            verify(path, read_manifest(path))

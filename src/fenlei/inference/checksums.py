"""Checksums of what a run is loaded from: written when it is saved, looked at on request, and whenever loading fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fenlei.artifact import fingerprint
from fenlei.errors import ArtifactError, first_line
from fenlei.inference.trust import DEV_SCORES, NOVELTY

EXEMPLARS = "exemplars.jsonl"
"""Training rows that the run keeps, where it was asked to."""
COVERED = ("model", "baseline", "config.yaml", DEV_SCORES, NOVELTY, EXEMPLARS)
"""What of a run's folder is read again; fenlei.json has a checksum of its own."""


def checksums(run: Path) -> dict[str, str]:
    """SHA-256 of every file that the run is loaded from, by its path inside the run."""
    return {path.relative_to(run).as_posix(): fingerprint(path) for path in _files(run)}


def verify(run: Path, manifest: Mapping[str, Any]) -> None:
    """ArtifactError names the files that are not as they were written, that are new, or that lie outside the run."""
    written = manifest.get("files")
    if not isinstance(written, dict):
        raise ArtifactError(f"{run}: was saved without checksums, by an older fenlei; train again, or load it unverified")
    home = run.resolve()
    found: list[str] = []
    for name in written:
        path = run / name
        if not path.resolve().is_relative_to(home):
            found.append(f"{name} leads out of the folder")
        elif not path.is_file():
            found.append(f"{name} is missing")
        elif fingerprint(path) != written[name]:
            found.append(f"{name} was changed")
    found += [f"{path.relative_to(run)} is new" for path in _files(run) if path.relative_to(run).as_posix() not in written]
    if found:
        raise ArtifactError(f"{run}: not as it was saved: {'; '.join(found[:5])}; restore the folder or train again")


@contextmanager
def explained(run: Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    """Where something fails inside the block, a damaged file is named as the reason, if there is one."""
    try:
        yield
    except Exception as error:  # libraries raise what they like over a damaged file; what is no damage is raised again
        if isinstance(manifest.get("files"), dict):
            try:
                verify(run, manifest)
            except ArtifactError as damage:
                raise ArtifactError(f"{damage} (loading it failed: {first_line(error)})") from error
        raise


def _files(run: Path) -> list[Path]:
    roots = [run / name for name in COVERED]
    return sorted(path for root in roots for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file())

"""A repository to a local folder that holds what is wanted of it: from the caches, else from the hubs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from fenlei.config import Source
from fenlei.hubs import huggingface, modelscope
from fenlei.hubs.repository import NotThereError, Repository

HUBS: dict[Source, ModuleType] = {"huggingface": huggingface, "modelscope": modelscope}
"""In the order in which they are asked."""

Missing = Callable[[Path], list[str]]
"""What a folder lacks to be what was looked for, in words; nothing where it is whole."""


class NotFoundError(Exception):
    """No place has the repository; `tried` says of each why not."""

    def __init__(self, tried: list[str]) -> None:
        super().__init__("\n".join(f"  - {line}" for line in tried))
        self.tried = tried


def fetch(repository: Repository, source: Source, missing: Missing) -> Path:
    """The folder of the repository, from `source` or, with `auto`, from whichever hub has it; what is in a cache is not fetched again.

    `missing` says what a folder lacks, in words, where it is not what was looked for. NotFoundError tells of every place that was tried.
    """
    closed = modelscope.why_not(repository.name) if source != "huggingface" else None
    hubs = [hub for key, hub in HUBS.items() if source in ("auto", key) and not (hub is modelscope and closed)]
    tried: list[str] = []
    cached: dict[ModuleType, Path] = {}
    for hub in hubs:
        folder = _look(hub, repository, missing, tried, offline=True)
        if folder is not None and hub.is_complete(folder, repository):
            return folder
        if folder is not None:
            cached[hub] = folder
    for hub in sorted(hubs, key=lambda hub: hub not in cached):
        folder = _look(hub, repository, missing, tried, offline=False)
        if folder is not None:
            return folder
    for folder in cached.values():  # nobody can be asked whether that is all, and nothing is missing that must be there
        return folder
    raise NotFoundError([*tried, *([f"{modelscope.TITLE}: {closed}"] if closed else [])])


def _look(hub: ModuleType, repository: Repository, missing: Missing, tried: list[str], *, offline: bool) -> Path | None:
    """What the hub, or its cache, has; None where that is not all, with the reason in `tried`."""
    place = f"the {hub.TITLE} cache" if offline else str(hub.TITLE)
    try:
        folder: Path = hub.fetch(repository, offline)
    except NotThereError as reason:
        tried.append(f"{place}: {reason}")
        return None
    lacking = missing(folder)
    if lacking:  # an interrupted download leaves such a folder; the hub itself may have the rest
        tried.append(f"{place}: {folder} lacks {' and '.join(lacking)}")
        return None
    return folder

"""A repository on a hub: what is wanted of it, and how users name it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fenlei.config import Source

PREFIXES: dict[str, Source] = {"hf:": "huggingface", "modelscope:": "modelscope"}
"""What goes before an id that is to be asked of one hub alone."""

DEFAULT_BRANCHES = ("main", "master")
"""What Hugging Face calls it, and what ModelScope does; either name means the default branch on both."""

_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class Repository:
    """A repository, by id and revision, and which of its files are wanted."""

    name: str
    kind: Literal["model", "dataset"]
    revision: str | None
    wanted: tuple[str, ...]
    """Shell patterns of paths; `*` also stands for a slash."""
    unwanted: tuple[str, ...] = ()
    cache_dir: Path | None = None
    """None: the hub's own cache."""

    def __str__(self) -> str:
        at = f" at revision {self.revision!r}" if self.revision else ""
        return f"{'model' if self.kind == 'model' else 'data set'} {self.name!r}{at}"


class NotThereError(Exception):
    """Why a place does not have a repository, in words for the user."""


def split_prefix(name: str) -> tuple[Source | None, str]:
    """The hub that `hf:` or `modelscope:` names, and the rest; None and `name` where neither stands there."""
    for prefix, source in PREFIXES.items():
        if name.startswith(prefix):
            return source, name.removeprefix(prefix)
    return None, name


def is_id(name: str) -> bool:
    """Whether `name` has the form of an id: owner/name, or the bare name of an old model."""
    return _ID.fullmatch(name) is not None


def offline_by() -> str | None:
    """The variable by which no hub is to be asked, read as huggingface_hub reads it; None where none says so."""
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return name if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") else None

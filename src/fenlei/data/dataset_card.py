"""The front matter of a data set's README.md: which files are its subsets and splits, as the hubs read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from fenlei.config.yaml_text import parsed_yaml


@dataclass(frozen=True)
class Subset:
    """One table of a data set, with its splits."""

    splits: Mapping[str, tuple[str, ...]]
    """Split to shell patterns of its files, below the data set's folder; empty where only the folder is named."""
    folder: str
    """Below which its files lie: empty, or ending in a slash."""
    is_default: bool


def subsets_of(card: Path) -> dict[str, Subset]:
    """The subsets that the card names, in its order; none where it names none, or is no such card."""
    try:
        _, front, _ = card.read_text(encoding="utf-8").split("---", 2)
        configs = (parsed_yaml(front) or {}).get("configs") or []
        return {_word(config.get("config_name", "default")): _subset(config) for config in configs}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}  # no front matter, or words of another kind: names of files decide


def _subset(config: Mapping[str, Any]) -> Subset:
    folder = _word(config.get("data_dir") or "").strip("/")
    folder += "/" if folder else ""
    splits = {split: tuple(folder + pattern for pattern in patterns) for split, patterns in _splits(config.get("data_files")).items()}
    return Subset(splits, folder, bool(config.get("default")) or config.get("config_name", "default") == "default")


def _splits(files: Any) -> dict[str, tuple[str, ...]]:
    """From a path, a list of paths, a table of paths by split, or a list of {split, path}."""
    if not files:
        return {}
    if isinstance(files, Mapping):
        return {_word(split): _paths(paths) for split, paths in files.items()}
    if isinstance(files, list) and isinstance(files[0], Mapping):
        return {_word(one["split"]): _paths(one["path"]) for one in files}
    return {"train": _paths(files)}


def _paths(paths: Any) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(_word(path) for path in paths)


def _word(value: Any) -> str:
    """A name, written so that YAML may take it for a number or a day; TypeError for anything else, which may be endless."""
    if not isinstance(value, (str, int, float, date)):
        raise TypeError(f"{type(value).__name__} is no name")
    return str(value)

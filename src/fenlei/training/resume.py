"""What a training was begun with, kept beside its checkpoints, so that it can only be gone on with as itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fenlei.artifact import CHECKPOINTS, write_text
from fenlei.config import RunConfig
from fenlei.errors import ArtifactError

BEGUN_WITH = "run.json"
FREE_TO_CHANGE = ("batch_tokens", "device", "report_to", "baseline")
"""Options that the weights do not depend on."""


def remember(out: Path, config: RunConfig, labels: list[str], fingerprints: dict[str, str]) -> None:
    """Writes down options, labels and data of a training that begins."""
    (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    begun = {"options": config.to_options(), "labels": labels, "files": fingerprints}
    write_text(out / CHECKPOINTS / BEGUN_WITH, json.dumps(begun, ensure_ascii=False, indent=2) + "\n")


def recall(out: Path, given: RunConfig) -> RunConfig:
    """The options that the training in `out` was begun with; ArtifactError names those that were given now and differ."""
    begun = _read(out)["options"]
    usual, now = RunConfig().to_options(), given.to_options()
    differing = {key: value for key, value in now.items() if value != usual[key] and value != begun.get(key) and key not in FREE_TO_CHANGE}
    if differing:
        told = "; ".join(f"{key} was {begun.get(key)!r}, now {value!r}" for key, value in differing.items())
        raise ArtifactError(f"{out}: the training was begun with other options ({told}); resume without them, or start in another folder")
    free = {key: now[key] for key in FREE_TO_CHANGE if now[key] != usual[key]}
    return RunConfig.from_options({**begun, **free})


def check_same_data(out: Path, labels: list[str], fingerprints: dict[str, str]) -> None:
    """ArtifactError where labels or data files are not those that the training was begun with."""
    begun = _read(out)
    changed = sorted(name for name in begun["files"].keys() | fingerprints.keys() if begun["files"].get(name) != fingerprints.get(name))
    if changed or begun["labels"] != labels:
        what = f"{', '.join(changed)} changed" if changed else "the labels changed"
        raise ArtifactError(f"{out}: {what} since the training was begun; restore the data, or start in another folder")


def _read(out: Path) -> dict[str, Any]:
    path = out / CHECKPOINTS / BEGUN_WITH
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); the training cannot be gone on with, start in another folder") from error

"""What a training was begun with, kept beside its checkpoints, so that it can only be gone on with as itself."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fenlei.artifact import BEGUN_WITH, CHECKPOINTS, MANIFEST, ROWS, fingerprint, write_text
from fenlei.config import RunConfig
from fenlei.errors import ArtifactError

FREE_TO_CHANGE = ("batch_tokens", "memory", "gradient_checkpointing", "device", "report_to", "baseline")
"""Options that neither the weights nor what is measured of them depend on."""


@dataclass(frozen=True)
class Command:
    """What begins a training; the same alone can go on with it."""

    name: str
    run: Path | None = None
    """The finished run that it is given: one that teaches, or is extended."""

    def to_json(self) -> dict[str, Any]:
        """As plain values; the run by what it is too, for its folder may be named in several ways."""
        run = None if self.run is None else {"folder": str(self.run), "manifest": fingerprint(self.run / MANIFEST)}
        return {"command": self.name, "run": run}


TRAIN = Command("train")


def way_on(command: str, out: Path) -> str:
    """What goes on with a training: `train` finds all that it was begun with in the folder, the others need to be given it again."""
    if command != "train":
        return f"the same `fenlei {command}` command and --resume"
    return f"`fenlei train --resume --out {shlex.quote(str(out))}`"


def remember(out: Path, command: Command, config: RunConfig, rests_on: dict[str, Any]) -> None:
    """Writes down command and options of a training that begins, and the labels, data and base model that it rests on."""
    (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    _write(out, {**command.to_json(), "out": str(out), "options": config.to_options(), **rests_on})


def recall(out: Path, command: Command, given: RunConfig) -> RunConfig:
    """The options that the training in `out` was begun with.

    ArtifactError where another command began it, or from another run, and for options that were given now and differ.
    """
    _check_same_command(out, command)
    begun = _read(out)["options"]
    usual, now = RunConfig().to_options(), given.to_options()
    asked = {key: value for key, value in now.items() if key in given.given or value != usual[key]}
    differing = {key: value for key, value in asked.items() if value != begun.get(key) and key not in FREE_TO_CHANGE}
    if differing:
        told = "; ".join(f"{key} was {begun.get(key)!r}, now {value!r}" for key, value in differing.items())
        raise ArtifactError(f"{out}: the training was begun with other options ({told}); resume without them, or start in another folder")
    free = {key: asked[key] for key in FREE_TO_CHANGE if key in asked}
    return RunConfig.from_options({**begun, **free})


def _check_same_command(out: Path, command: Command) -> None:
    begun, now = _read(out), command.to_json()
    then = begun.get("command", command.name)  # an older fenlei did not write it down
    if then != command.name:
        raise ArtifactError(f"{out}: the training was begun by `fenlei {then}`; go on with {way_on(then, out)}, or start in another folder")
    run = begun.get("run")
    if run and now["run"] and run["manifest"] != now["run"]["manifest"]:
        raise ArtifactError(
            f"{out}: the training was begun from the run in {run['folder']}, and that in {command.run} is now another; "
            "give that run, or start in another folder"
        )


def check_unchanged(out: Path, rests_on: dict[str, Any]) -> None:
    """ArtifactError where labels, data files, base model or prompt are not those that the training was begun with."""
    begun = _read(out)
    files, fingerprints = begun["files"], rests_on["files"]
    found = [f"{name} changed" for name in sorted(files.keys() & fingerprints.keys()) if files[name] != fingerprints[name]]
    found += [f"{name} was left out" for name in sorted(files.keys() - fingerprints.keys())]
    found += [f"{name} was added" for name in sorted(fingerprints.keys() - files.keys())]
    base = begun.get("base", {})  # an older fenlei did not write it down
    found += [f"the {name} changed" for name, known in base.items() if rests_on["base"].get(name) != known]
    if found or begun["labels"] != rests_on["labels"]:
        what = ", ".join(found) or "the labels changed"
        raise ArtifactError(f"{out}: {what} since the training was begun; restore what it was begun with, or start in another folder")


def remember_order(out: Path, *, alike: bool) -> None:
    """Writes down whether rows of a step are of like length, which decides their order, and would be otherwise on another device."""
    _write(out, {**_read(out), "alike": alike})


def recall_order(out: Path) -> bool | None:
    """Whether rows of a step were of like length; None where an older fenlei did not write it down."""
    alike = _read(out).get("alike")
    return None if alike is None else bool(alike)


def _write(out: Path, begun: dict[str, Any]) -> None:
    write_text(out / CHECKPOINTS / BEGUN_WITH, json.dumps(begun, ensure_ascii=False, indent=2) + "\n")


def _read(out: Path) -> dict[str, Any]:
    path = out / CHECKPOINTS / BEGUN_WITH
    try:
        return _as_in(out, dict(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); the training cannot be gone on with, start in another folder") from error


def _as_in(out: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """What it was begun with, the frames that lie in its folder named by where it is now: it may have moved, or be spelled otherwise."""
    then = Path(begun.get("out", out)) / ROWS  # an older fenlei did not write it down

    def now(name: str) -> str:
        return str(out / ROWS / Path(name).name) if Path(name).parent == then else name

    options = {key: now(value) if value and key in ("data", "dev", "test") else value for key, value in begun["options"].items()}
    return {**begun, "out": str(out), "options": options, "files": {now(name): content for name, content in begun["files"].items()}}

"""Checkpoints: sealed with checksums once they are whole, and checked before a training goes on from one.

A disk that filled up, a machine that lost power, a copy that broke off: each leaves files that are there and yet not what was written.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from fenlei.artifact import COMPLETE, checkpoints, fingerprint, read_json, step_of, write_text
from fenlei.errors import ArtifactError

WEIGHTS_FILE = "trainable.safetensors"
STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class Start:
    """Where a training goes on."""

    checkpoint: Path
    best: Path
    """The checkpoint with the best weights so far; may be the same."""
    notes: tuple[str, ...]
    """Which newer checkpoints were passed over, and why."""


def seal(checkpoint: Path) -> None:
    """Writes down what every file of the checkpoint holds; with it the checkpoint is complete."""
    sums = {path.name: fingerprint(path) for path in sorted(checkpoint.iterdir()) if path.name != COMPLETE}
    write_text(checkpoint / COMPLETE, json.dumps(sums, indent=2) + "\n")


def unseal(checkpoint: Path) -> None:
    """Before it is written anew: half old and half new must not count as whole."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)


def starting_point(run: Path) -> Start:
    """The newest checkpoint of `run` whose files, and whose best weights, are as they were written; ArtifactError where there is none."""
    notes: list[str] = []
    for checkpoint in checkpoints(run):
        wrong = _damage(checkpoint)
        if wrong is None:
            best = _best(checkpoint)
            wrong = _damage(best, (WEIGHTS_FILE,)) if best != checkpoint else None
            if wrong is None:
                return Start(checkpoint, best, (*notes, f"resuming from {checkpoint}"))
        notes.append(f"passed over {checkpoint}: {wrong}")
    raise ArtifactError(f"{run}: no checkpoint can be gone on from ({'; '.join(notes)}); restore the files, or start in another folder")


def remove_newer(checkpoint: Path) -> None:
    """Removes what lies after the checkpoint that is gone on from: damaged, or broken off.

    Trainer keeps the highest numbers where times are too close to tell, and would remove what it has just written instead.
    """
    for other in checkpoint.parent.glob("checkpoint-*"):
        if step_of(other) > step_of(checkpoint):
            shutil.rmtree(other, ignore_errors=True)


def _damage(checkpoint: Path, files: tuple[str, ...] | None = None) -> str | None:
    """What is wrong with `files` of the checkpoint (None: with any), in words; None where nothing is."""
    try:
        sums = read_json(checkpoint / COMPLETE)
        wanted = {name: sums[name] for name in files or sums}
        changed = [name for name, known in wanted.items() if not (checkpoint / name).is_file() or fingerprint(checkpoint / name) != known]
    except (OSError, KeyError, TypeError, ArtifactError) as error:
        return f"{checkpoint.name} is damaged (the checksums in {COMPLETE!r} cannot be read: {error})"
    return f"{checkpoint.name} is damaged ({', '.join(changed)})" if changed else None


def _best(checkpoint: Path) -> Path:
    """By its name, for the run's folder may have moved since."""
    best = read_json(checkpoint / STATE_FILE)["best_model_checkpoint"]
    return checkpoint.with_name(Path(best).name) if best else checkpoint

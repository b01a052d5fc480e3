"""A run's folder: written so that it is whole or not there, read strictly.

DIR/fenlei.json    written last; its presence says that the run is complete
    config.yaml    every option of the run
    model/         weights, config and tokenizer
    logs/          what TensorBoard shows
    rows/          rows that came as frames
    checkpoints/   of an unfinished training
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError

from fenlei.config import Method, Tuning
from fenlei.data.encodings import is_like_url
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError, FenleiError

FORMAT_VERSION = 3
OLDEST_FORMAT = 1
"""A run is written in the oldest version that says all of it: 1 knows nothing of multi-label, and would take the softmax of its logits."""
MANIFEST = "fenlei.json"
CHECKPOINTS = "checkpoints"
BEGUN_WITH = "run.json"
"""Among the checkpoints: what their training was begun with."""
TEACHER = "teacher"
"""Among the checkpoints: what a teacher said, which a distillation asks before it begins."""
LOCK = ".lock"
"""Among the checkpoints, while somebody trains."""
LOGS = "logs"
ROWS = "rows"
"""Rows that came as frames."""
COMPLETE = "complete"
"""The file that a checkpoint gets last: the checksums of the others."""

LARGEST_JSON = 1 << 26
"""Bytes. What a run writes down of itself is far smaller; a stranger's file must not fill the memory."""

DIGEST = "sha256"
"""In fenlei.json: the checksum of everything else in it but the base model's folder, which may be another on another machine."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


REQUIRED: dict[str, Callable[[Any], bool]] = {
    "format_version": _is_whole,
    "labels": lambda value: isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value),
    "method": lambda value: value in get_args(Method),
    "tuning": lambda value: value in get_args(Tuning),
    "head": lambda value: value is None or isinstance(value, str),
    "prompt": lambda value: value is None or isinstance(value, str),
    "max_length": _is_whole,
    "base_model": lambda value: isinstance(value, dict) and isinstance(value.get("folder"), str) and isinstance(value.get("name"), str),
    "layers": lambda value: value is None or _is_whole(value),
    "temperature": lambda value: isinstance(value, (int, float)) and 0 < value < math.inf,
    "parameters": lambda value: isinstance(value, dict) and _is_whole(value.get("all")),
}
"""What fenlei.json has to say, and of which kind."""


def read_manifest(run: str | Path) -> dict[str, Any]:
    """fenlei.json of a complete run; ArtifactError where there is none, or one this version cannot read."""
    folder = Path(run)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; give the folder that `fenlei train --out` wrote")
    if not path.exists():
        unfinished = checkpoints(folder)
        cure = "training did not end; continue it with --resume" if unfinished else "give the folder that `fenlei train --out` wrote"
        raise ArtifactError(f"{folder}: holds no complete run (no {MANIFEST}): {cure}")
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: holds {type(manifest).__name__}, expected an object; train again or restore the file")
    if manifest.get("format_version") not in range(OLDEST_FORMAT, FORMAT_VERSION + 1):
        raise ArtifactError(
            f"{path}: format version {manifest.get('format_version')!r}, this fenlei reads {OLDEST_FORMAT} to {FORMAT_VERSION}; "
            "install the fenlei that wrote it"
        )
    missing = [key for key in REQUIRED if key not in manifest]
    if missing:
        raise ArtifactError(f"{path}: lacks {', '.join(missing)}; the file was changed or cut off")
    odd = [key for key, is_right in REQUIRED.items() if not is_right(manifest[key])]
    if odd:
        raise ArtifactError(f"{path}: {odd[0]} is {str(manifest[odd[0]])[:60]!r}, which no run has; restore the file or train again")
    if DIGEST in manifest and manifest[DIGEST] != _digest(manifest):
        raise ArtifactError(f"{path}: damaged (its checksum is of another content); restore the file or train again")
    return dict(manifest)


def read_json(path: Path) -> Any:
    """What a JSON file of a run says; ArtifactError where it is missing, too large or no JSON."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ArtifactError(f"{path}: larger than {LARGEST_JSON >> 20} MiB, which no run writes; restore the file or train again")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, or no UTF-8; RecursionError: brackets a thousand deep
        raise ArtifactError(f"{path}: damaged ({error}); train again or restore the file") from error


def write_manifest(run: Path, manifest: dict[str, Any]) -> None:
    """Writes fenlei.json, whole: with it the run is complete."""
    told = {"format_version": _format_of(manifest), **manifest}
    told[DIGEST] = _digest(told)
    write_text(run / MANIFEST, json.dumps(told, ensure_ascii=False, indent=2) + "\n")


def _format_of(manifest: dict[str, Any]) -> int:
    """The lowest version whose fenlei reads the run as it is meant: pairs of texts came with 3, any number of labels a text with 2."""
    if manifest.get("pair_column") is not None:
        return 3
    return 2 if Labelling.from_json(manifest).multi_label else OLDEST_FORMAT


def _digest(manifest: dict[str, Any]) -> str:
    told = {key: value for key, value in manifest.items() if key != DIGEST}
    if isinstance(told.get("base_model"), dict):
        told["base_model"] = {key: value for key, value in told["base_model"].items() if key != "folder"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("ascii")).hexdigest()


def write_text(path: Path, text: str) -> None:
    r"""UTF-8, whole or not at all; bytes of a file name that are no UTF-8, which Python holds as lone surrogates, as their \u escape."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes, error: type[FenleiError] = ArtifactError, *, alone: bool = False) -> None:
    """Whole or not at all, also where the machine loses its power; `alone` as of `whole_file`."""
    with whole_file(path, error, alone=alone) as temporary, saving(path, error), temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def give_name(whole: Path, target: Path, error: type[FenleiError] = ArtifactError) -> None:
    """Gives a file that is whole the name that somebody waits for."""
    with saving(target, error):
        os.replace(whole, target)


@contextmanager
def whole_file(target: Path, error: type[FenleiError] = ArtifactError, *, alone: bool = False) -> Iterator[Path]:
    """A temporary name beside `target` that becomes `target` on success and is removed on failure; what is written to it, the caller
    guards with `saving`, for not every OSError of his is about this file.

    `alone`: no two processes write `target` at once. The name is the same each time, so that what a killed one left is written over.
    """
    temporary = target.with_name(f".{target.name}.tmp" if alone else f".{target.name}.{os.getpid()}.tmp")
    with saving(target, error):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        give_name(temporary, target, error)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place on success and is removed on failure."""
    target = target.resolve()  # Path(".") has no name
    temporary = target.with_name(f".{target.name}.tmp")  # the same each time, so that what a killed process left goes with the next
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with saving(target):
            temporary.mkdir(parents=True)
            yield temporary
            if target.exists():
                shutil.rmtree(target)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def saving(path: Path, error: type[FenleiError] = ArtifactError) -> Iterator[None]:
    """Turns a failed write (disk full, no permission) into an `error` that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as reason:
        raise error(f"{path}: could not be saved ({reason}); free some space or choose another folder, then run again") from reason


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of an unfinished training that were written to their end, the newest first."""
    marked = (mark.parent for mark in (run / CHECKPOINTS).glob(f"checkpoint-*/{COMPLETE}"))
    return sorted((folder for folder in marked if step_of(folder) >= 0), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step that a folder is the checkpoint of; -1 for another that lies there, such as a copy `checkpoint-30.bak`."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1


def is_taken(out: Path, *, but: tuple[str, ...] = ()) -> bool:
    """Whether something is in the way of a new folder `out`: a file, or a folder that holds more than `but`."""
    return out.exists() and (not out.is_dir() or any(path.name not in but for path in out.iterdir()))


def checked_path(out: str | Path) -> Path:
    """`out` as a path; ConfigError where it is a URL, of which a Path would make a folder here, called `s3:`."""
    if is_like_url(out):
        raise ConfigError(
            f"{out}: is a URL, and what is written stays on this machine; give a file or folder here, and copy it there "
            "(`fenlei predict --engine ray` alone writes to URLs)"
        )
    return Path(out)


def check_new(out: Path, *, but: tuple[str, ...] = ()) -> None:
    """ArtifactError where `out` cannot become a new folder: nothing of the user's is ever overwritten. ConfigError where it is a URL."""
    checked_path(out)
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file; --out names a folder")
    if (out / MANIFEST).exists():
        raise ArtifactError(f"{out}: already holds a complete run; choose another --out, or remove the folder")
    if is_taken(out, but=but):
        raise ArtifactError(f"{out}: is not empty; choose a new folder for --out, so that nothing in this one is overwritten")


def check_free(out: Path, *, resume: bool) -> None:
    """ArtifactError where `out` cannot take a run: it holds one, or anything else (resume: it holds none to go on with)."""
    unfinished = bool(checkpoints(out)) and not (out / MANIFEST).exists()
    if unfinished and not resume:
        raise ArtifactError(f"{out}: holds an unfinished run; continue it with --resume, or choose another --out")
    if resume and not unfinished and not (out / MANIFEST).exists():
        raise ArtifactError(f"{out}: holds no checkpoint to resume from; start without --resume")
    if not unfinished:
        check_new(out, but=(CHECKPOINTS, LOGS, ROWS))
        _check_ours(out)


def _check_ours(out: Path) -> None:
    """ArtifactError where `out` has checkpoints that are somebody else's."""
    folder = out / CHECKPOINTS
    theirs = [path for path in folder.glob("[!.]*") if path.name != TEACHER]  # hidden: our lock, or what we had begun to write
    if theirs and not (folder / BEGUN_WITH).exists():
        raise ArtifactError(f"{folder}: holds what no training of fenlei left; choose a new folder for --out")


def fingerprint(path: Path) -> str:
    """SHA-256 of the file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Python and the libraries that a run depends on, by name."""
    names = ("fenlei", "torch", "transformers", "peft", "tokenizers", "scikit-learn", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

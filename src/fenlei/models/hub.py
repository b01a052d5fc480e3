"""A model's name to a local folder that holds it whole: `nano`, a folder, or the id of a model on a hub."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from fenlei.config import Source
from fenlei.errors import ModelError, first_line

NANO = "nano"
NANO_FOLDER = Path(__file__).parent / "nano" / "weights"

WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""What is fetched from a hub: weights without pickle, configuration, tokenizer, chat template."""
UNWANTED = ("*/*", "consolidated*")
"""Sub-folders (ONNX, original checkpoints) and second copies of the weights."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth")

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_model(name: str, *, revision: str | None = None, source: Source = "auto", cache_dir: str | Path | None = None) -> Path:
    """The local folder of the model `name`: the built-in `nano`, an existing folder, else a Hugging Face or ModelScope id.

    A hub id is looked for in the local caches first, then on the hubs; `source` limits this to one of them. ModelError where the
    model is nowhere to be found, with everything that was tried, or where its folder is incomplete, with what is missing.
    """
    folder = NANO_FOLDER if name == NANO else Path(name).expanduser()
    if name == NANO or folder.is_dir():
        if revision is not None:
            raise ModelError(f"revision {revision!r}: only a model on a hub has revisions, {name!r} is a folder; leave the revision out")
        return _whole(folder)
    if folder.exists():
        raise ModelError(f"{name}: is a file; a model is a folder with config.json, its tokenizer and *.safetensors")
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name}: no such folder, nor the id of a model on a hub (owner/name); check the path, or give `{NANO}`")
    return _from_hubs(name, revision, source, cache_dir)


def is_local(name: str) -> bool:
    """Whether `name` is a folder of the user's, and neither built in nor on a hub."""
    return name != NANO and Path(name).expanduser().is_dir()


def resolved_revision(folder: Path) -> str | None:
    """The commit that a folder of the Hugging Face cache holds; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads the weights from: model.safetensors, else those of the index; else all there are."""
    single = folder / "model.safetensors"
    return [single] if single.is_file() else [folder / name for name in _shards(folder)] or sorted(folder.glob("*.safetensors"))


def missing_parts(folder: Path) -> list[str]:
    """What `folder` lacks to be loaded as a model, in words; empty where it is whole."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(_holds(folder, pattern) for pattern in TOKENIZER_FILES):
        missing.append(f"a tokenizer (one of {', '.join(TOKENIZER_FILES)})")
    shards = _shards(folder)
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        missing.append(f"{len(absent)} of its {len(shards)} weight files, among them {absent[0]}")
    elif not shards and not _holds(folder, "*.safetensors"):
        pickled = any(_holds(folder, pattern) for pattern in PICKLED_WEIGHTS)
        missing.append("weights as *.safetensors" + (" (it has them only as pickle, which is not read; convert them)" if pickled else ""))
    return missing


class _NotThereError(Exception):
    """Why a place does not have the model."""


def _from_hubs(name: str, revision: str | None, source: Source, cache_dir: str | Path | None) -> Path:
    hubs = {"huggingface": ("Hugging Face", _fetch_huggingface), "modelscope": ("ModelScope", _fetch_modelscope)}
    closed = _why_not_modelscope(name) if source != "huggingface" else None
    asked = [hub for key, hub in hubs.items() if source in ("auto", key) and not (key == "modelscope" and closed)]
    tried = [f"a folder of this name: there is none in {Path.cwd()}"]
    for offline, (hub, fetch) in itertools.product((True, False), asked):
        place = f"the {hub} cache" if offline else hub
        try:
            folder = fetch(name, revision, cache_dir, offline)
        except _NotThereError as reason:
            tried.append(f"{place}: {reason}")
            continue
        missing = missing_parts(folder)
        if not missing:
            return folder
        # An interrupted download leaves such a folder in the cache; the hub itself may have the rest.
        tried.append(f"{place}: {folder} lacks {' and '.join(missing)}")
    if closed:
        tried.append(f"ModelScope: {closed}")
    at = f" at revision {revision!r}" if revision else ""
    raise ModelError(
        f"model {name!r}{at} was not found. Tried:\n"
        + "".join(f"  - {line}\n" for line in tried)
        + f"Without a hub, a local folder with config.json, a tokenizer and *.safetensors will do, and so will `{NANO}`, which is built in."
    )


def _why_not_modelscope(name: str) -> str | None:
    """Why neither its cache nor its hub can be asked; None where they can."""
    if "/" not in name:
        return "not asked, its ids have the form owner/name"
    if importlib.util.find_spec("modelscope") is None:
        return "not asked, the package modelscope is not installed (pip install modelscope)"
    return None


def _fetch_huggingface(name: str, revision: str | None, cache_dir: str | Path | None, offline: bool) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    return _snapshot(huggingface_hub.snapshot_download, errors, name, revision, cache_dir, offline)


def _fetch_modelscope(name: str, revision: str | None, cache_dir: str | Path | None, offline: bool) -> Path:
    try:
        snapshot_download = importlib.import_module("modelscope.hub.snapshot_download").snapshot_download
        errors = importlib.import_module("modelscope.hub.errors")
    except ImportError as error:
        raise _NotThereError(f"the package modelscope cannot be imported: {first_line(error)}") from error
    return _snapshot(snapshot_download, errors, name, revision, cache_dir, offline)


def _snapshot(
    download: Callable[..., str], errors: ModuleType, name: str, revision: str | None, cache_dir: str | Path | None, offline: bool
) -> Path:
    """What both hubs' `snapshot_download` gives; `errors` is the module of those that it may raise."""
    revisions = {} if revision is None else {"revision": revision}  # ModelScope's default is a branch, not None
    try:
        folder = download(
            name,
            **revisions,
            cache_dir=None if cache_dir is None else str(cache_dir),
            local_files_only=offline,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except _errors_of(errors) as error:
        raise _NotThereError("not there" if offline else first_line(error)) from error
    return Path(folder)


def _errors_of(module: ModuleType) -> tuple[type[Exception], ...]:
    """All that a hub's library may raise on purpose. Its classes share no root, and differ between versions."""
    own = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (OSError, ValueError, RuntimeError, *own)


def _whole(folder: Path) -> Path:
    missing = missing_parts(folder)
    if not missing:
        return folder
    hint = f"; it is a fenlei run, its model lies in {folder / 'model'}" if (folder / "fenlei.json").exists() else ""
    raise ModelError(f"{folder}: not a complete model folder, it lacks {' and '.join(missing)}{hint}")


def _shards(folder: Path) -> list[str]:
    """The weight files that the folder's index names; none where the weights are one file."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name or name == ".."]
        if outside:
            raise ValueError(f"{outside[0]!r} is not the name of a file in this folder")
        return names
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index}: not a readable index of weight files ({first_line(error)}); fetch the model again") from error


def _holds(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))

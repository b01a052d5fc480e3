"""A model's name to a local folder that holds it whole: `nano`, a folder, a GGUF file, or the id of a model on a hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fenlei.config import Source
from fenlei.errors import ModelError, first_line
from fenlei.hubs.fetch import NotFoundError, fetch
from fenlei.hubs.repository import Repository, is_id, split_prefix
from fenlei.models import gguf

NANO = "nano"
NANO_FOLDER = Path(__file__).parent / "nano" / "weights"

WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""What is fetched from a hub: weights without pickle, configuration, tokenizer, chat template."""
UNWANTED = ("*/*", "consolidated*")
"""Sub-folders (ONNX, original checkpoints) and second copies of the weights."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth")
PICKLED = "it has them only as pickle, which is not read; convert them"
NOT_FETCHED = (
    "where a hub has them as pickle alone, *.bin, they are neither fetched nor read: save the model once with save_pretrained of "
    "transformers and give that folder, or the revision refs/pr/N of a conversion that is proposed on its Hugging Face page"
)

_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_model(name: str, *, revision: str | None = None, source: Source = "auto", cache_dir: str | Path | None = None) -> Path:
    """The local folder of the model `name`: the built-in `nano`, an existing folder, else a Hugging Face or ModelScope id.

    A GGUF file, or one of a hub (`owner/name:Q4_K_M`, `owner/name:file.gguf`), is dequantised into a folder.

    A hub id is looked for in the local caches first, then on the hubs; `source`, or `hf:` and `modelscope:` before the id, limits this
    to one of them. ModelError where the model is nowhere to be found, with everything that was tried, or where its folder is incomplete,
    with what is missing.
    """
    folder = NANO_FOLDER if name == NANO else Path(name).expanduser()
    if name == NANO or folder.is_dir():
        if revision is not None:
            raise ModelError(f"revision {revision!r}: only a model on a hub has revisions, {name!r} is a folder; leave the revision out")
        return _whole(folder)
    if folder.exists() and folder.suffix == gguf.SUFFIX:
        return gguf.dequantized(folder)
    if folder.exists():
        raise ModelError(f"{name}: is a file; a model is a folder with config.json, its tokenizer and *.safetensors")
    prefix, model = split_prefix(name)
    id_of_gguf, _, wanted = model.partition(":")
    if wanted and is_id(id_of_gguf):
        return gguf.dequantized(_gguf_from_hubs(name, wanted, revision, source, cache_dir))
    if not is_id(model):
        raise ModelError(f"{name}: no such folder, nor the id of a model on a hub (owner/name); check the path, or give `{NANO}`")
    if prefix is not None and source not in ("auto", prefix):
        raise ModelError(f"{name}: asks for {prefix}, and source for {source}; leave one of them out")
    return _from_hubs(name, revision, source, cache_dir)


def is_local(name: str) -> bool:
    """Whether `name` is a folder or a file of the user's, and neither built in nor on a hub."""
    return name != NANO and Path(name).expanduser().exists()


def local_file(name: str) -> str | None:
    """Where the file `name` lies, wherever it is asked from; None where the model is no file of the user's."""
    path = Path(name).expanduser()
    return str(path.resolve()) if is_local(name) and path.is_file() else None


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
        missing.append(f"weights as *.safetensors ({PICKLED if pickled else NOT_FETCHED})")
    return missing


def _from_hubs(name: str, revision: str | None, source: Source, cache_dir: str | Path | None) -> Path:
    prefix, model = split_prefix(name)
    repository = Repository(model, "model", revision, WANTED, UNWANTED, None if cache_dir is None else Path(cache_dir))
    try:
        return fetch(repository, prefix or source, missing_parts)
    except NotFoundError as error:
        tried = [*([] if prefix else [f"a folder of this name: there is none in {Path.cwd()}"]), *error.tried]
        places = "".join(f"  - {line}\n" for line in tried)
        without = f"a local folder with config.json, a tokenizer and *.safetensors will do, and so will `{NANO}`, which is built in"
        fate = "could not be taken" if any(" lacks " in line for line in error.tried) else "was not found"
        raise ModelError(f"{repository} {fate}. Tried:\n{places}Without a hub, {without}.") from error


def _gguf_from_hubs(name: str, wanted: str, revision: str | None, source: Source, cache_dir: str | Path | None) -> Path:
    """The GGUF file `wanted`, by its name or by the quantisation that stands in its name, of a repository."""
    prefix, model = split_prefix(name)
    pattern = wanted if wanted.endswith(gguf.SUFFIX) else f"*{wanted}*{gguf.SUFFIX}"
    patterns = tuple(dict.fromkeys((pattern, pattern.replace(wanted, wanted.lower()), pattern.replace(wanted, wanted.upper()))))
    repository = Repository(model.partition(":")[0], "model", revision, patterns, (), None if cache_dir is None else Path(cache_dir))

    def found(folder: Path) -> list[Path]:
        return sorted({path for one in patterns for path in folder.glob(one)})

    def missing(folder: Path) -> list[str]:
        return [] if found(folder) else [f"a file {pattern}"]

    try:
        files = found(fetch(repository, prefix or source, missing))
    except NotFoundError as error:
        places = "".join(f"  - {line}\n" for line in error.tried)
        raise ModelError(f"{wanted} of {repository} was not found. Tried:\n{places}A local file *.gguf will do.") from error
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise ModelError(f"{name}: fits several files, {names}; name one of them after the colon (split files are not taken)")
    return files[0]


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

"""The states that a frozen backbone gives, computed once a row and kept on disk.

A frozen backbone says the same of a row in every epoch and in every run over the same model. The file is named by what the states depend on
(the model's weights, its depth and number format, the token ids), so that a stale one is never read; it is read through a memory map, so
that a million rows need no memory. The cache never takes more than MOST_BYTES: what was not used for longest goes first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from fenlei.artifact import fingerprint, whole_file
from fenlei.errors import ArtifactError
from fenlei.inference.scoring import BATCH_TOKENS
from fenlei.models.fingerprint import weights_fingerprint
from fenlei.models.head import HeadMethod
from fenlei.text.batches import by_token_budget, collate
from fenlei.text.prompts import EncodedTexts

MOST_BYTES = 10 * 2**30
"""Of all files in the cache together: 2.8 million rows of a model with 896 hidden units."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a half-written file cannot belong to a run any more."""

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`fenlei/vectors` in the user's cache; XDG_CACHE_HOME moves it. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fenlei" / "vectors"


def cached_vectors(method: HeadMethod, base: Path, encoded: EncodedTexts) -> np.ndarray:
    """What the head reads of every row, float32 (rows, hidden), memory-mapped; computed where it is not there yet.

    ArtifactError where there is no room for it on disk.
    """
    name = f"{_key(method, base, encoded)}.npy"
    cache = _usable_cache()
    if cache is None:
        # The map outlives the file's name: what is mapped is given back when the run ends.
        with tempfile.TemporaryDirectory(prefix="fenlei-vectors-", ignore_cleanup_errors=True) as folder:
            return _computed(method, encoded, Path(folder) / name)
    try:
        os.utime(cache / name)  # used now: removed last
        return _mapped(cache / name)
    except FileNotFoundError:
        return _computed(method, encoded, cache / name)


def _usable_cache() -> Path | None:
    """The cache's folder; None, with a warning, where nothing can be written there."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        logger.warning("the states of the frozen backbone are kept for this run only: no cache can be written (%s)", error)
        return None
    return folder


def _computed(method: HeadMethod, encoded: EncodedTexts, path: Path) -> np.ndarray:
    with whole_file(path) as temporary:
        _compute(method, encoded, temporary)
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


@torch.inference_mode()
def _compute(method: HeadMethod, encoded: EncodedTexts, path: Path) -> None:
    method.eval()
    vectors: np.memmap | None = None
    for rows in by_token_budget(encoded.lengths, range(len(encoded)), BATCH_TOKENS):
        pooled = method.pool(collate(encoded, rows, method.pad_id)).cpu().numpy()
        if vectors is None:
            vectors = _reserved(path, (len(encoded), pooled.shape[1]))
        vectors[rows] = pooled
    assert vectors is not None
    vectors.flush()


def _reserved(path: Path, shape: tuple[int, int]) -> np.memmap:
    """A new float32 array on disk whose every byte has its place: a map of a file with holes ends the process when the disk is full."""
    needed = 4 * shape[0] * shape[1]
    _prune(path.parent, MOST_BYTES - needed)
    try:
        vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        elif shutil.disk_usage(path.parent).free < needed:  # macOS and Windows have no such call
            raise OSError("the disk has less free space")
    except OSError as error:
        raise ArtifactError(
            f"{path.parent}: no room for the states of {shape[0]:,} rows, {needed / 1e6:,.1f} MB ({error}); free some space, "
            "or let XDG_CACHE_HOME name a folder on a disk that has it"
        ) from error
    return vectors


def _prune(cache: Path, most: int) -> None:
    """Removes files, the longest unused first, until the others take at most `most` bytes; a map of a removed file stays readable."""
    abandoned = [path for path in cache.glob(".*.tmp") if time.time() - _used(path) > ABANDONED_AFTER]
    kept = sorted(cache.glob("*.npy"), key=_used)
    sizes = [path.stat().st_size for path in kept]
    while kept and sum(sizes) > most:
        abandoned.append(kept.pop(0))
        sizes.pop(0)
    for path in abandoned:
        with suppress(PermissionError):  # Windows keeps what another process has mapped
            path.unlink(missing_ok=True)


def _used(path: Path) -> float:
    return path.stat().st_mtime


def _key(method: HeadMethod, base: Path, encoded: EncodedTexts) -> str:
    digest = hashlib.sha256()
    digest.update(f"{fingerprint(base / 'config.json')} {weights_fingerprint(base)}".encode())
    backbone = method.stock.base_model
    digest.update(f"{next(backbone.parameters()).dtype} {method.stock.config.num_hidden_layers}".encode())
    digest.update(encoded.ids.tobytes())
    digest.update(encoded.starts.tobytes())
    return digest.hexdigest()[:32]

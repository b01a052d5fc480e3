"""The states that a frozen backbone gives, computed once a row and kept on disk.

A frozen backbone says the same of a row in every epoch and in every run over the same model. The file is named by what the states depend on
(the model's files, its depth and number format, the token ids), so that a stale one is never read; it is read through a memory map, so that
a million rows need no memory.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from fenlei.artifact import saving, whole_file
from fenlei.inference.scoring import BATCH_TOKENS
from fenlei.models.head import HeadMethod
from fenlei.text.batches import by_token_budget, collate
from fenlei.text.prompts import EncodedTexts


def cache_folder() -> Path:
    """`fenlei/vectors` in the user's cache; XDG_CACHE_HOME moves it. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fenlei" / "vectors"


def cached_vectors(method: HeadMethod, base: Path, encoded: EncodedTexts) -> np.ndarray:
    """What the head reads of every row, float32 (rows, hidden), memory-mapped; computed where it is not there yet."""
    path = cache_folder() / f"{_key(method, base, encoded)}.npy"
    if not path.exists():
        with whole_file(path) as temporary, saving(path):
            _compute(method, encoded, temporary)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


@torch.inference_mode()
def _compute(method: HeadMethod, encoded: EncodedTexts, path: Path) -> None:
    method.eval()
    vectors: np.memmap | None = None
    for rows in by_token_budget(encoded.lengths, range(len(encoded)), BATCH_TOKENS):
        pooled = method.pool(collate(encoded, rows, method.pad_id)).cpu().numpy()
        if vectors is None:
            vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(encoded), pooled.shape[1]))
        vectors[rows] = pooled
    assert vectors is not None
    vectors.flush()


def _key(method: HeadMethod, base: Path, encoded: EncodedTexts) -> str:
    digest = hashlib.sha256()
    digest.update((base / "config.json").read_bytes())
    for file in sorted(base.glob("*.safetensors")):
        state = file.resolve().stat()
        # Size and time stand for the content: hashing gigabytes would cost what the cache saves on few rows.
        digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}".encode())
    backbone = method.stock.base_model
    digest.update(f"{next(backbone.parameters()).dtype} {method.stock.config.num_hidden_layers}".encode())
    digest.update(encoded.ids.tobytes())
    digest.update(encoded.starts.tobytes())
    return digest.hexdigest()[:32]

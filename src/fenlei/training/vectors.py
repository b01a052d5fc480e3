"""The states of a frozen backbone that its head reads, computed once a row (once a window of a long text) and kept on disk.

A frozen backbone says the same of a row in every epoch and in every run over the same model. A file is named by what the states depend on
(the model's weights, its depth and number format, the code that computes them, the rows' token ids), so that a stale one is never read; it
is read through a memory map, so that a million rows need no memory. Beside it lie the names of its rows: other rows over the same model
take from it what they share with it. The cache never takes more than MOST_BYTES: what was not used for longest goes first.

While a file is computed its rows are named piece by piece, so that a run that is ended leaves what it has done to the next: as a file of
other rows that share some. Processes may compute the same at once; the first to finish is read by all that come after.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
import torch
import transformers

from fenlei.artifact import fingerprint, give_name, write_bytes
from fenlei.errors import ArtifactError
from fenlei.inference.scoring import Scores, one_behind
from fenlei.models.devices import tokens_at_once
from fenlei.models.fingerprint import weights_digest
from fenlei.models.head import POOLED_BY, HeadMethod
from fenlei.models.passages import frozen_states
from fenlei.models.quantized import Int8Linear
from fenlei.text.batches import by_token_budget, collate
from fenlei.text.encoded import EncodedTexts, as_windows, in_groups

MOST_BYTES = 10 * 2**30
"""Of all files in the cache together: 2.8 million rows of a model with 896 hidden units."""

ABANDONED_AFTER = 3 * 24 * 3600.0
"""Seconds after which a half-written file belongs to no run any more, and nobody has come to go on with it."""

PARTIAL = ".partial"
"""Ending of a file that is being computed."""

PIECE_SECONDS = 60.0
"""A run that is ended loses no more work than that, whether its machine does ten rows a second or ten thousand."""

SCORED_ROWS = 4096
"""Rows, or windows of long texts, whose states are in memory together."""

NAME = np.dtype("S16")
"""Of a row: a digest of its token ids."""

Shared = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, the states of another file, and their places in it."""

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`fenlei/vectors` in the user's cache; XDG_CACHE_HOME moves it. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fenlei" / "vectors"


def can_be_kept(method: HeadMethod, encoded: EncodedTexts) -> bool:
    """Whether a backbone's states are all that the head reads of it, so that it need not run again; two of the rows are read to see."""
    inputs = encoded if encoded.windows is None else as_windows(encoded, range(min(2, len(encoded))))
    return method.reads_pooled(collate(inputs, range(min(2, len(inputs))), method.pad_id))


def cached_vectors(method: HeadMethod, base: Path, encoded: EncodedTexts) -> np.ndarray:
    """What the head reads of every row (of every window, where rows are read in such), float32 (rows, hidden), memory-mapped.

    Computed where it is not there yet. ArtifactError where there is no room for it on disk.
    """
    inputs = encoded if encoded.windows is None else as_windows(encoded, range(len(encoded)))
    network, rows = _network_name(method, base), _row_names(inputs)
    name = f"{network}-{hashlib.sha256(rows.tobytes()).hexdigest()[:32]}.npy"
    cache = _usable_cache()
    if cache is None:
        # The map outlives the file's name: what is mapped is given back when the run ends.
        with tempfile.TemporaryDirectory(prefix="fenlei-vectors-", ignore_cleanup_errors=True) as folder:
            return _computed(method, inputs, rows, Path(folder) / name, [])
    try:
        os.utime(cache / name)  # used now: removed last
        return _mapped(cache / name)
    except FileNotFoundError:
        return _computed(method, inputs, rows, cache / name, _shared(cache, network, rows))


def score_frozen(method: HeadMethod, base: Path, encoded: EncodedTexts, n_labels: int, *, keep_states: bool = False) -> Scores:
    """What `score` gives, from cached states; `method` has the backbone of `base` as it is, and its states `can_be_kept`."""
    return score_vectors(method, cached_vectors(method, base, encoded), encoded, n_labels, keep_states=keep_states)


def score_vectors(method: HeadMethod, vectors: np.ndarray, encoded: EncodedTexts, n_labels: int, *, keep_states: bool = False) -> Scores:
    """What `score` gives, from what `cached_vectors` has given of the same rows."""
    logits = np.zeros((len(encoded), n_labels), dtype=np.float32)
    pooled: np.ndarray | None = None
    weights: list[np.ndarray] = []
    with torch.inference_mode():
        for rows in in_groups(encoded, SCORED_ROWS):
            output = method(frozen_states(vectors, encoded, rows))
            logits[rows] = output.logits.cpu().numpy()
            if keep_states and output.pooled is not None:
                pooled = np.zeros((len(encoded), vectors.shape[1]), dtype=np.float32) if pooled is None else pooled
                pooled[rows] = output.pooled.cpu().numpy()
            weights += [] if output.weights is None else [output.weights.cpu().numpy()]
    weighed = np.concatenate(weights) if weights else None
    return Scores(logits, encoded.tokens_cut, pooled, encoded.lengths, encoded.windows, weighed)


def joined_states(method: HeadMethod, vectors: np.ndarray, encoded: EncodedTexts, rows: np.ndarray) -> np.ndarray:
    """What a decoder's head reads of some rows, which rise, float32 (rows, hidden): their vectors, or those of their windows joined."""
    joined = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    with torch.inference_mode():
        for group in in_groups(encoded, SCORED_ROWS):
            few = slice(*np.searchsorted(rows, (group.start, group.stop)))
            if few.start == few.stop:  # none of the rows: texts without labels stand behind the others
                continue
            output = method(frozen_states(vectors, encoded, rows[few].tolist()))
            joined[few] = cast(torch.Tensor, output.pooled).cpu().numpy()
    return joined


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


def _computed(method: HeadMethod, encoded: EncodedTexts, names: np.ndarray, path: Path, shared: list[Shared]) -> np.ndarray:
    """The states of all rows, which have these names, in a file `path`. What is done when it is ended stays beside it, for `_shared`."""
    partial = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{PARTIAL}")
    try:
        for done in _compute(method, encoded, partial, shared):
            write_bytes(_names_file(partial), np.where(done, names, b"").tobytes())
    finally:
        if not _names_file(partial).exists():  # ended before the first piece was done
            partial.unlink(missing_ok=True)
    _give_name(partial, path)
    return _mapped(path)


def _give_name(partial: Path, path: Path) -> None:
    """Makes `path` of the file that is whole now; of two processes that have computed the same, the second finds it done."""
    try:
        give_name(partial, path)
        give_name(_names_file(partial), _names_file(path))
    except ArtifactError:  # the first has removed ours, or Windows lets nobody replace what it has mapped
        if not path.exists():
            raise
    for unfinished in path.parent.glob(f".{path.stem}-*"):  # those of runs that were ended, or are about to find it done
        _remove(unfinished)


def _remove(path: Path) -> None:
    with suppress(PermissionError):  # Windows keeps what another process has mapped
        path.unlink(missing_ok=True)


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _compute(method: HeadMethod, encoded: EncodedTexts, path: Path, shared: list[Shared]) -> Iterator[np.ndarray]:
    """Writes the states of all rows; after each piece, when it is on the disk, the rows that are done, bool (rows,)."""
    method.eval()
    vectors = _reserved(path, (len(encoded), method.stock.config.get_text_config().hidden_size))
    done = np.zeros(len(encoded), dtype=bool)
    for own, stored, places in shared:
        for first in range(0, len(own), SCORED_ROWS):
            few = slice(first, first + SCORED_ROWS)
            vectors[own[few]] = stored[places[few]]
        done[own] = True
    began = time.monotonic()
    for rows, states in one_behind(_pooled(method, encoded, np.flatnonzero(~done))):
        vectors[rows] = states.cpu().numpy()
        done[rows] = True
        if time.monotonic() - began >= PIECE_SECONDS:
            vectors.flush()
            yield done
            began = time.monotonic()
    vectors.flush()
    yield done


def _pooled(method: HeadMethod, encoded: EncodedTexts, missing: np.ndarray) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The rows `missing` in groups, each with its states."""
    for rows in by_token_budget(encoded.lengths, missing.tolist(), tokens_at_once(method.device)):
        with torch.inference_mode():
            states = method.pool(collate(encoded, rows, method.pad_id))
        yield rows, states


def _shared(cache: Path, network: str, rows: np.ndarray) -> list[Shared]:
    """What other files of the same network say of these rows, whole ones and those that were never finished."""
    found: list[Shared] = []
    wanted = np.arange(len(rows))
    for path in (*cache.glob(f"{network}-*.npy"), *cache.glob(f".{network}-*{PARTIAL}")):
        try:
            names, stored = np.fromfile(_names_file(path), dtype=NAME), _mapped(path)
        except (FileNotFoundError, ValueError):  # removed by another process, or half of a pair
            continue
        if len(names) != len(stored) or not len(names):
            continue
        order = np.argsort(names, kind="stable")
        places = order[np.searchsorted(names, rows[wanted], sorter=order).clip(max=len(names) - 1)]
        hit = names[places] == rows[wanted]
        found.append((wanted[hit], stored, places[hit]))
        wanted = wanted[~hit]
    return found


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
    """Removes files, the longest unused first, until the others take at most `most` bytes; a map of a removed file stays readable.

    Files that are being computed count, and stay.
    """
    now = time.time()
    hidden, kept = _by_use(cache, ".*"), _by_use(cache, "[!.]*.npy")
    removed = [path for path, told in hidden if now - told.st_mtime > ABANDONED_AFTER]
    taken = sum(told.st_size for path, told in hidden if path.suffix == PARTIAL and path not in removed)
    taken += sum(told.st_size for _, told in kept)
    for path, told in kept:
        if taken <= most:
            break
        removed += [path, _names_file(path)]
        taken -= told.st_size
    for path in removed:
        _remove(path)


def _by_use(cache: Path, pattern: str) -> list[tuple[Path, os.stat_result]]:
    """The files of a pattern with what is known of each, the longest unused first; another process may have removed some meanwhile."""
    found = []
    for path in cache.glob(pattern):
        with suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return sorted(found, key=lambda one: one[1].st_mtime)


def _network_name(method: HeadMethod, base: Path) -> str:
    backbone = method.stock.base_model
    files = f"{fingerprint(base / 'config.json')} {weights_digest(base)}"
    loaded = f"{next(backbone.parameters()).dtype} {method.stock.config.get_text_config().num_hidden_layers}"
    if any(isinstance(module, Int8Linear) for module in backbone.modules()):
        loaded += " int8"
    code = f"{transformers.__version__} {POOLED_BY}"
    return hashlib.sha256(f"{files} {loaded} {code}".encode()).hexdigest()[:32]


def _row_names(encoded: EncodedTexts) -> np.ndarray:
    """What the backbone is given of each row, as 16 bytes, (rows,)."""
    arrays = [encoded.ids] if encoded.token_types is None else [encoded.ids, encoded.token_types]

    def name(row: int) -> bytes:
        own = slice(encoded.starts[row], encoded.starts[row + 1])
        return hashlib.blake2b(b"".join(array[own].tobytes() for array in arrays), digest_size=16).digest()

    return np.fromiter(map(name, range(len(encoded))), dtype=NAME, count=len(encoded))


def _names_file(path: Path) -> Path:
    return path.with_suffix(".rows")

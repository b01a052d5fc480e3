"""Nobody else at it meanwhile: a lock that goes with its process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from fenlei.errors import FenleiError


@contextmanager
def alone_at(lock: Path, taken: FenleiError) -> Iterator[None]:
    """Raises `taken` where somebody else is in a block with the same `lock`. It is gone with its process, however that ends: a file that a
    killed one left holds nobody back. Where there can be no lock, as on some file systems, the block runs without.
    """
    made = [folder for folder in lock.parents if not os.path.exists(folder)]
    try:
        with _opened(lock) or nullcontext() as file:
            if file is not None and not _is_ours(file, lock):
                raise taken
            try:
                yield
            finally:  # while the file is open: once it is closed, another may hold it
                with suppress(OSError):
                    lock.unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # one that is not empty, and those above it
            for folder in made:
                folder.rmdir()


def _opened(lock: Path) -> BinaryIO | None:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("ab")
    except OSError:  # what is to be written there says it in its own words
        return None


def _is_ours(file: BinaryIO, lock: Path) -> bool:
    """Whether nobody else holds the lock, and nobody removed its file after it was opened here."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    except (BlockingIOError, PermissionError, FileNotFoundError):  # PermissionError: how Windows says it
        return False
    except OSError:  # a file system without locks
        return True

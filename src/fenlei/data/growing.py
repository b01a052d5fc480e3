"""A file of JSON lines that is still being written: its lines as they come, for ever."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fenlei.data.encodings import STDIN, open_bytes
from fenlei.errors import DataError

POLL_SECONDS = 0.5
SUFFIXES = (".jsonl", ".ndjson")


class GrowingFile:
    """Gives whole lines only: one without its line end is still being written. `waiting` is called before each pause."""

    def __init__(self, path: Path, file: BinaryIO, waiting: Callable[[], None]) -> None:
        self._path = path
        self._file = file
        self._waiting = waiting
        self._begun = b""

    def readline(self, size: int, /) -> bytes:
        """The next line, waited for; DataError where the file was cut or another took its name."""
        while True:
            self._begun += self._file.readline(size - len(self._begun))
            if self._begun.endswith(b"\n") or len(self._begun) >= size:
                line, self._begun = self._begun, b""
                return line
            self._waiting()
            self._check_same()
            time.sleep(POLL_SECONDS)

    def _check_same(self) -> None:
        try:
            now, opened = self._path.stat(), os.fstat(self._file.fileno())
        except OSError as error:
            raise DataError(f"{self._path}: cannot be followed any more ({error.strerror}); start again when it is back") from error
        if not os.path.samestat(now, opened) or now.st_size < self._file.tell():
            raise DataError(f"{self._path}: was cut or replaced while it was followed; start again, with another --out")


@contextmanager
def open_growing(path: str | Path, waiting: Callable[[], None]) -> Iterator[GrowingFile]:
    """DataError where the file is none of JSON lines: other formats show what they are by more than their first line."""
    if str(path) == STDIN or Path(path).suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: only files of JSON lines ({', '.join(SUFFIXES)}) can be followed while they grow; leave --follow out")
    with open_bytes(path) as file:
        if not isinstance(getattr(file, "raw", None), io.FileIO):
            raise DataError(f"{path}: a packed file cannot be followed while it grows; leave --follow out")
        yield GrowingFile(Path(path), file, waiting)

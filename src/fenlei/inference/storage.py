"""Files where several machines reach them: local paths, or URLs such as s3://bucket/rows, through fsspec."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fenlei.artifact import write_bytes
from fenlei.data.formats import SUFFIXES, suffix_of
from fenlei.data.label_file import CLASS_FILES
from fenlei.errors import ConfigError, DataError, first_line


def is_url(path: str | Path) -> bool:
    """Whether it names a place through fsspec, not in this machine's own tree."""
    return "://" in str(path)


def absolute(path: str) -> str:
    """The same wherever it is opened: a worker of a cluster is in another folder than the command."""
    return path if is_url(path) else os.path.abspath(path)


def inside(folder: str, name: str) -> str:
    """The path of `name` in `folder`."""
    return f"{folder.rstrip('/')}/{name}"


def row_files(source: str) -> tuple[str, ...]:
    """The files of rows that `source` names, in the order of their names: those of a folder, those a pattern fits, or the one file.

    DataError where there are none. Names that begin with `_` or `.` are not rows, nor are rejected ones and class files.
    """
    system, path = _place(source)
    with _failing(source):
        if system.isdir(path):
            found = [str(one) for one in system.ls(path, detail=False) if _holds_rows(str(one)) and system.isfile(one)]
        elif any(mark in path for mark in "*?[") and not system.isfile(path):  # a file may be called `news[1].jsonl`
            found = [str(one) for one in system.glob(path) if _holds_rows(str(one))]
        else:
            return (source,)
    if not found:
        raise DataError(f"{source}: no files of rows there ({', '.join(SUFFIXES)}, also with .gz)")
    return tuple(system.unstrip_protocol(one) if is_url(source) else one for one in sorted(found))


def is_folder(path: str) -> bool:
    """Whether it is one, or is meant as one: it ends in a slash."""
    system, place = _place(path)
    with _failing(path):
        return path.endswith("/") or bool(system.isdir(place))


@contextmanager
def local_file(path: str) -> Iterator[Path]:
    """The file on this machine: itself, or of a URL a copy of the same name, which is removed again."""
    if not is_url(path):
        yield Path(path)
        return
    system, place = _place(path)
    with tempfile.TemporaryDirectory(prefix="fenlei-rows-") as folder:
        copy = Path(folder) / place.rpartition("/")[2]
        with _failing(path):
            system.get_file(place, str(copy))
        yield copy


def write_whole(path: str, content: bytes) -> None:
    """The file with that content, under its name when it is whole."""
    if not is_url(path):
        write_bytes(Path(path), content, DataError)
        return
    system, place = _place(path)
    with _failing(path):
        system.makedirs(system._parent(place), exist_ok=True)
        system.pipe_file(place, content)


def read_if_there(path: str) -> bytes | None:
    """What the file holds; None where there is none."""
    system, place = _place(path)
    try:
        with _failing(path):
            return bytes(system.cat_file(place))
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def remove(path: str) -> None:
    """Removes the file, if it is there."""
    system, place = _place(path)
    with _failing(path):
        if system.exists(place):
            system.rm_file(place)


def known_as(path: str) -> dict[str, Any]:
    """What a file is recognised by when its prediction is gone on with: name, size, and when or as what it was last written."""
    system, place = _place(path)
    with _failing(path):
        told = system.info(place)
    version = next((str(told[key]) for key in ("ETag", "etag", "LastModified", "mtime") if told.get(key) is not None), None)
    return {"name": path, "bytes": told.get("size"), "version": version}


def _holds_rows(path: str) -> bool:
    name = path.rpartition("/")[2]
    is_other = name.startswith(("_", ".")) or name.endswith(".rejected.jsonl") or name in CLASS_FILES
    return suffix_of(name) in SUFFIXES and not is_other


def _place(path: str) -> tuple[Any, str]:
    """The file system of a path, and the path in it; ConfigError where its kind is not known here."""
    from fsspec.core import url_to_fs

    try:
        system, place = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be reached: {first_line(error)}") from error
    return system, place


@contextmanager
def _failing(path: str) -> Iterator[None]:
    """Turns a failed access into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}") from error

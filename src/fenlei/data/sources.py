"""What a user calls his data to the files of its parts: a file, a pattern, a folder, or a data set on a hub."""

from __future__ import annotations

import re
from glob import glob
from pathlib import Path
from typing import Literal

from fenlei.data.encodings import is_like_url
from fenlei.data.folders import SplitFiles, check_whole, find_held_out, find_split_files
from fenlei.data.remote import is_remote, remote_files, remote_part
from fenlei.errors import DataError

_PATTERN = re.compile(r"[*?[]")


def split_files(data: str | Path) -> SplitFiles:
    """The files to train on, and those of dev and test where the data brings them. DataError where it is not what it should be."""
    if is_remote(data):
        return remote_files(str(data))
    return find_split_files(data) if Path(data).is_dir() else SplitFiles((Path(data),), (), ())


def part_files(data: str | Path, role: Literal["dev", "test"]) -> tuple[Path, ...]:
    """The files of one part that was named by itself: of a data set on a hub the split, else the file, or those that a pattern matches.

    DataError where it has none, or lacks some of its shards.
    """
    if not is_remote(data):
        return tuple(map(Path, _named_files(data)))
    files, _ = remote_part(str(data), role)
    check_whole(files)
    return files


def measured_files(data: str | Path, *roles: Literal["dev", "test"]) -> tuple[tuple[str | Path, ...], bool]:
    """The files to measure or predict, and whether they are dev files: `data` itself, all files that it matches where it is a pattern, or
    of what has several parts that of the first of the roles (default: test, then dev) which has any.

    DataError where there are none, or a part lacks some of its shards.
    """
    roles = roles or ("test", "dev")
    if is_remote(data):
        chosen, role = remote_part(str(data), *roles)
    elif Path(data).is_dir():
        parts = dict(zip(("test", "dev"), find_held_out(data), strict=True))
        role = next((one for one in roles if parts[one]), roles[0])
        chosen = parts[role]
    else:
        return _named_files(data), False
    if not chosen:
        raise DataError(f"{data}: expected a {' or '.join(roles)} file in it, found none; name the file")
    check_whole(chosen)
    return chosen, role == "dev"


def one_file(data: str | Path) -> tuple[str | Path, bool]:
    """As `measured_files`, for who takes one file: DataError where there are several."""
    files, is_dev = measured_files(data)
    if len(files) != 1:
        named = ", ".join(Path(file).name for file in files)
        raise DataError(f"{data}: expected one test or dev file in it, found {len(files)}, {named}; name the file, or the split")
    return files[0], is_dev


def _named_files(data: str | Path) -> tuple[str | Path, ...]:
    """`data` itself, or all files that it matches, where it is a pattern such as `test-*.parquet` and no file is called so."""
    if not _PATTERN.search(str(data)) or Path(data).exists() or is_like_url(data):
        return (data,)
    found = tuple(path for path in map(Path, sorted(glob(str(data)))) if path.is_file())
    if not found:
        raise DataError(f"{data}: no file is called so, and none matches it as a pattern; correct it, or name the folder")
    check_whole(found)
    return found

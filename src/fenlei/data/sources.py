"""What a user calls his data to the files of its parts: a file, a folder, or a data set on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fenlei.data.folders import SplitFiles, find_split_files
from fenlei.data.remote import is_remote, remote_files, remote_part
from fenlei.errors import DataError


def split_files(data: str | Path) -> SplitFiles:
    """The files to train on, and those of dev and test where the data brings them. DataError where it is not what it should be."""
    if is_remote(data):
        return remote_files(str(data))
    return find_split_files(data) if Path(data).is_dir() else SplitFiles((Path(data),), (), ())


def part_files(data: str | Path, role: Literal["dev", "test"]) -> tuple[Path, ...]:
    """The files of one part that was named by itself: of a data set on a hub the split, else the file. DataError where it has none."""
    return remote_part(str(data), role)[0] if is_remote(data) else (Path(data),)


def one_file(data: str | Path) -> tuple[str | Path, bool]:
    """The file to measure or predict: `data` itself, or the test (else dev) file of what has several; and whether it is the dev file."""
    if is_remote(data):
        chosen, role = remote_part(str(data), "test", "dev")
    elif Path(data).is_dir():
        files = find_split_files(data)
        chosen, role = (files.test, "test") if files.test else (files.dev, "dev")
    else:
        return data, False
    if len(chosen) != 1:
        raise DataError(f"{data}: expected one test or dev file in it, found {len(chosen)}; name the file, or the split")
    return chosen[0], role == "dev"

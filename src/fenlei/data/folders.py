"""A folder of data to its train, dev and test files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fenlei.data.formats import SUFFIXES, suffix_of
from fenlei.errors import DataError, first_few

ROLES = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "test": "test"}
"""What data sets call their splits."""
SHARD_NUMBER = r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?"
"""What stands behind the name of a split that is cut into files; older versions of Hugging Face datasets put a fingerprint there too."""
_SHARD = re.compile(rf"(.+){SHARD_NUMBER}")


@dataclass(frozen=True)
class SplitFiles:
    """The files of each split; several only where one table is cut into numbered shards."""

    train: tuple[Path, ...]
    dev: tuple[Path, ...]
    test: tuple[Path, ...]


def find_split_files(folder: str | Path) -> SplitFiles:
    """The files called train, dev (val, valid, validation) and test in a folder, or in its subfolder `data`.

    `train.jsonl` goes before names that only contain the word, like `cnews.train.txt`. DataError where there is no train file, or
    more than one that could be meant.
    """
    found = {role: files_of_role(Path(folder), role) for role in ("train", "dev", "test")}
    if not found["train"] and (Path(folder) / "data").is_dir():
        return find_split_files(Path(folder) / "data")
    if not found["train"]:
        there = ", ".join(sorted(file.name for file in Path(folder).iterdir())[:12]) or "nothing"
        raise DataError(f"{folder}: expected a train file in the folder (train.jsonl, train.csv, train.txt, ...), found {there}")
    return SplitFiles(found["train"], found["dev"], found["test"])


def find_held_out(folder: str | Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The test files and the dev files of a folder, or of its subfolder `data`: what can be measured on, with or without a train file."""
    for place in (Path(folder), Path(folder) / "data"):
        if place.is_dir():
            test, dev = files_of_role(place, "test"), files_of_role(place, "dev")
            if test or dev:
                return test, dev
    return (), ()


def check_whole(files: Sequence[str | Path]) -> None:
    """DataError where numbered shards are there and others of their number are not: figures of a part would pass for those of all."""
    tables: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if part := _SHARD.fullmatch(Path(file).name.split(".")[0]):
            tables.setdefault((part[1], part[3]), set()).add(int(part[2]))
    for (name, of), there in tables.items():
        missing = [f"{name}-{number:05}-of-{of}" for number in range(int(of)) if number not in there]
        if missing:
            found = ", ".join(Path(file).name for file in files)
            raise DataError(
                f"{Path(files[0]).parent}: expected {int(of)} files of {name}, found {found}, without {first_few(missing)}; "
                "put them beside the others, or name one file to read it alone"
            )


def files_of_role(folder: Path, role: str) -> tuple[Path, ...]:
    """The files of one split in a folder, maybe none; DataError where more than one could be meant."""
    exact, loose = [], []
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file() or suffix_of(file) not in SUFFIXES:
            continue
        stem = file.name.lower().removesuffix(".gz").rsplit(".", 1)[0]
        if ROLES.get(stem) == role:
            exact.append(file)
        elif {ROLES[word] for word in re.split(r"[._-]", stem) if word in ROLES} == {role}:
            loose.append(file)
    files = exact or loose
    if len(files) > 1 and not _are_shards(files):
        names = ", ".join(file.name for file in files)
        raise DataError(f"{folder}: more than one file could be {role}: {names}; keep one, or name the file itself")
    return tuple(files)


def _are_shards(files: list[Path]) -> bool:
    """Whether the files are NAME-00000-of-N to NAME-(N-1)-of-N, all of them."""
    parts = [_SHARD.fullmatch(file.name.split(".")[0]) for file in files]
    numbers = [int(part[2]) for part in parts if part]
    one_table = len({(part[1], part[3]) for part in parts if part}) == 1
    return one_table and numbers == list(range(len(files))) and all(part and int(part[3]) == len(files) for part in parts)

"""Data sets on hubs: `hf:owner/name`, or with all there is to say `modelscope:owner/name@revision:subset/split`.

What is fetched are files of rows, which are then read like any others. Which of them make a split is said in the front matter of the
data set's README.md, else by their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from fenlei.config import Source
from fenlei.data.dataset_card import Subset, subsets_of
from fenlei.data.folders import ROLES, SHARD_NUMBER, SplitFiles, files_of_role, find_held_out, find_split_files
from fenlei.data.formats import SUFFIXES, suffix_of
from fenlei.data.label_file import CLASS_FILES
from fenlei.errors import DataError
from fenlei.hubs.fetch import NotFoundError, fetch
from fenlei.hubs.repository import PREFIXES, Repository, is_id, split_prefix

ABOUT = ("README.md", *CLASS_FILES)
"""What says which file is what and which class is which: small, and fetched first."""
ROWS = tuple(f"*{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz"))

FORM = "hf:OWNER/NAME[@REVISION][:SUBSET, :SPLIT or :SUBSET/SPLIT]"
_FORM = re.compile(r"([^@:]+)(?:@([^:]+))?(?::([^/:]+(?:/[^/:]+)?))?")


@dataclass(frozen=True)
class _Asked:
    """A data set, as the user named it."""

    given: str
    source: Source
    name: str
    revision: str | None
    parts: tuple[str, ...]
    """A subset and a split, or one of them, or neither."""


def is_remote(data: object) -> bool:
    """Whether `data` names a data set on a hub, and no file or folder."""
    if not isinstance(data, str) or "://" in data:  # `hf://...` is a URL, which fsspec opens
        return False
    return data.startswith(tuple(PREFIXES)) and not Path(data).exists()


def remote_files(data: str) -> SplitFiles:
    """The files of its splits train, dev and test, fetched where no cache has them; the split that was asked for, if one was, as `train`.

    DataError where no hub has the data set, or it has no such subset or split.
    """
    asked = _parse(data)
    splits, alone = _splits(asked)
    return SplitFiles(next(iter(splits.values())), (), ()) if alone else _by_role(asked, splits)


def remote_part(data: str, *roles: Literal["dev", "test"]) -> tuple[tuple[Path, ...], str]:
    """The split that was asked for, else that of the first of the roles which has one, and its role.

    DataError where none has, and as for `remote_files`.
    """
    asked = _parse(data)
    splits, alone = _splits(asked, needs_train=False)
    if alone:
        return next(iter(splits.values())), roles[0]
    found = _roles(asked, splits)
    for role in roles:
        if files := found.get(role):
            return files, role
    there = f"has no split called {' or '.join(roles)}, but {', '.join(splits)}"
    raise DataError(f"{asked.given}: {there}; name the one that is meant, after a colon")


def _parse(data: str) -> _Asked:
    source, rest = split_prefix(data)
    match = _FORM.fullmatch(rest)
    if source is None or match is None or not is_id(match[1]):
        raise DataError(f"{data}: expected a data set on a hub as {FORM}, or modelscope: in place of hf:")
    return _Asked(data, source, match[1], match[2], tuple((match[3] or "").split("/")) if match[3] else ())


def _splits(asked: _Asked, *, needs_train: bool = True) -> tuple[dict[str, tuple[Path, ...]], bool]:
    """The files of every split, or of the one that was asked for, and whether one was."""
    subsets = _subsets(asked)
    subset, parts = _choose(asked, subsets) if subsets else (Subset({}, "", True), asked.parts)
    if not subset.splits:
        folder = _fetch(asked, tuple(subset.folder + pattern for pattern in ROWS)) / subset.folder
        return _by_name(asked, folder, parts, needs_train)
    if parts and parts[0] not in subset.splits:
        raise DataError(f"{asked.given}: has no split {parts[0]!r}, but {', '.join(subset.splits)}")
    wanted = {name: patterns for name, patterns in subset.splits.items() if not parts or name == parts[0]}
    folder = _fetch(asked, tuple(pattern for patterns in wanted.values() for pattern in patterns))
    return {name: _matching(folder, patterns) for name, patterns in wanted.items()}, bool(parts)


def _subsets(asked: _Asked) -> dict[str, Subset]:
    """What the data set says of itself, which may be nothing; whether it is there at all shows when its rows are fetched."""
    try:
        return subsets_of(_fetch(asked, ABOUT, needed=False) / "README.md")
    except DataError:
        return {}


def _choose(asked: _Asked, subsets: Mapping[str, Subset]) -> tuple[Subset, tuple[str, ...]]:
    """The subset to read, and what was asked of it."""
    if asked.parts and asked.parts[0] in subsets:
        return subsets[asked.parts[0]], asked.parts[1:]
    if len(asked.parts) == 2:
        raise DataError(f"{asked.given}: has no subset {asked.parts[0]!r}, but {', '.join(subsets)}")
    default = [one for one in subsets.values() if one.is_default or len(subsets) == 1]
    if len(default) != 1:
        example = f"{':'.join(asked.given.split(':')[:2])}:{'/'.join([next(iter(subsets)), *asked.parts])}"
        raise DataError(f"{asked.given}: has several subsets, {', '.join(subsets)}; name one, as in {example}")
    return default[0], asked.parts


def _fetch(asked: _Asked, wanted: tuple[str, ...], *, needed: bool = True) -> Path:
    """The folder of the data set, with the files that match `wanted`; DataError where there is none, or (`needed`) no such file."""

    def missing(folder: Path) -> list[str]:
        return [] if not needed or _matching(folder, wanted) else [f"files of rows ({', '.join(wanted[:6])})"]

    try:
        return fetch(Repository(asked.name, "dataset", asked.revision, wanted), asked.source, missing)
    except NotFoundError as error:
        raise DataError(f"{asked.given}: the data set was not found. Tried:\n{error}") from error


def _matching(folder: Path, patterns: tuple[str, ...]) -> tuple[Path, ...]:
    """Files below the folder, `*` standing for a slash as well, as in what is fetched."""
    if not folder.is_dir():
        return ()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return tuple(path for name, path in files.items() if any(fnmatchcase(name, pattern) for pattern in patterns))


def _by_role(asked: _Asked, files: Mapping[str, tuple[Path, ...]]) -> SplitFiles:
    roles = _roles(asked, files)
    if "train" not in roles:
        raise DataError(f"{asked.given}: has no split called train, but {', '.join(files)}; name the one to train on, after a colon")
    return SplitFiles(roles["train"], roles.get("dev", ()), roles.get("test", ()))


def _roles(asked: _Asked, files: Mapping[str, tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    """The splits by what they are for, whatever the data set calls them."""
    roles: dict[str, tuple[Path, ...]] = {}
    for name, paths in files.items():
        role = ROLES.get(name.lower())
        if role is not None and role in roles:
            raise DataError(f"{asked.given}: more than one split could be {role}, among {', '.join(files)}; name them one by one")
        if role is not None:
            roles[role] = paths
    return roles


def _by_name(asked: _Asked, folder: Path, parts: tuple[str, ...], needs_train: bool) -> tuple[dict[str, tuple[Path, ...]], bool]:
    """As `_splits`, where nothing but names tells the files apart: a folder may be a subset."""
    if parts and (folder / parts[0]).is_dir():
        folder, parts = folder / parts[0], parts[1:]
    if not parts:
        found = _split_files(folder, needs_train)
        return {role: files for role in ("train", "dev", "test") if (files := getattr(found, role))}, False
    split = parts[-1]
    files = tuple(path for path in sorted(folder.rglob("*")) if path.is_file() and suffix_of(path) in SUFFIXES)
    chosen = tuple(path for path in files if re.match(rf"{re.escape(split)}({SHARD_NUMBER})?\.", path.name))
    chosen = chosen or _of_role(folder, split)
    if not chosen:
        raise DataError(f"{asked.given}: no file of split {split!r}, found {', '.join(path.name for path in files[:12])}")
    return {split: chosen}, True


def _split_files(folder: Path, needs_train: bool) -> SplitFiles:
    """Those of a folder; without a train file, unless one is needed, the others alone."""
    try:
        return find_split_files(folder)
    except DataError:
        test, dev = ((), ()) if needs_train else find_held_out(folder)
        if not (test or dev):
            raise
        return SplitFiles((), dev, test)


def _of_role(folder: Path, split: str) -> tuple[Path, ...]:
    """The files that would be this split if all were asked for, as `cnews.train.txt` would be train."""
    if (role := ROLES.get(split.lower())) is None:
        return ()
    places = (place for place in (folder, folder / "data") if place.is_dir())
    return next((found for place in places if (found := files_of_role(place, role))), ())

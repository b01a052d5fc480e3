"""Class names from a file: one a line, or YAML with a description and other names of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fenlei.config.yaml_text import parsed_yaml
from fenlei.data.encodings import open_bytes, read_lines, source_name
from fenlei.data.labelling import ONE_LABEL, Labelling
from fenlei.errors import ConfigError, DataError, shortened
from fenlei.labels import LabelNote, LabelSet, known_names_in

YAML_SUFFIXES = (".yaml", ".yml")
LABEL_FILES = ("class.txt", "classes.txt", "label.txt", "labels.txt")
CLASS_FILES = ("labels.yaml", "labels.yml", *LABEL_FILES)
"""Names of class files that are taken without being asked for, from the folder of the data."""
_COUNTS = {1: "one", 2: "two"}
_EXPECTED = "expected a list of names, or of entries with name, description and aliases"


def read_label_file(path: str | Path, *, least: int = 2) -> dict[str, LabelNote]:
    """The classes of a file in order, and what it says of each; the first is id 0. DataError for names that are blank, come twice, or are
    fewer than `least`.
    """
    if Path(path).suffix.lower() in YAML_SUFFIXES:
        return _from_yaml(path, least)
    return dict.fromkeys(_from_lines(path, least), LabelNote())


def named_as_in_rows(path: str | Path, labelling: Labelling, *, least: int = 2) -> dict[str, LabelNote]:
    """As `read_label_file`, each class under the name that rows have for it: `科技 ## 手机` is 科技##手机. DataError too for two that only
    blanks told apart.
    """
    notes = read_label_file(path, least=least)
    names = LabelSet(tuple(labelling.path(name, str(path)) for name in notes))
    return dict(zip(names, notes.values(), strict=True))


def is_label_file(path: str | Path) -> bool:
    """Whether a file is one of class names, by its name: YAML, or a name that class files usually have."""
    return Path(path).suffix.lower() in YAML_SUFFIXES or Path(path).name in LABEL_FILES


def read_class_file(path: str | Path) -> tuple[str, ...]:
    """The class names of a file, in order: the first is id 0. The same errors as `read_label_file`."""
    return tuple(read_label_file(path))


def given_labels(given: str, known: Collection[str] = (), labelling: Labelling = ONE_LABEL) -> dict[str, LabelNote]:
    """What is typed for labels, in order: a file of them, or names joined by commas, which a name of `known` may hold too. The same errors
    as `named_as_in_rows`; ConfigError for a single name that is not one of `known`: most likely that of a file that is not there.
    """
    if given.lower().endswith(YAML_SUFFIXES) or os.path.isfile(given):  # Path.is_file() fails on a list too long for a name
        return named_as_in_rows(given, labelling)
    names = dict.fromkeys((labelling.path(name, "labels") for name in known_names_in(given, known)), LabelNote())
    if not names or (len(names) == 1 and not names.keys() <= set(known)):
        raise ConfigError(
            f"expected at least two labels to choose among, found {len(names)}: {given}; join names by commas, or give a file of them"
        )
    return names


def _from_lines(path: str | Path, least: int) -> tuple[str, ...]:
    source = source_name(path)
    with open_bytes(path) as stream:
        lines = [line.strip() for _, line in read_lines(stream, source)]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < least:
        raise DataError(f"{source}: expected at least {_COUNTS[least]} class names, one a line, found {len(lines)}")
    first_line: dict[str, int] = {}
    for number, name in enumerate(lines, start=1):
        if not name:
            raise DataError(f"{source}:{number}: expected a class name, found a blank line, which would shift the ids below; remove it")
        if name in first_line:
            raise DataError(f"{source}:{number}: class {name!r} stands on line {first_line[name]} already; remove one of them")
        first_line[name] = number
    return tuple(lines)


def _from_yaml(path: str | Path, least: int) -> dict[str, LabelNote]:
    source = source_name(path)
    with open_bytes(path) as stream:
        text = "".join(line for _, line in read_lines(stream, source))
    try:
        loaded = parsed_yaml(text, whole_numbers=False)
    except ValueError as error:
        raise DataError(f"{source}: not readable as YAML: {error}") from error
    if isinstance(loaded, dict) and set(loaded) == {"labels"}:
        loaded = loaded["labels"]
    entries = [{"name": name, **_entry(note)} for name, note in loaded.items()] if isinstance(loaded, dict) else loaded
    if not isinstance(entries, list) or len(entries) < least:
        raise DataError(f"{source}: {_EXPECTED}, at least {_COUNTS[least]} of them; found {shortened(loaded)}")
    found: dict[str, LabelNote] = {}
    for place, entry in enumerate(entries, start=1):
        name, note = _label(entry, f"{source}, entry {place}")
        if name in found:
            raise DataError(f"{source}, entry {place}: class {name!r} comes twice; remove one of them")
        found[name] = note
    return found


def _entry(note: Any) -> Mapping[str, Any]:
    """`name: description` and `name:` alone, as well as `name: {description, aliases}`."""
    return note if isinstance(note, dict) else {"description": note or ""}


def _label(entry: Any, where: str) -> tuple[str, LabelNote]:
    entry = entry if isinstance(entry, dict) else {"name": entry}
    unknown = sorted(str(key) for key in entry.keys() - {"name", "description", "aliases"})
    if unknown:
        raise DataError(f"{where}: {_EXPECTED}, found {unknown[0]!r}")
    name, aliases = _text(entry.get("name"), "name", where), entry.get("aliases") or []
    if not name:
        raise DataError(f"{where}: the name is missing; {_EXPECTED}")
    aliases = [aliases] if isinstance(aliases, str) else aliases
    if not isinstance(aliases, list):
        raise DataError(f"{where}: expected aliases as a list of names, found {shortened(aliases)}")
    return name, LabelNote(_text(entry.get("description"), "description", where), tuple(_text(one, "aliases", where) for one in aliases))


def _text(value: Any, key: str, where: str) -> str:
    """YAML reads yes as a truth and 3.10 as a number, which no longer tell how they were spelt."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    raise DataError(f"{where}: expected {key} to be a text, found {shortened(value)}; put it in quotes")

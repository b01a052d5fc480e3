"""The label set: ordered names and their ids. The only owner of label order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fenlei.errors import DataError, first_few

COMMAS = re.compile("[,，、]")
"""What joins names in one text, as it is typed in English and in Chinese."""


def names_in(text: str) -> list[str]:
    """The names that commas join in `text`, in order."""
    return [name for part in COMMAS.split(text) if (name := part.strip())]


def known_names_in(text: str, known: Collection[str]) -> list[str]:
    """As `names_in`, but that commas within a name of `known` join nothing: the longest such name that stands between commas is taken."""
    parts = re.split(f"({COMMAS.pattern})", text)  # names and commas in turn
    longest = 1 + 2 * max((len(COMMAS.findall(name)) for name in known), default=0)  # in parts; of thousands of names few need trying
    found, at = [], 0
    while at < len(parts):
        ends = range(min(at + longest, len(parts)), at, -2)
        until = next((end for end in ends if "".join(parts[at:end]).strip() in known), at + 1)
        found.append("".join(parts[at:until]).strip())
        at = until + 1
    return [name for name in found if name]


@dataclass(frozen=True)
class LabelNote:
    """What is known of a label besides its name; a model that reads the names reads it too."""

    description: str = ""
    aliases: tuple[str, ...] = ()


def noted(notes: Mapping[str, LabelNote | str]) -> dict[str, LabelNote]:
    """The notes, a text being the description."""
    return {name: LabelNote(note) if isinstance(note, str) else note for name, note in notes.items()}


@dataclass(frozen=True)
class LabelSet:
    """Distinct label names; the id of a name is its place."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        duplicates = sorted({name for name in self.names if self.names.count(name) > 1}) if self._has_duplicates() else []
        if duplicates:
            raise DataError(f"label names must be distinct, but these come twice: {', '.join(duplicates)}")
        if any(not name for name in self.names):
            raise DataError("a label name is empty; give every class a name")

    @classmethod
    def in_order_of_appearance(cls, labels: Iterable[str]) -> LabelSet:
        return cls(tuple(dict.fromkeys(labels)))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def name(self, label_id: int) -> str:
        return self.names[label_id]

    def id(self, name: str) -> int:
        """The id of `name`; DataError with the nearest known name where there is none."""
        try:
            return self._ids[name]
        except KeyError:
            raise DataError(self.unknown(name)) from None

    def ids(self, names: Sequence[str]) -> list[int]:
        return [self.id(name) for name in names]

    def unknown(self, name: str) -> str:
        """The message for a name outside the set: what is known, and what may have been meant."""
        shown = first_few([repr(known) for known in self.names])
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.6)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"label {name!r} is not one of {shown}{hint}"

    def _has_duplicates(self) -> bool:
        return len(set(self.names)) < len(self.names)

    @property
    def _ids(self) -> dict[str, int]:
        ids: dict[str, int] | None = self.__dict__.get("_ids_by_name")
        if ids is None:
            ids = {name: place for place, name in enumerate(self.names)}
            object.__setattr__(self, "_ids_by_name", ids)
        return ids

"""Labels that lie below one another: their names are paths, as 科技##手机 below 科技."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fenlei.errors import DataError
from fenlei.labels import LabelSet

USUAL_SEPARATORS = ("##", "/", ">")


@dataclass(frozen=True)
class Hierarchy:
    """Names as paths, their steps joined by `separator`."""

    separator: str

    def path(self, name: str, where: str) -> str:
        """A name without the blanks around its steps; DataError where a step has no name."""
        steps = [step.strip() for step in name.split(self.separator)]
        if "" in steps:
            raise DataError(
                f"{where}: label {name!r} has a level without a name beside {self.separator!r}; name every level, or remove the separator"
            )
        return self.separator.join(steps)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """What a label lies below, the topmost first: none for a label of the first level."""
        steps = name.split(self.separator)
        return tuple(self.separator.join(steps[:length]) for length in range(1, len(steps)))

    def closed(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, and after them those of their ancestors that are not among them."""
        given = tuple(names)
        return tuple(dict.fromkeys([*given, *(above for name in given for above in self.ancestors(name))]))

    def ancestor_ids(self, labels: LabelSet) -> tuple[tuple[int, ...], ...]:
        """For each label the ids of its ancestors, of those that are labels themselves."""
        return tuple(tuple(labels.ids([one for one in self.ancestors(name) if one in labels])) for name in labels)

    def level(self, name: str) -> int:
        """How many steps lead to a label: 1 for one of the first level."""
        return name.count(self.separator) + 1

    def at_level(self, name: str, level: int) -> str:
        """The ancestor of a label at a level; the label itself where it does not reach below."""
        return self.separator.join(name.split(self.separator)[:level])

    def levels(self, names: Iterable[str]) -> int:
        """How deep the deepest label lies."""
        return max((self.level(name) for name in names), default=0)


def usual_separator(names: Iterable[str]) -> str | None:
    """What seems to join the levels of names, where nothing was said of it: most names have it, and some lie below the same one."""
    given = tuple(names)
    for separator in USUAL_SEPARATORS:
        paths = [steps for steps in (name.split(separator) for name in given) if len(steps) > 1 and all(step.strip() for step in steps)]
        if 2 * len(paths) > len(given) and len({steps[0].strip() for steps in paths}) < len(paths):
            return separator
    return None

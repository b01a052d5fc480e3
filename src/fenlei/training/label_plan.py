"""Which labels a run is to have, out of those it has: renamed, merged, dropped. Nothing is changed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fenlei.errors import ConfigError
from fenlei.labels import LabelSet


@dataclass(frozen=True)
class LabelPlan:
    """The labels to be, in the order of those they are made of."""

    names: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]
    """For each label the ids that it has now; several where they are merged."""

    @property
    def only_names(self) -> bool:
        """Whether nothing but names changes."""
        return self.parts == tuple((at,) for at in range(len(self.parts)))

    def new_id(self, old: int) -> int | None:
        """Where a label of now will be; None where it is dropped."""
        return next((at for at, part in enumerate(self.parts) if old in part), None)


def plan_labels(known: LabelSet, rename: Mapping[str, str], merge: Mapping[str, Sequence[str]], drop: Sequence[str]) -> LabelPlan:
    """`rename`: old name to new; `merge`: new name to old ones.

    ConfigError for names that are unknown, come twice, or leave nothing to tell apart.
    """
    merged = [name for part in merge.values() for name in part]
    _check_named(known, {"rename": list(rename), "merge": merged, "drop": list(drop)})
    lonely = next((new for new, part in merge.items() if len(part) < 2), None)
    if lonely is not None:
        raise ConfigError(f"merge: {lonely!r} would be made of one label, which is renaming; give two or more")
    gone = {*merged, *drop}
    found: dict[int, tuple[str, tuple[int, ...]]]
    found = {at: (rename.get(name, name), (at,)) for at, name in enumerate(known) if name not in gone}
    for new, part in merge.items():
        ids = tuple(sorted(known.ids(part)))
        found[ids[0]] = (new, ids)
    ordered = [found[at] for at in sorted(found)]
    names = tuple(name for name, _ in ordered)
    _check_left(names, known)
    return LabelPlan(names, tuple(part for _, part in ordered))


def _check_named(known: LabelSet, named: Mapping[str, Sequence[str]]) -> None:
    everything = [name for names in named.values() for name in names]
    if not everything:
        raise ConfigError("nothing to change: give rename, merge or drop")
    for what, names in named.items():
        for name in names:
            if name not in known:
                raise ConfigError(f"{what}: {known.unknown(name)}")
    twice = next((name for name, count in Counter(everything).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice!r} is named twice among what is renamed, merged and dropped; name each label once")


def _check_left(names: Sequence[str], known: LabelSet) -> None:
    clash = next((name for name, count in Counter(names).items() if count > 1), None)
    if clash is not None:
        raise ConfigError(f"two labels would be called {clash!r}; merge them to add their probabilities, or choose another name")
    if "" in names:
        raise ConfigError("a label would have no name; give it one")
    if len(names) < 2:
        raise ConfigError(f"only {len(names)} of {len(known)} labels would be left, and there would be nothing to tell apart")

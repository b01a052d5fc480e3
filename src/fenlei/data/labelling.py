"""How the labels of a row are written: one, or any number of them, as a list or joined in one string."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fenlei.data.examples import Example
from fenlei.errors import DataError, shortened
from fenlei.hierarchy import Hierarchy
from fenlei.labels import LabelSet

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Labelling:
    """What is known of the labels of a file besides their names."""

    multi_label: bool = False
    """Whether a row has any number of labels, none included; else it has one."""
    separator: str | None = None
    """Multi-label: what joins a row's labels where they stand in one string."""
    hierarchy: Hierarchy | None = None
    """Where names are paths. Multi-label rows then have the ancestors of their labels too."""

    @property
    def problem_type(self) -> str:
        """As transformers and vLLM call it."""
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    def to_json(self) -> dict[str, Any]:
        """The keys of fenlei.json."""
        level = None if self.hierarchy is None else self.hierarchy.separator
        return {"problem_type": self.problem_type, "label_separator": self.separator, "level_separator": level}

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> Labelling:
        """From what `to_json` gave; runs of an older fenlei have one label a row."""
        level = manifest.get("level_separator")
        multi_label = manifest.get("problem_type") == "multi_label_classification"
        return cls(multi_label, manifest.get("label_separator"), None if level is None else Hierarchy(level))

    def split(self, value: Any, column: str, where: str) -> list[Any]:
        """The labels that the cell of a row holds, as they stand there. DataError where it holds no list, nor a string to be split."""
        value = listed(value)
        if isinstance(value, (list, tuple)):
            return [one for one in value if not (isinstance(one, str) and not one.strip())]
        if isinstance(value, str) and self.separator is not None:
            return [one for part in value.split(self.separator) if (one := part.strip())]
        found = shortened(value)
        cure = "name what joins its labels with --label-separator" if isinstance(value, str) else "write [] for a row without labels"
        raise DataError(f"{where}: expected a list of labels in column {column!r} (multi-label), found {found}; write a list, or {cure}")

    def path(self, name: str, where: str) -> str:
        """A label as it is called wherever it is read: `科技 ## 手机` is 科技##手机. DataError where a level has no name."""
        return name if self.hierarchy is None else self.hierarchy.path(name, where)

    def completed(self, names: Sequence[str]) -> tuple[str, ...]:
        """Labels, each once; multi-label: with their ancestors."""
        return self.hierarchy.closed(names) if self.hierarchy is not None and self.multi_label else tuple(dict.fromkeys(names))

    def offered(self, candidates: Sequence[str], where: str) -> tuple[str, ...]:
        """Labels to choose among, those of a row or a class file, called and completed as the rows' own are."""
        return self.completed([self.path(name, where) for name in candidates])

    def ancestors(self, labels: LabelSet) -> tuple[tuple[int, ...], ...] | None:
        """For each label the ids of those that it lies below; None where labels lie side by side."""
        return None if self.hierarchy is None else self.hierarchy.ancestor_ids(labels)

    def gold(self, examples: Sequence[Example], labels: LabelSet) -> np.ndarray:
        """The labels of rows: ids, int64 (rows,); multi-label: bool (rows, labels)."""
        import numpy as np  # here: who only reads rows needs no arrays

        if not self.multi_label:
            return np.array(labels.ids([str(example.label) for example in examples]), dtype=np.int64)
        table = np.zeros((len(examples), len(labels)), dtype=bool)
        for row, example in enumerate(examples):
            table[row, labels.ids(example.all_labels)] = True
        return table

    def strata(self, examples: Sequence[Example], labels: LabelSet) -> list[int]:
        """What rows are split by: the label's id; multi-label: that of the rarest one, `len(labels)` for rows without any."""
        gold = self.gold(examples, labels)
        if not self.multi_label:
            return [int(one) for one in gold]
        carried = gold.sum(axis=0)
        own = (labels_of_row.nonzero()[0] for labels_of_row in gold)
        return [int(min(ids, key=lambda label: carried[label])) if len(ids) else len(labels) for ids in own]


def listed(value: Any) -> Any:
    """The list that a cell holds as a string, as a table has no other way to: a JSON list of texts; any other value as it is."""
    if not (isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if all(isinstance(one, str) for one in found) else value


ONE_LABEL = Labelling()
"""One label a row, and none below another."""

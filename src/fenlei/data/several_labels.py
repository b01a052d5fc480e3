"""Whether the rows of a data set have one label each or any number of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fenlei.config import DataConfig
from fenlei.data.labelling import Labelling
from fenlei.data.readers import columns_named_by, label_cells
from fenlei.hierarchy import Hierarchy

JUDGED_ROWS = 48
"""Rows by which a file is taken for one of lists or not, so that one odd row among them is named, and not the others."""


def choose_labelling(config: DataConfig, files: Sequence[Path], notes: list[str]) -> Labelling:
    """What the options say; where they do not, rows may have any number of labels if one of them lists several."""
    hierarchy = None if config.level_separator is None else Hierarchy(config.level_separator)
    several = None
    if config.multi_label is None and config.label_separator is None:
        several = next((where for file in files if (where := _first_with_several(file, config)) is not None), None)
        if several is not None:
            notes.append(f"multi-label: rows list several labels, the first of them {several}")
    multi_label = bool(config.multi_label) or config.label_separator is not None or several is not None
    return Labelling(multi_label, config.label_separator, hierarchy)


def _first_with_several(file: Path, config: DataConfig) -> str | None:
    """Where the first row with several labels stands; none is looked for where most of the first rows that say something have no list."""
    cells = label_cells(file, **columns_named_by(config))
    head = list(islice(cells, JUDGED_ROWS))
    are_lists = Counter(_is_list(value) for _, value in head if value not in (None, ""))
    if not are_lists or not are_lists.most_common(1)[0][0]:  # of as many, what came first: Counter keeps the order
        return None
    return next((where for where, value in chain(head, cells) if _is_list(value) and len(value) > 1), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))

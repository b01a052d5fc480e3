"""Whether the rows of a data set have one label each or any number of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fenlei.config import DataConfig
from fenlei.data.examples import Example
from fenlei.data.labelling import Labelling, listed
from fenlei.data.readers import file_layout, read_examples
from fenlei.hierarchy import Hierarchy

JUDGED_ROWS = 48
"""Rows by which a file is taken for one of lists or not, so that one odd row among them is named, and not the others."""


def choose_labelling(config: DataConfig, files: Sequence[Path], notes: list[str]) -> Labelling:
    """What the options say; where they do not, rows may have any number of labels if one of them lists several."""
    hierarchy = None if config.level_separator is None else Hierarchy(config.level_separator)
    several = None
    if config.multi_label is None and config.label_separator is None:
        several = next((row for file in files if (row := _first_with_several(file, config)) is not None), None)
        if several is not None:
            notes.append(f"multi-label: rows list several labels, the first of them {several.where}")
    multi_label = bool(config.multi_label) or config.label_separator is not None or several is not None
    return Labelling(multi_label, config.label_separator, hierarchy)


def _first_with_several(file: Path, config: DataConfig) -> Example | None:
    """The first row that lists several labels; none is looked for where most of the first rows that say something have no list."""
    layout = file_layout(file, text_column=config.text_column, pair_column=config.pair_column, label_column=config.label_column)
    rows = read_examples(
        file,
        text_column=config.text_column,
        pair_column=config.pair_column,
        labelled=False,
        labelling=Labelling(multi_label=True),
        on_bad_row=lambda line, error: None,
    )
    values = ((row, listed(row.columns.get(str(layout.columns.label)))) for row in rows)
    head = list(islice(values, JUDGED_ROWS))
    are_lists = Counter(_is_list(value) for _, value in head if value not in (None, ""))
    if not are_lists or not are_lists.most_common(1)[0][0]:  # of as many, what came first: Counter keeps the order
        return None
    return next((row for row, value in chain(head, values) if _is_list(value) and len(value) > 1), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))

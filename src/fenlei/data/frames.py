"""Tables in memory: pandas and polars frames, Hugging Face datasets, and whatever else speaks Arrow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenlei.data.folders import ROLES
from fenlei.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow as pa


def is_frame(data: object) -> bool:
    """Whether `data` is a table in memory, or a DatasetDict of such."""
    return _library(data) in ("pandas", "datasets") or hasattr(data, "__arrow_c_stream__")


def parts_of(data: Any) -> dict[str, Any]:
    """A table as `data`; of a DatasetDict its splits as `data`, dev and test. DataError where it has no split called train."""
    if not isinstance(data, Mapping):
        return {"data": data}
    parts = {ROLES[name]: part for name, part in data.items() if name in ROLES}
    if "train" not in parts:
        raise DataError(f"the DatasetDict has no split called train, but {', '.join(map(str, data))}; give one of them")
    return {"data" if role == "train" else role: part for role, part in parts.items()}


def refuse_rows(option: str, data: object) -> None:
    """DataError for what is no frame, nor the name of a file: of rows in a list, all would be spelt out as its path."""
    if data is not None and not isinstance(data, (str, os.PathLike)) and not is_frame(data):
        raise DataError(
            f"{option}: expected a file, a folder, hf:... or a frame (pandas, polars, Dataset, Arrow), found {type(data).__name__}; "
            "write rows as pandas.DataFrame(rows)"
        )


def _check_table(frame: Any) -> None:
    """DataError for what a library of frames has besides them: a column, several splits, rows that come from the network one by one."""
    kind = type(frame).__name__
    if isinstance(frame, Mapping):
        raise DataError(f"expected one table, found {kind}; name a split, as data[{next(iter(frame), 'train')!r}]")
    needed = {"datasets": ("with_format", "__len__"), "pandas": ("columns",), "polars": ("columns",)}.get(_library(frame), ())
    if not all(hasattr(frame, one) for one in needed):
        raise DataError(f"expected a table with its rows in memory, found {kind}; give the whole frame, loaded without streaming")


def to_table(frame: Any) -> pa.Table:
    """The frame as an Arrow table; names of classes stay with their columns. DataError where it is none, or a column has no Arrow type."""
    import pyarrow as pa

    _check_table(frame)
    try:
        if _library(frame) == "datasets":
            return frame.with_format("arrow")[:].replace_schema_metadata(frame.features.arrow_schema.metadata)
        return pa.Table.from_pandas(frame, preserve_index=False) if _library(frame) == "pandas" else pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{type(frame).__name__}: has a column that is no column of a table ({first_line(error)}); leave it out") from error


def write_frame(frame: Any, target: Path) -> None:
    """The frame as Parquet."""
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(frame), target)


def with_columns(frame: Any, columns: Mapping[str, Sequence[Any]]) -> Any:
    """A frame of the same library with these columns behind its own; the frame itself is not changed."""
    library = _library(frame)
    if library == "pandas":
        return frame.assign(**columns)
    if library == "datasets":
        # Of a selection without rows add_column finds no blocks to put a column beside.
        frame = frame if len(frame) else type(frame)(to_table(frame))
        for name, values in columns.items():
            frame = frame.add_column(name, list(values))
        return frame
    if library == "polars":
        import polars

        return frame.with_columns([polars.Series(name, values) for name, values in columns.items()])
    import pyarrow as pa

    table = to_table(frame)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(list(values)))
    return table


def _library(frame: object) -> str:
    return type(frame).__module__.partition(".")[0]

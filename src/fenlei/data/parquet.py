"""Parquet to rows, batch by batch, and the class names that Hugging Face datasets writes into it."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from fenlei.data.delimited import Row
from fenlei.errors import DataError, first_line

BATCH = 1024
"""Rows held at a time."""

_MAGIC = b"PAR1"

_LISTS = ("List", "LargeList", "Sequence")
"""What Hugging Face datasets calls columns of lists."""


def read_parquet(stream: BinaryIO, source: str) -> tuple[Iterator[Row], Mapping[str, tuple[str, ...]]]:
    """Rows numbered from 1, and the names of the ids in columns of classes; DataError where it is no Parquet."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{source}: Parquet needs pyarrow: pip install pyarrow, or save the rows as JSON lines") from None

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=BATCH):
                for row in _in_microseconds(batch).to_pylist():
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(error, source, number + 1) from error

    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(error, source, 1) from error
    return rows(), _class_names(file.schema_arrow.metadata or {})


@contextmanager
def unpacked(stream: BinaryIO, source: str) -> Iterator[BinaryIO]:
    """The stream of a plain file as it is, else all that it unpacks to: Parquet keeps its table of contents at the end. On the disk, for
    megabytes may unpack to more than fits into memory. DataError where it is no Parquet.
    """
    if isinstance(getattr(stream, "raw", None), io.FileIO):
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        try:
            start = stream.read(len(_MAGIC))
            if start != _MAGIC:
                raise ValueError(f"it begins with {start!r}, not with {_MAGIC!r}")
            file.write(start)
            shutil.copyfileobj(stream, file)
            file.seek(0)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise _unreadable(error, source, 1) from error
        yield file


def _unreadable(error: Exception, source: str, row: int) -> DataError:
    return DataError(f"{source}:{row}: not readable as Parquet: {first_line(error)}; write the file again")


def _in_microseconds(batch: Any) -> Any:
    """Nanoseconds cut to what Python's dates hold: pyarrow refuses them, or gives them as pandas has them where that is installed."""
    import pyarrow as pa

    for place, column in enumerate(batch.schema):
        kind = column.type
        if (pa.types.is_timestamp(kind) or pa.types.is_duration(kind)) and kind.unit == "ns":
            coarser = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else pa.duration("us")
            batch = batch.set_column(place, column.name, batch.column(place).cast(coarser, safe=False))
    return batch


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """From {"info": {"features": {COLUMN: {"names": [...], "_type": "ClassLabel"}}}} under the key `huggingface`."""
    try:
        features: Any = json.loads(metadata[b"huggingface"])["info"]["features"]
        classes = {column: _of_one(kind) for column, kind in features.items()}
        names = {column: kind["names"] for column, kind in classes.items() if _type_of(kind) == "ClassLabel"}
        return {column: tuple(listed) for column, listed in names.items() if all(isinstance(name, str) for name in listed)}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}  # no such note in the file, or one of another version: the ids stay ids


def _of_one(kind: Any) -> Any:
    """What one element of a column of lists is; any other kind as it is. Older files write a list as a JSON list of its one kind."""
    if isinstance(kind, list) and len(kind) == 1:
        return kind[0]
    return kind.get("feature") if _type_of(kind) in _LISTS else kind


def _type_of(kind: Any) -> Any:
    return kind.get("_type") if isinstance(kind, dict) else None

"""Predicted rows as parts of a folder, each written by whoever has answered it.

FOLDER/part-000000-000000.jsonl   rows of the first file, as far as the first part goes; sorted by name, parts are in the rows' order
       _done/part-….json          beside each: its counts and its rejected rows; a part counts when this is there
       _fenlei.json               what is predicted by what
       _SUCCESS                   written last, with all counts
FOLDER.rejected.jsonl             rows that could not be predicted

A part is the same bytes whoever writes it, so one that is written twice does no harm.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fenlei.data.jsonvalues import to_json
from fenlei.errors import ConfigError, DataError, first_line
from fenlei.inference.journal import State
from fenlei.inference.rowtext import json_lines
from fenlei.inference.storage import inside, is_folder, read_if_there, remove, row_files, write_whole
from fenlei.inference.windows import Answered, Row, Window

PART_WINDOWS = 16
"""Windows of a part: 32,768 rows, some ten megabytes of short texts."""
PartFormat = Literal["jsonl", "parquet"]
TASK, DONE, SUCCESS = "_fenlei.json", "_done", "_SUCCESS"


@dataclass(frozen=True)
class Part:
    """Consecutive windows of one file, answered by one worker."""

    source: int
    number: int
    windows: list[Window]

    @property
    def name(self) -> str:
        """Without ending; names sort as the rows lie."""
        return f"part-{self.source:06d}-{self.number:06d}"


@dataclass(frozen=True)
class PartDone:
    """What became of a part."""

    name: str
    rows: int
    rows_cut: int
    tokens_cut: int
    rejected: list[str] = field(default_factory=list)
    before: bool = False
    """Whether an earlier call has done it."""
    abstained: int = 0
    """Of `rows`; a part of an earlier version does not say so."""


@dataclass(frozen=True)
class PartsFolder:
    """A folder of predicted parts."""

    folder: str
    format: PartFormat

    @property
    def rejected_file(self) -> str:
        """Where the rows go that cannot be predicted."""
        return self.folder.rstrip("/") + ".rejected.jsonl"

    def begin(self, task: Mapping[str, Any]) -> State | None:
        """Takes the folder for a task, or goes on with it: the counts where all of it is done, else None. A task that no part was done of
        has no claim to it.

        ConfigError where the folder holds another task's parts, or files of rows that are none of ours.
        """
        told = json.loads(json.dumps({**task, "format": self.format}))
        begun = read_if_there(inside(self.folder, TASK))
        known = None if begun is None else _parsed(begun, inside(self.folder, TASK))
        if known is None or (known != told and not is_folder(inside(self.folder, DONE))):
            self._refuse_other_rows()
            remove(inside(self.folder, SUCCESS))  # that of files without rows
            write_whole(inside(self.folder, TASK), to_json(told).encode("utf-8", "backslashreplace"))
            return None
        if known != told:
            differing = sorted(name for name in known.keys() | told.keys() if known.get(name) != told.get(name))
            raise ConfigError(
                f"{self.folder}: holds a prediction with another {' and another '.join(differing)}; "
                "repeat its command to go on with it, remove the folder to start over, or choose another --out"
            )
        success = read_if_there(inside(self.folder, SUCCESS))
        return None if success is None else State(**_parsed(success, inside(self.folder, SUCCESS)))

    def done(self, name: str) -> PartDone | None:
        """What became of a part that an earlier call, or a worker that died, has written; None where it is still to do."""
        note = read_if_there(self._note(name))
        return None if note is None else PartDone(**{**_parsed(note, self._note(name)), "before": True})

    def write(self, name: str, answered: Sequence[Answered]) -> PartDone:
        """Writes a part, then the note that it is done."""
        rows = [row for one in answered for row in one.rows]
        if rows:
            write_whole(inside(self.folder, f"{name}.{self.format}"), self._bytes(name, rows))
        rejected = [line for one in answered for line in one.rejected]
        done = PartDone(
            name, len(rows), sum(one.rows_cut for one in answered), sum(one.tokens_cut for one in answered), rejected,
            abstained=sum(one.abstained for one in answered),
        )  # fmt: skip
        write_whole(self._note(name), to_json(asdict(done)).encode("utf-8", "backslashreplace"))
        return done

    def finish(self, rejected: Mapping[str, Sequence[str]], state: State) -> None:
        """Writes the rejected rows, given by part, and that all is done."""
        if state.rejected:
            lines = "".join(line for name in sorted(rejected) for line in rejected[name])
            write_whole(self.rejected_file, lines.encode("utf-8", "backslashreplace"))  # a name of a file may be no Unicode
        else:
            remove(self.rejected_file)  # that of an earlier prediction
        write_whole(inside(self.folder, SUCCESS), to_json(asdict(state)).encode("utf-8"))

    def _note(self, name: str) -> str:
        return inside(self.folder, f"{DONE}/{name}.json")

    def _bytes(self, name: str, rows: Sequence[Row]) -> bytes:
        return json_lines((), rows).encode("utf-8") if self.format == "jsonl" else parquet_bytes(rows, name)

    def _refuse_other_rows(self) -> None:
        try:
            found = row_files(self.folder.rstrip("/") + "/*")
        except DataError:
            return
        raise ConfigError(f"{self.folder}: holds {found[0].rpartition('/')[2]}, which is no part of a prediction; choose an empty folder")


def parquet_bytes(rows: Sequence[Row], name: str) -> bytes:
    """A Parquet file of rows; columns where all are empty are strings. DataError where a column has values of several kinds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = dict.fromkeys(column for row in rows for column in row)
        table = pa.table({column: _typed(pa.array([row.get(column) for row in rows])) for column in names})
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"{name}: Parquet has one kind of value a column: {first_line(error)}; write JSON lines") from error
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


def _typed(column: Any) -> Any:
    """The column, as strings where none of its values says what they are, so that the parts have one schema."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    is_list = pa.types.is_list(column.type)
    return column.cast(pa.list_(pa.string())) if is_list and pa.types.is_null(column.type.value_type) else column


def _parsed(content: bytes, path: str) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}); remove the folder, or choose another --out") from error

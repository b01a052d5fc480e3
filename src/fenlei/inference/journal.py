"""What of a bulk prediction is done, written down after every window, so that a process that died is gone on with by the next.

OUT.partial               the predicted rows so far; becomes OUT
OUT.rejected.partial      the rows that could not be predicted; becomes OUT.rejected.jsonl
OUT.journal               what is predicted by what, and how far it has come

A window counts once the journal says so, and the journal is written when the window's rows are on the disk. What the files hold beyond
it is cut off before anything is added: so nothing is lost and nothing comes twice, wherever the process ended.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fenlei.artifact import give_name, saving, write_bytes
from fenlei.errors import ConfigError, DataError

SAMPLED = 1 << 20
"""Bytes at either end of a file that it is recognised by, beside its size and the time of its last change."""

Task = Mapping[str, Any]
"""What is predicted by what, as JSON. `source` is None where the rows come but once, from a pipe."""


@dataclass(frozen=True)
class State:
    """How far a prediction has come."""

    rows: int = 0
    """Rows predicted."""
    rejected: int = 0
    """Rows that could not be."""
    rows_cut: int = 0
    tokens_cut: int = 0
    abstained: int = 0
    written: int = 0
    """Bytes of predicted rows."""
    written_rejected: int = 0
    complete: bool = False

    def plus(self, rows: int, rejected: int, rows_cut: int, tokens_cut: int, abstained: int) -> State:
        """It, with the counts of further rows added to its own."""
        return replace(
            self,
            rows=self.rows + rows,
            rejected=self.rejected + rejected,
            rows_cut=self.rows_cut + rows_cut,
            tokens_cut=self.tokens_cut + tokens_cut,
            abstained=self.abstained + abstained,
        )


def rejected_file(target: Path) -> Path:
    """Where the rows go that cannot be predicted."""
    return target.with_name(target.name + ".rejected.jsonl")


def known_by(source: Path) -> dict[str, Any]:
    """What a file is recognised by when its prediction is gone on with."""
    digest = hashlib.sha256()
    with reading(source), source.open("rb") as file:
        digest.update(file.read(SAMPLED))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SAMPLED))
        digest.update(file.read(SAMPLED))
        return {"name": str(source), "bytes": size, "changed": os.fstat(file.fileno()).st_mtime_ns, "ends": digest.hexdigest()}


def known_by_its_start(source: Path) -> dict[str, Any]:
    """What a file that grows is recognised by: its first line."""
    with reading(source), source.open("rb") as file:
        return {"name": str(source), "start": hashlib.sha256(file.readline(SAMPLED)).hexdigest()}


class Journal:
    """A prediction into a file, gone on with where it was begun with the same task."""

    def __init__(self, target: Path, task: Callable[[], Task], *, in_place: bool = False) -> None:
        """`in_place`: rows go to the target itself, as there is no end to wait for. ConfigError where another task was begun there."""
        self.state = State()
        self._target = target
        self._path = target.with_name(target.name + ".journal")
        self._rejected = rejected_file(target)
        self.partial = target
        if not in_place:
            self._rejected = target.with_name(target.name + ".rejected.partial")
            self.partial = target.with_name(target.name + ".partial")
        self._in_place = in_place
        self._task = task
        self._begun: Task | None = None
        with saving(target, DataError):
            target.parent.mkdir(parents=True, exist_ok=True)
        self._go_on()

    def append(self, text: str, rejected: str, state: State) -> None:
        """Adds a window: its predicted rows, its rejected ones, and the counts with them."""
        if self._begun is None:
            self._begun = self._begin()
        with saving(self._target, DataError):
            written = _append(self.partial, text)
            written_rejected = _append(self._rejected, rejected) if rejected else self.state.written_rejected
            self._write(self._begun, replace(state, written=written, written_rejected=written_rejected))

    def finish(self) -> None:
        """Gives the files their names."""
        if not self.state.complete:
            self.append("", "", replace(self.state, complete=True))
            self._put_in_place(self.state)

    def discard(self) -> None:
        """Removes what this prediction has begun."""
        if self._begun is not None:
            self._remove()

    def _write(self, begun: Task, state: State) -> None:
        text = json.dumps({"task": begun, "state": asdict(state), "in_place": self._in_place}, ensure_ascii=False)
        write_bytes(self._path, text.encode("utf-8", "backslashreplace"), DataError, alone=True)
        self.state = state

    def _remove(self) -> None:
        with saving(self._target, DataError):
            for path in (self.partial, self._rejected, self._path):
                path.unlink(missing_ok=True)

    def _begin(self) -> Task:
        """The journal comes first: what lies beside it then is ours."""
        if self._in_place and self.partial.exists():
            raise ConfigError(f"{self.partial}: exists, and is no prediction to be gone on with; choose another --out")
        self._remove()
        begun = self._task()
        self._write(begun, State())
        return begun

    def _go_on(self) -> None:
        """Takes up what a process before this one left, if it left anything that counts."""
        if not self._path.exists():
            return
        begun, state, in_place = self._read()
        if state.complete:
            self._put_in_place(state)  # the one before died between the last row and this
            if begun["source"] is not None and not self._differing(begun):
                self.state = state
            return
        if state == State() or begun["source"] is None:  # nothing was done; or by rows from a pipe, which are gone
            if in_place == self._in_place:
                self._remove()
            else:  # what lies in the target is not of that prediction
                self._path.unlink()
            return
        if differing := self._differing(begun):
            raise ConfigError(
                f"{self._target}: an unfinished prediction was begun there with another {' and another '.join(differing)}; "
                f"repeat its command to go on with it, remove {self._path} to start over, or choose another --out"
            )
        with saving(self._target, DataError):
            for path, size in ((self.partial, state.written), (self._rejected, state.written_rejected)):
                there = path.stat().st_size if path.exists() else 0
                if there < size:
                    raise DataError(f"{path}: shorter than {self._path} says; restore it, or remove {self._path} to start over")
                if there:
                    os.truncate(path, size)
        self.state, self._begun = state, begun

    def _read(self) -> tuple[Task, State, bool]:
        """What was begun, how far it came, and whether its rows went to the target itself."""
        try:
            journal = json.loads(self._path.read_text(encoding="utf-8"))
            return {"source": None, **journal["task"]}, State(**journal["state"]), bool(journal.get("in_place", _follows(journal["task"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._path}: cannot be read ({error}); restore it, or remove it to start over") from error

    def _differing(self, begun: Task) -> list[str]:
        now = self._task()
        return sorted(name for name in now.keys() | begun.keys() if now.get(name) != begun.get(name))

    def _put_in_place(self, state: State) -> None:
        """Each name once, for the process may end between two of them; a file that has its name already is not there any more."""
        with saving(self._target, DataError):
            if not state.rejected:
                self._rejected.unlink(missing_ok=True)
                rejected_file(self._target).unlink(missing_ok=True)  # that of an earlier prediction
            elif self._rejected.exists():
                give_name(self._rejected, rejected_file(self._target), DataError)
            if self.partial.exists():
                give_name(self.partial, self._target, DataError)
            self._path.unlink(missing_ok=True)


def _follows(task: Any) -> bool:
    """Of a journal that does not say whether its rows went to the target itself: those of a file that was followed did."""
    options = task.get("set of options")
    return isinstance(options, dict) and options.get("follow") is True


@contextmanager
def journaled(journal: Journal, *, resumable: bool) -> Iterator[Journal]:
    """Finishes the journal at the end of the block. A failure leaves what was predicted for the next try, if there is one to go on."""
    try:
        yield journal
    except BaseException:
        if not resumable or not journal.state.rows:  # rows that were set aside are soon read again
            journal.discard()
        raise
    journal.finish()


@contextmanager
def reading(source: Path) -> Iterator[None]:
    """Turns a failed read into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from error


def _append(path: Path, text: str) -> int:
    """The size of the file with `text` at its end, on the disk."""
    with path.open("ab") as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # a name of a file may be no Unicode
        file.flush()
        os.fsync(file.fileno())
        return file.tell()

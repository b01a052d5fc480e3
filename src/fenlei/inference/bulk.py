"""A file of rows to a file of predicted rows: every column kept, in order, and the answer's columns added.

Rows are read, classified and written in windows, so that a file of any size takes the memory of one window and the same rows
always share their batches. A target file appears under its name only when it is whole; until then a journal beside it says how far it
has come, and the same call goes on from there. A row that cannot be predicted is written to a file of its own, with the reason.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fenlei.artifact import checked_path, saving, whole_file
from fenlei.data.encodings import STDIN, is_for_excel, same_file
from fenlei.data.examples import Example
from fenlei.data.jsonvalues import json_value, to_json
from fenlei.errors import ConfigError, DataError
from fenlei.inference.journal import Journal, State, journaled, known_by, known_by_its_start, rejected_file
from fenlei.inference.rowtext import RowText, promised_columns, row_text
from fenlei.inference.storage import is_url, known_as
from fenlei.inference.windows import Answered, BulkOptions, Intake, Row, Window, answer_window
from fenlei.locks import alone_at
from fenlei.models.allocator import SteadyMemory

if TYPE_CHECKING:
    from fenlei.inference.prediction import Described, Predictor

WINDOW_ROWS = 2048
STDIO = "-"
TARGET_SUFFIXES = (".jsonl", ".ndjson", ".csv")


@dataclass(frozen=True)
class BulkResult:
    """What was predicted, by this call and by those that it went on from."""

    rows: int
    seconds: float
    """Of this call."""
    tokens_cut: int
    """Tokens of all texts together that did not fit the length limit and were not read."""
    rows_cut: int
    """Texts that lost at least one token."""
    rejected: int
    """Rows that could not be predicted; with `rows` they are all rows of the source."""
    rejected_file: str | None
    """Where they are, with line and reason; None where there are none, or the target is standard output (then: standard error)."""
    rows_before: int
    """Of `rows`, those that were done when this call began."""
    abstained: int
    """Of `rows`, those whose answer is below the threshold of the run; what an earlier version had done is not counted."""


def predict_file(
    classifier: Predictor,
    source: str | Path,
    target: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    probabilities: bool = False,
    prefix: str = "",
    labels: Sequence[str] | None = None,
    passages: bool = False,
    follow: bool = False,
    progress: Callable[[int], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> BulkResult:
    """Classifies every row of `source` into `target` (JSONL, or CSV if it ends so); `-` is standard input or output.

    Ended at any moment and called again as before, it goes on, and the file is the same as that of an unbroken call; with standard
    input or output it starts anew. Rows that cannot be read go to TARGET.rejected.jsonl, with line and reason.

    `pair_column` is the column of the second text, for a run on pairs, whose columns default to those it was trained on.
    `labels` are the labels to choose among; without them a run of the generate method asks each row among the candidates that it offers.
    `passages` adds the weightiest passages of each text, where the run reads long ones in windows (else ConfigError).
    `prefix` goes before the name of each added column. `follow` waits for more rows of a file of JSON lines, until it is interrupted;
    rows are then written to the target itself as soon as no more are there. `progress` is told the number of rows done after each
    window, predicted or set aside, `announce` that an earlier call is gone on from. DataError where the file cannot be read on, or a column
    would be written twice, ConfigError for a target of another format or one that holds an unfinished prediction of something else,
    and while another process writes it.
    """
    began = time.monotonic()
    options = BulkOptions.of(classifier, text_column, pair_column, probabilities, prefix, labels, passages)
    target = checked_target(target, source)
    with opened_sink(classifier, source, target, options, follow=follow) as sink:
        before = sink.state
        if announce and before != State():
            announce(going_on(before))
        if not before.complete:
            writer, steady = Writer(sink, source, target, progress, classifier), SteadyMemory()

            def answer(window: Window) -> None:
                answered = answer_window(classifier, window, options)
                steady()
                writer.write(answered)

            intake = Intake(options, WINDOW_ROWS, answer, takes_labels=classifier.takes_labels, to_skip=before.rows + before.rejected)
            for example in options.rows(source, intake.reject, intake.flush if follow else None):
                intake.take(example)
            intake.flush()
    return result_of(sink.state, before, target, began)


def going_on(before: State) -> str:
    """What a user is told where an earlier call's rows are kept."""
    return f"going on after the {before.rows:,} rows that are predicted already"


def result_of(state: State, before: State, target: str | Path, began: float) -> BulkResult:
    """What was predicted, from what a sink held before and holds now."""
    told = str(rejected_file(target)) if state.rejected and isinstance(target, Path) else None
    seconds = time.monotonic() - began
    return BulkResult(state.rows, seconds, state.tokens_cut, state.rows_cut, state.rejected, told, before.rows, state.abstained)


class Sink(Protocol):
    """Where windows of predicted rows go."""

    @property
    def state(self) -> State: ...

    @property
    def partial(self) -> Path | None:
        """What holds the rows so far, where it is a file."""

    def append(self, text: str, rejected: str, state: State) -> None: ...


class Writer:
    """Answered windows, in the order of their rows, to a sink."""

    def __init__(
        self, sink: Sink, source: str | Path, target: str | Path, progress: Callable[[int], None] | None, classifier: Described
    ) -> None:
        self._sink = sink
        begun, run = sink.partial if sink.state.written else None, classifier.describe()
        promised, among_all = promised_columns(run), bool(run.get("fitted_among_all", True))
        self._to_text: RowText = row_text(target, begun, promised=promised, among_all=among_all, marked=is_for_excel(source))
        self._progress = progress

    def write(self, answered: Answered) -> None:
        """Adds a window; its refusal is raised where no row has had an answer yet, as it is not the rows' fault then."""
        state = self._sink.state
        if answered.refusal is not None and not state.rows:
            raise answered.refusal
        state = state.plus(len(answered.rows), len(answered.rejected), answered.rows_cut, answered.tokens_cut, answered.abstained)
        self._sink.append(self._to_text(answered.examples, answered.rows), "".join(answered.rejected), state)
        if self._progress:
            self._progress(state.rows + state.rejected)


@contextmanager
def opened_sink(
    classifier: Described, source: str | Path, target: str | Path, options: BulkOptions, *, follow: bool = False
) -> Iterator[Sink]:
    """Where predicted rows go: a journal that takes up what an earlier call left, or standard output. It is finished with the block."""
    if isinstance(target, str):
        yield _Stdout()
        return
    remote = is_url(source)
    resumable = remote or (str(source) != STDIN and Path(source).is_file())  # a pipe can be read but once

    def identified() -> dict[str, Any]:
        identify = known_by_its_start if follow else known_by
        return known_as(str(source)) if remote else identify(Path(source))

    def task() -> dict[str, Any]:
        return {
            "source": identified() if resumable else None,
            "model": digest_of(classifier),
            "set of options": json_value({**told_options(options), "window": WINDOW_ROWS, "follow": follow}),
        }

    taken = ConfigError(f"{target}: another process writes it; wait for its end, or choose another --out")
    lock = target.with_name(f".{target.name}.lock")
    with alone_at(lock, taken), journaled(Journal(target, task, in_place=follow), resumable=resumable) as journal:
        yield journal


def digest_of(classifier: Described) -> str:
    """What a classifier is recognised by when a prediction is gone on with."""
    return sha256(to_json(classifier.describe()).encode("utf-8", "backslashreplace")).hexdigest()


def told_options(options: BulkOptions) -> dict[str, Any]:
    """What a journal says of them: not the columns that are the run's, for journals of earlier versions lack them."""
    return {name: value for name, value in asdict(options).items() if name not in ("label_column", "usual_text")}


class _Stdout:
    """Standard output; rows that cannot be predicted go to standard error."""

    partial = None

    def __init__(self) -> None:
        self.state = State()

    def append(self, text: str, rejected: str, state: State) -> None:
        sys.stderr.write(rejected)
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads any more, which is no failure of ours
            raise
        except OSError as error:
            raise DataError(f"standard output: could not be written ({error.strerror}); what has come is not whole") from error
        self.state = state


def checked_target(target: str | Path, source: str | Path) -> str | Path:
    """`-` as it is, any other as a Path; ConfigError where it is no file that predictions are written to, or the `source` itself."""
    if str(target) == STDIO:
        return STDIO
    path = checked_path(target)
    if path.suffix.lower() not in TARGET_SUFFIXES:
        raise ConfigError(f"{path}: predictions are written as {', '.join(TARGET_SUFFIXES)} or to '-'; found the ending {path.suffix!r}")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the file to write")
    if str(source) != STDIN and same_file(path, source):
        raise ConfigError(f"{path}: is the file that is read, and rows that cannot be read would be lost with it; give another name")
    return path


def write_rows(target: Path, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """`rows` to a file, CSV or JSON lines by its ending, whole or not at all; `examples` say where each is from, for errors."""
    with whole_file(target, DataError) as temporary, saving(target, DataError):
        temporary.write_bytes(row_text(target)(examples, rows).encode("utf-8", "backslashreplace"))  # as artifact.write_text

"""A file of rows to a file of predicted rows: every column kept, in order, and the answer's columns added.

Rows are read, classified and written in windows, so that a file of any size takes the memory of one window and the same rows
always share their batches. A target file appears under its name only when it is whole; until then a journal beside it says how far it
has come, and the same call goes on from there. A row that cannot be predicted is written to a file of its own, with the reason.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fenlei.artifact import saving, whole_file
from fenlei.data.encodings import STDIN
from fenlei.data.examples import Example, candidates_of
from fenlei.data.jsonvalues import json_value, to_json
from fenlei.data.readers import ColumnNames, read_examples
from fenlei.errors import ConfigError, DataError, RequestError
from fenlei.inference.journal import Journal, State, journaled, known_by, known_by_its_start, rejected_file
from fenlei.inference.passages import check_has_passages, told_passages
from fenlei.inference.rowtext import RowText, row_text
from fenlei.text.pairs import columns_of

if TYPE_CHECKING:
    from fenlei.inference.prediction import Prediction, Predictor

WINDOW_ROWS = 2048
STDIO = "-"
TARGET_SUFFIXES = (".jsonl", ".ndjson", ".csv")

ADDED = ("prediction", "confidence", "probabilities", "prediction_set", "abstained", "novelty", "passages", "calibrated", "tokens_cut")
"""The columns of an answer, in their order; which of them a row gets depends on the run and on what is asked."""

Row = dict[str, Any]


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


@dataclass(frozen=True)
class BulkOptions:
    """What is asked for of each row."""

    text_column: str | None = None
    pair_column: str | None = None
    probabilities: bool = False
    prefix: str = ""
    labels: tuple[str, ...] | None = None
    passages: bool = False


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
    window, `announce` that an earlier call is gone on from. DataError where the file cannot be read on, or a column would be written
    twice, ConfigError for a target of another format or one that holds an unfinished prediction of something else.
    """
    began = time.monotonic()
    text_column, pair_column = columns_of(classifier.describe(), text_column, pair_column)
    options = BulkOptions(text_column, pair_column, probabilities, prefix, None if labels is None else tuple(labels), passages)
    if passages:
        check_has_passages(classifier)
    target = checked_target(target)
    with _sink(classifier, source, target, options, follow) as sink:
        before = sink.state.rows
        if announce and sink.state != State():
            announce(f"going on after the {before:,} rows that are predicted already")
        if not sink.state.complete:
            bulk = _Bulk(classifier, sink, row_text(target, sink.partial if sink.state.written else None), options, progress)
            waiting = bulk.flush if follow else None
            named = ColumnNames(text_column=text_column, pair_column=pair_column, label_column=None)
            for example in read_examples(source, **named, labelled=False, on_bad_row=bulk.reject, follow=waiting):
                bulk.take(example)
            bulk.flush()
    state = sink.state
    told = str(rejected_file(target)) if state.rejected and isinstance(target, Path) else None
    seconds = time.monotonic() - began
    return BulkResult(state.rows, seconds, state.tokens_cut, state.rows_cut, state.rejected, told, before)


class _Sink(Protocol):
    """Where windows of predicted rows go."""

    @property
    def state(self) -> State: ...

    @property
    def partial(self) -> Path | None:
        """What holds the rows so far, where it is a file."""

    def append(self, text: str, rejected: str, state: State) -> None: ...


class _Bulk:
    """Rows to windows to a sink, after the rows that the sink has already."""

    def __init__(
        self, classifier: Predictor, sink: _Sink, to_text: RowText, options: BulkOptions, progress: Callable[[int], None] | None
    ) -> None:
        self._classifier = classifier
        self._sink = sink
        self._to_text = to_text
        self._options = options
        asked = {"probabilities": options.probabilities, "passages": options.passages}
        self._added = [name for name in ADDED if asked.get(name, True)]
        self._progress = progress
        self._window: list[Example] = []
        self._rejected: list[str] = []
        self._to_skip = sink.state.rows + sink.state.rejected

    def take(self, example: Example) -> None:
        """A row that was read; with the last of a window the window is predicted."""
        if self._is_done():
            return
        refuse_clash(example, self._added, self._options.prefix)
        if example.candidates == () and self._classifier.takes_labels and self._options.labels is None:
            self._note(example.line, _no_candidates(example))
            return
        self._window.append(example)
        if len(self._window) == WINDOW_ROWS:
            self.flush()

    def reject(self, line: int, error: DataError) -> None:
        """A row that could not be read."""
        if not self._is_done():
            self._note(line, error)

    def flush(self) -> None:
        """Predicts what has been taken, and hands it on."""
        if not self._window and not self._rejected:
            return
        options, state = self._options, self._sink.state
        window, predictions = self._answers(self._window)
        rows = [
            predicted_row(
                example.columns,
                prediction,
                probabilities=options.probabilities,
                prefix=options.prefix,
                text=example.text if options.passages else None,
            )
            for example, prediction in zip(window, predictions, strict=True)
        ]
        state = replace(
            state,
            rows=state.rows + len(window),
            rejected=state.rejected + len(self._rejected),
            rows_cut=state.rows_cut + sum(prediction.tokens_cut > 0 for prediction in predictions),
            tokens_cut=state.tokens_cut + sum(prediction.tokens_cut for prediction in predictions),
        )
        self._sink.append(self._to_text(window, rows), "".join(self._rejected), state)
        self._window, self._rejected = [], []
        if self._progress:
            self._progress(state.rows)

    def _answers(self, window: list[Example]) -> tuple[list[Example], list[Prediction]]:
        """The rows that have an answer, with it; RequestError where no row has had one yet, as it is not the rows' fault then."""
        if not window:
            return [], []
        try:
            return window, self._predict(window)
        except RequestError:
            refused = self._refused(window)
            if len(refused) == len(window) and not self._sink.state.rows:
                raise
        for example, error in refused:
            self._note(example.line, DataError(f"{example.where}: {error}"))
        lines = {example.line for example, _ in refused}
        left = [example for example in window if example.line not in lines]
        return left, self._predict(left) if left else []

    def _refused(self, window: list[Example]) -> list[tuple[Example, RequestError]]:
        """The rows that cannot be answered, found by halving."""
        try:
            self._predict(window)
        except RequestError as error:
            half = len(window) // 2
            return [*self._refused(window[:half]), *self._refused(window[half:])] if half else [(window[0], error)]
        return []

    def _predict(self, window: Sequence[Example]) -> list[Prediction]:
        return predict_examples(self._classifier, window, self._options.labels)

    def _is_done(self) -> bool:
        """Whether the next row was done by a call before this one."""
        done = self._to_skip > 0
        self._to_skip -= done
        return done

    def _note(self, line: int, error: DataError) -> None:
        self._rejected.append(to_json({"line": line, "reason": str(error)}) + "\n")


@contextmanager
def _sink(classifier: Predictor, source: str | Path, target: str | Path, options: BulkOptions, follow: bool) -> Iterator[_Sink]:
    if isinstance(target, str):
        yield _Stdout()
        return
    resumable = str(source) != STDIN and Path(source).is_file()  # a pipe can be read but once

    def task() -> dict[str, Any]:
        identify = known_by_its_start if follow else known_by
        return {
            "source": identify(Path(source)) if resumable else None,
            "model": sha256(to_json(classifier.describe()).encode("utf-8", "backslashreplace")).hexdigest(),
            "set of options": json_value({**asdict(options), "window": WINDOW_ROWS, "follow": follow}),
        }

    with journaled(Journal(target, task, in_place=follow), resumable=resumable) as journal:
        yield journal


class _Stdout:
    """Standard output; rows that cannot be predicted go to standard error."""

    partial = None

    def __init__(self) -> None:
        self.state = State()

    def append(self, text: str, rejected: str, state: State) -> None:
        sys.stderr.write(rejected)
        sys.stdout.write(text)
        sys.stdout.flush()
        self.state = state


def predict_examples(classifier: Predictor, examples: Sequence[Example], labels: Sequence[str] | None = None) -> list[Prediction]:
    """The answer for each row among `labels`; without them among the candidates that it offers, where the classifier takes such."""
    texts = [example.input for example in examples]
    among = offered_labels(classifier, examples) if labels is None else labels
    return classifier.predict(texts) if among is None else classifier.predict(texts, labels=among)


def offered_labels(classifier: Predictor, examples: Sequence[Example]) -> list[tuple[str, ...] | None] | None:
    """The candidates that rows offer, for a classifier that takes them; None where it does not, or no row offers any.

    DataError for a row whose list of candidates is empty.
    """
    offered = candidates_of(examples)
    if offered is None or not classifier.takes_labels:
        return None
    if () in offered:
        raise _no_candidates(examples[offered.index(())])
    return offered


def _no_candidates(example: Example) -> DataError:
    return DataError(f"{example.where}: the list of candidate labels is empty; fill it, or remove it from the row")


def checked_target(target: str | Path) -> str | Path:
    """`-` as it is, any other as a Path; ConfigError where it is no file that predictions are written to."""
    if str(target) == STDIO:
        return STDIO
    path = Path(target)
    if path.suffix.lower() not in TARGET_SUFFIXES:
        raise ConfigError(f"{path}: predictions are written as {', '.join(TARGET_SUFFIXES)} or to '-'; found the ending {path.suffix!r}")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the file to write")
    return path


def refuse_clash(example: Example, added: Sequence[str], prefix: str) -> None:
    """DataError where the row has a column already that would be written under the name of an added one."""
    clash = [prefix + name for name in added if prefix + name in example.columns]
    if clash:
        raise DataError(
            f"{example.where}: the input already has a column {clash[0]!r}, which would be overwritten; "
            f"name the new columns apart, for example --prefix {prefix}fenlei_"
        )


def predicted_row(
    columns: Mapping[str, Any], prediction: Prediction, *, probabilities: bool = False, prefix: str = "", text: str | None = None
) -> Row:
    """`columns`, then the answer's own, each name after `prefix`; with `text`, its weightiest passages."""
    values: Row = {"prediction": prediction.answer, "confidence": _rounded(prediction.confidence)}
    if probabilities:
        values["probabilities"] = {name: _rounded(value) for name, value in prediction.probabilities.items()}
    if prediction.prediction_set is not None:
        values["prediction_set"] = list(prediction.prediction_set)
    if prediction.abstained is not None:
        values["abstained"] = prediction.abstained
    if prediction.novelty is not None:
        values["novelty"] = _rounded(prediction.novelty)
    if text is not None and prediction.passages is not None:
        values["passages"] = told_passages(text, prediction)
    values |= {"calibrated": prediction.calibrated, "tokens_cut": prediction.tokens_cut}
    return {**columns, **{prefix + name: value for name, value in values.items()}}


def write_rows(target: Path, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """`rows` to a file, CSV or JSON lines by its ending, whole or not at all; `examples` say where each is from, for errors."""
    with whole_file(target, DataError) as temporary, saving(target, DataError):
        temporary.write_bytes(row_text(target)(examples, rows).encode("utf-8"))


def _rounded(value: float) -> float:
    """Six places: what float32 holds, without the digits that it does not."""
    return round(float(value), 6)

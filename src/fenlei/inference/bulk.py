"""A file of rows to a file of predicted rows: every column kept, in order, and the answer's columns added.

Rows are read, classified and written in windows, so that a file of any size takes the memory of one window and the same rows
always share their batches. A target file appears under its name only when it is whole.
"""

from __future__ import annotations

import csv
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenlei.artifact import saving, whole_file
from fenlei.data.examples import Example, candidates_of
from fenlei.data.jsonvalues import json_value, to_json
from fenlei.data.readers import read_examples
from fenlei.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fenlei.inference.prediction import Prediction, Predictor

WINDOW_ROWS = 2048
STDIO = "-"
TARGET_SUFFIXES = (".jsonl", ".ndjson", ".csv")

ADDED = ("prediction", "confidence", "probabilities", "prediction_set", "abstained", "novelty", "calibrated", "tokens_cut")
"""The columns of an answer, in their order; which of them a row gets depends on the run and on what is asked."""

Row = dict[str, Any]


@dataclass(frozen=True)
class BulkResult:
    """What was predicted."""

    rows: int
    seconds: float
    tokens_cut: int
    """Tokens of all texts together that did not fit the length limit and were not read."""
    rows_cut: int
    """Texts that lost at least one token."""


def predict_file(
    classifier: Predictor,
    source: str | Path,
    target: str | Path,
    *,
    text_column: str | None = None,
    probabilities: bool = False,
    prefix: str = "",
    labels: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> BulkResult:
    """Classifies every row of `source` into `target` (JSONL, or CSV if it ends so); `-` is standard input or output.

    `labels` are the labels to choose among; without them a run of the generate method asks each row among the candidates that it offers.
    `prefix` goes before the name of each added column; `progress` is told the number of rows done after each window. DataError
    where a row has no text or a column that would be written twice, ConfigError for a target of another format; a failure leaves
    nothing behind.
    """
    began = time.monotonic()
    rows = rows_cut = tokens_cut = 0
    target = checked_target(target)
    added = [name for name in ADDED if name != "probabilities" or probabilities]
    examples = read_examples(source, text_column=text_column, labelled=False)
    to_text = _CommaSeparated() if str(target).lower().endswith(".csv") else _json_lines
    with _sink(target) as write:
        while window := list(itertools.islice(examples, WINDOW_ROWS)):
            for example in window:
                refuse_clash(example, added, prefix)
            predictions = predict_examples(classifier, window, labels)
            answered = zip(window, predictions, strict=True)
            write(to_text(window, [predicted_row(e.columns, p, probabilities=probabilities, prefix=prefix) for e, p in answered]))
            rows += len(window)
            rows_cut += sum(prediction.tokens_cut > 0 for prediction in predictions)
            tokens_cut += sum(prediction.tokens_cut for prediction in predictions)
            if progress:
                progress(rows)
    return BulkResult(rows, time.monotonic() - began, tokens_cut, rows_cut)


def predict_examples(classifier: Predictor, examples: Sequence[Example], labels: Sequence[str] | None = None) -> list[Prediction]:
    """The answer for each row among `labels`; without them among the candidates that it offers, where the classifier takes such."""
    texts = [example.text for example in examples]
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
        empty = examples[offered.index(())]
        raise DataError(f"{empty.where}: the list of candidate labels is empty; fill it, or remove it from the row")
    return offered


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


def predicted_row(columns: Mapping[str, Any], prediction: Prediction, *, probabilities: bool = False, prefix: str = "") -> Row:
    """`columns`, then the answer's own, each name after `prefix`."""
    values: Row = {"prediction": prediction.label, "confidence": _rounded(prediction.confidence)}
    if probabilities:
        values["probabilities"] = {name: _rounded(value) for name, value in prediction.probabilities.items()}
    if prediction.prediction_set is not None:
        values["prediction_set"] = list(prediction.prediction_set)
    if prediction.abstained is not None:
        values["abstained"] = prediction.abstained
    if prediction.novelty is not None:
        values["novelty"] = _rounded(prediction.novelty)
    values |= {"calibrated": prediction.calibrated, "tokens_cut": prediction.tokens_cut}
    return {**columns, **{prefix + name: value for name, value in values.items()}}


def write_rows(target: Path, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """`rows` to a file, CSV or JSON lines by its ending, whole or not at all; `examples` say where each is from, for errors."""
    to_text = _CommaSeparated() if target.suffix.lower() == ".csv" else _json_lines
    with _sink(target) as write:
        write(to_text(examples, rows))


@contextmanager
def _sink(target: str | Path) -> Iterator[Callable[[str], None]]:
    """A function that appends text; the file takes its name when the block ends without an error."""
    if isinstance(target, str):
        yield _to_stdout
        return
    with whole_file(target, DataError) as temporary:

        def append(text: str) -> None:
            # Opened for each window, so that a full disk shows here, not when something else closes the file.
            with saving(target, DataError), temporary.open("a", encoding="utf-8", newline="") as file:
                file.write(text)

        append("")
        yield append


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _json_lines(examples: Sequence[Example], rows: Sequence[Row]) -> str:
    return "".join(to_json(row) + "\n" for row in rows)


class _CommaSeparated:
    """Rows to CSV under the columns of the first row; what is no plain value becomes JSON."""

    def __init__(self) -> None:
        self._header: tuple[str, ...] | None = None

    def __call__(self, examples: Sequence[Example], rows: Sequence[Row]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for example, row in zip(examples, rows, strict=True):
            if self._header is None:
                self._header = tuple(row)
                writer.writerow(self._header)
            unknown = [name for name in row if name not in self._header]
            if unknown:
                raise DataError(f"{example.where}: the first row has no column {unknown[0]!r}, so CSV has no place for it; write .jsonl")
            writer.writerow([_cell(row.get(name)) for name in self._header])
        return text.getvalue()


def _cell(value: Any) -> Any:
    plain = json_value(value)
    if plain is None:
        return ""
    return to_json(plain) if isinstance(plain, (dict, list, bool)) else plain


def _rounded(value: float) -> float:
    """Six places: what float32 holds, without the digits that it does not."""
    return round(float(value), 6)

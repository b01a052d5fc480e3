"""A frame of rows to the same frame with the answer's columns: what bulk.py does with files."""

from __future__ import annotations

from typing import Any

from fenlei.data.chats import with_texts
from fenlei.data.columns import choose_columns, learned_from
from fenlei.data.examples import Example
from fenlei.data.frames import is_frame, to_table, with_columns
from fenlei.errors import DataError
from fenlei.inference.bulk import WINDOW_ROWS
from fenlei.inference.prediction import Predictor
from fenlei.inference.rowtext import PROMISED
from fenlei.inference.windows import ADDED, predict_examples, predicted_row
from fenlei.text.pairs import columns_of


def predict_frame(
    classifier: Predictor,
    frame: Any,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    probabilities: bool = False,
    prefix: str = "",
) -> Any:
    """A frame of the same library, with the columns that a predicted file has. A run on pairs reads those it was trained on, unless told.

    DataError names the row (from 1) without a text, and a column that the frame has already; RequestError as for `predict`.
    """
    if not is_frame(frame):
        raise DataError(f"expected a pandas or polars frame, a dataset or an Arrow table, found {type(frame).__name__}")
    table, run = to_table(frame), classifier.describe()
    _refuse_taken(frame, table, _usual({}, probabilities, prefix), prefix)  # what every answer has, before any is given
    rows = table.to_pylist()
    examples = _examples(rows, type(frame).__name__, run, text_column, pair_column) if rows else []
    answers: list[dict[str, Any]] = []
    for first in range(0, len(examples), WINDOW_ROWS):
        window = examples[first : first + WINDOW_ROWS]
        predictions = predict_examples(classifier, window)
        answers += [predicted_row({}, one, probabilities=probabilities, prefix=prefix) for one in predictions]
    names = [*dict.fromkeys(name for answer in answers for name in answer)] if rows else _usual(run, probabilities, prefix)
    _refuse_taken(frame, table, names, prefix)
    return with_columns(frame, {name: [answer.get(name) for answer in answers] for name in names})


def _refuse_taken(frame: Any, table: Any, names: list[str], prefix: str) -> None:
    """DataError where the frame, as a table, has a column that would be added."""
    clash = next((name for name in names if name in table.column_names), None)
    if clash is not None:
        cure = f"name the new ones apart, for example prefix='{prefix}fenlei_'"
        raise DataError(f"{type(frame).__name__}: already has a column {clash!r}; {cure}")


def _examples(
    rows: list[dict[str, Any]], source: str, run: dict[str, Any], text_column: str | None, pair_column: str | None
) -> list[Example]:
    """What is asked of the rows."""
    text_column, pair_column = columns_of(run, text_column, pair_column)
    rows = _told(rows, source, text_column)
    own, first = learned_from(run), f"{source}:1"
    columns = choose_columns(rows[0], text_column=text_column, pair_column=pair_column, labelled=False, where=first, **own)
    examples = []
    for number, row in enumerate(rows, start=1):
        text, pair = columns.text_of(row, f"{source}:{number}"), columns.pair_of(row, f"{source}:{number}")
        examples.append(Example(text, None, source, number, row, columns.candidates_of(row), pair=pair))
    return examples


def _usual(run: dict[str, Any], probabilities: bool, prefix: str) -> list[str]:
    """The columns that rows would be given, for a frame that has none."""
    given = {"probabilities": probabilities, "passages": False}
    given |= {column: run.get(promise) is not None for column, promise in PROMISED.items()}
    return [prefix + name for name in ADDED if given.get(name, True)]


def _told(rows: list[dict[str, Any]], source: str, text_column: str | None) -> list[dict[str, Any]]:
    """The rows, conversations with their text beside them, as in a file; DataError for one that is none where the first is."""
    told = []
    for _, row in with_texts(enumerate(rows, start=1), source, False, text_column)[0]:
        if isinstance(row, DataError):
            raise row
        told.append(row)
    return told

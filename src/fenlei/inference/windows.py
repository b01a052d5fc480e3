"""Rows to windows, and a window to its answers: what every bulk prediction does, in one process or in many.

A window is answered by itself, so the same rows share their batches wherever and in whatever order windows are answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenlei.data.columns import learned_from
from fenlei.data.examples import Example, candidates_of
from fenlei.data.jsonvalues import to_json
from fenlei.data.labelling import Labelling
from fenlei.data.readers import ColumnNames, OnBadRow, read_examples
from fenlei.errors import ConfigError, DataError, FenleiError, RequestError, ScoresError
from fenlei.inference.passages import check_has_passages, told_passages
from fenlei.text.asking import check_candidates
from fenlei.text.pairs import columns_of

if TYPE_CHECKING:
    from fenlei.inference.prediction import Described, Prediction, Predictor

ADDED = ("prediction", "confidence", "probabilities", "prediction_set", "abstained", "novelty", "passages", "calibrated", "tokens_cut")
"""The columns of an answer, in their order; which of them a row gets depends on the run and on what is asked."""

ROWS_OWN = (RequestError, ConfigError, ScoresError)
"""Errors of a prediction that may be the fault of a row; ConfigError: its labels leave no room for a text."""

NO_NUMBERS = "its scores are no finite numbers, which the number format of this device may not hold: another --device may answer it"

UNREAD_CANDIDATES = "candidates of rows are not read: a head knows its labels and no other; --method generate asks each row among its own"

Row = dict[str, Any]


@dataclass(frozen=True)
class BulkOptions:
    """What is asked for of each row."""

    text_column: str | None = None
    pair_column: str | None = None
    probabilities: bool = False
    prefix: str = ""
    labels: tuple[str, ...] | None = None
    passages: bool = False
    label_column: str | None = None
    """That which the run learned its labels from: not to be taken for the text, nor for candidates."""
    usual_text: tuple[str, ...] = ()
    """Those which it learned its texts from: they are the text, where none is named and a file has them all."""

    @classmethod
    def of(
        cls,
        classifier: Described,
        text_column: str | None,
        pair_column: str | None,
        probabilities: bool,
        prefix: str,
        labels: Sequence[str] | None,
        passages: bool,
    ) -> BulkOptions:
        """What is asked of a classifier, in the columns that its run learned from where none are named.

        ConfigError for a second text that it does not read, and for passages that it does not weigh; RequestError for what is no list of
        labels.
        """
        run = classifier.describe()
        text_column, pair_column = columns_of(run, text_column, pair_column)
        if passages:
            check_has_passages(classifier)
        if labels is not None:
            check_candidates(labels, "labels")  # a lone string would become its characters
        among = None if labels is None else tuple(labels)
        return cls(text_column, pair_column, probabilities, prefix, among, passages, **learned_from(run))

    def rows(self, path: str | Path, on_bad_row: OnBadRow, follow: Callable[[], None] | None = None) -> Iterator[Example]:
        """The rows of a file, as `read_examples` reads those without labels."""
        named = ColumnNames(text_column=self.text_column, pair_column=self.pair_column, label_column=self.label_column)
        return read_examples(path, **named, labelled=False, on_bad_row=on_bad_row, follow=follow, usual_text=self.usual_text)


@dataclass(frozen=True)
class Window:
    """Rows to be answered together, and the lines that say of rows among them why they cannot be."""

    examples: list[Example]
    rejected: list[str]


@dataclass(frozen=True)
class Answered:
    """A window with its answers."""

    examples: list[Example]
    """The rows that have one."""
    rows: list[Row]
    """They, with the columns of the answer."""
    rejected: list[str]
    """JSON lines with `line` and `reason`: rows that could not be read, then those that could not be answered."""
    rows_cut: int
    tokens_cut: int
    abstained: int = 0
    """Rows whose answer is below the threshold."""
    refusal: FenleiError | None = None
    """Why none of the rows could be answered, where none could."""


class Intake:
    """Rows as they are read, to windows; each is handed on when `size` of its rows can be answered, or as many cannot."""

    def __init__(self, options: BulkOptions, size: int, hand_on: Callable[[Window], None], *, takes_labels: bool, to_skip: int = 0) -> None:
        """`to_skip`: rows, read or set aside, that an earlier call has done. `takes_labels`: whether rows' own candidates are asked."""
        asked = {"probabilities": options.probabilities, "passages": options.passages}
        self._added = [name for name in ADDED if asked.get(name, True)]
        self._prefix = options.prefix
        self._needs_candidates = takes_labels and options.labels is None
        self._size = size
        self._hand_on = hand_on
        self._to_skip = to_skip
        self._window = Window([], [])
        self._begun = to_skip > 0

    def take(self, example: Example) -> None:
        """A row that was read; DataError where a column of the first one would be overwritten, for the others are like it."""
        if self._is_done():
            return
        try:
            refuse_clash(example, self._added, self._prefix)
        except DataError as error:
            if not self._begun:
                raise
            self._set_aside(example.line, error)
            return
        self._begun = True
        if example.candidates == () and self._needs_candidates:
            self._set_aside(example.line, _no_candidates(example))
            return
        self._window.examples.append(example)
        if len(self._window.examples) == self._size:
            self.flush()

    def reject(self, line: int, error: DataError) -> None:
        """A row that could not be read."""
        if not self._is_done():
            self._set_aside(line, error)

    def _set_aside(self, line: int, error: DataError) -> None:
        self._window.rejected.append(rejection(line, error))
        if len(self._window.rejected) == self._size:
            self.flush()

    def flush(self) -> None:
        """Hands on what has been taken, full or not."""
        if self._window.examples or self._window.rejected:
            window, self._window = self._window, Window([], [])
            self._hand_on(window)

    def _is_done(self) -> bool:
        """Whether the next row was done by a call before this one."""
        done = self._to_skip > 0
        self._to_skip -= done
        return done


def answer_window(classifier: Predictor, window: Window, options: BulkOptions) -> Answered:
    """The rows of a window with their answers; those that the classifier refuses are set aside, with its reason."""
    examples, predictions, refused, refusal = _answers(classifier, window.examples, options.labels)
    rows = [
        predicted_row(
            example.columns,
            prediction,
            probabilities=options.probabilities,
            prefix=options.prefix,
            text=example.text if options.passages else None,
        )
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    notes = [rejection(example.line, DataError(f"{example.where}: {error}")) for example, error in refused]
    return Answered(
        examples,
        rows,
        [*window.rejected, *notes],
        rows_cut=sum(prediction.tokens_cut > 0 for prediction in predictions),
        tokens_cut=sum(prediction.tokens_cut for prediction in predictions),
        abstained=sum(bool(prediction.abstained) for prediction in predictions),
        refusal=refusal,
    )


def rejection(line: int, error: DataError) -> str:
    """The line of a rejected file for one row."""
    return to_json({"line": line, "reason": str(error)}) + "\n"


_Refused = list[tuple[Example, FenleiError]]


def _answers(
    classifier: Predictor, examples: list[Example], labels: Sequence[str] | None
) -> tuple[list[Example], list[Prediction], _Refused, FenleiError | None]:
    """The rows that have an answer, the answers, the rows that have none and why; last why none has, where that is so."""
    if not examples:
        return [], [], [], None
    try:
        return examples, predict_examples(classifier, examples, labels), [], None
    except ROWS_OWN as error:
        refusal = error
    refused = _refused(classifier, examples, labels, refusal)
    lines = {example.line for example, _ in refused}
    left = [example for example in examples if example.line not in lines]
    if not left:
        return [], [], refused, refusal
    return left, predict_examples(classifier, left, labels), refused, None


def _refused(classifier: Predictor, examples: list[Example], labels: Sequence[str] | None, error: FenleiError) -> _Refused:
    """The rows that cannot be answered, where all of them together ended in `error`: those that it names, else found by halving."""
    if isinstance(error, ScoresError):
        return [(examples[row], ScoresError(NO_NUMBERS)) for row in error.rows]
    half = len(examples) // 2
    if not half:
        return [(examples[0], error)]
    refused: _Refused = []
    for part in (examples[:half], examples[half:]):
        try:
            predict_examples(classifier, part, labels)
        except ROWS_OWN as reason:
            refused += _refused(classifier, part, labels, reason)
    return refused


def predict_examples(classifier: Predictor, examples: Sequence[Example], labels: Sequence[str] | None = None) -> list[Prediction]:
    """The answer for each row among `labels`; without them among the candidates that it offers, where the classifier takes such."""
    texts = [example.input for example in examples]
    among = offered_labels(classifier, examples) if labels is None else labels
    return classifier.predict(texts) if among is None else classifier.predict(texts, labels=among)


def offered_labels(classifier: Predictor, examples: Sequence[Example]) -> list[tuple[str, ...] | None] | None:
    """The candidates that rows offer, for a classifier that takes them; None where it does not, or no row offers any.

    DataError for a row whose list of candidates is empty, RequestError for one with a level that has no name.
    """
    offered = candidates_of(examples)
    if offered is None or not classifier.takes_labels:
        return None
    if () in offered:
        raise _no_candidates(examples[offered.index(())])
    labelling = Labelling.from_json(classifier.describe())
    return [None if one is None else _called(one, labelling) for one in offered]


def _called(candidates: tuple[str, ...], labelling: Labelling) -> tuple[str, ...]:
    """Candidates under the names that a run's labels have, with those that they lie below; RequestError where they cannot be named."""
    try:
        return labelling.offered(candidates, "candidates")
    except DataError as error:
        raise RequestError(str(error)) from error


def _no_candidates(example: Example) -> DataError:
    return DataError(f"{example.where}: the list of candidate labels is empty; fill it, or remove it from the row")


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


def _rounded(value: float) -> float:
    """Six places: what float32 holds, without the digits that it does not."""
    return round(float(value), 6)

"""FenleiClassifier: training and answering as scikit-learn's tools ask for them."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from fenlei.data.label_file import named_as_in_rows
from fenlei.data.labelling import Labelling
from fenlei.errors import ConfigError, DataError
from fenlei.hierarchy import Hierarchy
from fenlei.inference.classifier import Classifier
from fenlei.text.pairs import check_texts
from fenlei.training.fit import TrainingInterrupted, train

OF_FILES = frozenset({"data", "text_column", "pair_column", "label_column", "multi_label", "label_separator"})
"""Options that say how rows stand in a file: `fit` is given them."""


class FenleiClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """`train` and `Classifier` as a scikit-learn estimator, for `cross_val_score`, `GridSearchCV` and pipelines.

    `X` is a column of texts (a list, an array, a Series), or rows of two texts, which are classified as pairs; `y` has one label a row,
    texts or whole numbers, and answers are of its kind. `fit` sets `classes_` (sorted), `classifier_` (the Classifier, which also tells
    of thresholds, sets and novelty) and `run_` (the run's folder).
    """

    classes_: np.ndarray
    classifier_: Classifier
    run_: Path

    def __init__(self, model: str | Path = "nano", *, out: str | Path | None = None, **options: Any) -> None:
        """`options` are those of `train`, each a parameter of its own (`learning_rate`, `tuning`, ...); `baseline` is off unless given.

        `out` is the run's new folder. None: a temporary one, which goes with the estimator; a search fits many, so leave it out there.
        """
        self.model = model
        self.out = out
        self.options = options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {**super().get_params(deep), **self.options}

    def set_params(self, **params: Any) -> FenleiClassifier:
        """Any option may be set, also one that the constructor was not given: a search names those that it varies."""
        super().set_params(**{name: params.pop(name) for name in ("model", "out") if name in params})
        self.options = {**self.options, **params}
        return self

    def fit(self, X: Any, y: Any) -> FenleiClassifier:
        """Trains on the rows, of which some select the checkpoint and calibrate, and returns itself; raises what `train` raises, but
        KeyboardInterrupt where it was stopped, so that a search ends too.
        """
        if of_files := sorted(OF_FILES & self.options.keys()):
            raise ConfigError(f"{', '.join(of_files)}: fit(X, y) is given the rows, with one label each; leave it out")
        if "config" in self.options:
            raise ConfigError("config: give its options by name, FenleiClassifier(model=..., epochs=...), as a search varies them")
        texts = _texts(X)
        pairs = bool(texts) and isinstance(texts[0], tuple)
        check_texts(texts, pairs=pairs)
        classes, names, labels = _labels(y)
        check_consistent_length(texts, labels)
        self._check_names(names)
        columns = {"text": [one[0] for one in texts], "pair": [one[1] for one in texts]} if pairs else {"text": texts}
        out = self._temporary_folder() if self.out is None else Path(self.out)
        options = {"baseline": False, **({"pair_column": "pair"} if pairs else {}), **self.options}
        try:
            train(pa.table({**columns, "label": labels}), model=str(self.model), out=out, multi_label=False, **options)
        except TrainingInterrupted as error:
            raise KeyboardInterrupt(str(error)) from error  # a search takes every Exception for a fold that failed, and goes on
        classifier = self._loaded(out)
        _check_classes(names, classifier.labels)
        self.classes_, self.classifier_, self.run_ = classes, classifier, out
        self._columns = [classifier.labels.index(name) for name in names]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """float32 (rows, classes), columns in the order of `classes_`; calibrated where there were rows enough, as the run's own."""
        check_is_fitted(self)
        probabilities: np.ndarray = self.classifier_.predict_proba(_texts(X))[:, self._columns]
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row, one of `classes_`."""
        probabilities = self.predict_proba(X)
        labels: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def __getstate__(self) -> dict[str, Any]:
        """Without the network, which is read again from the run. ConfigError where that goes with this estimator."""
        state: dict[str, Any] = super().__getstate__()
        if "classifier_" not in state:
            return state
        if self.out is None:
            raise ConfigError("a fitted FenleiClassifier without out= cannot be stored or sent: its run goes with it; give out=")
        return {name: value for name, value in state.items() if name != "classifier_"} | {"run_": self.run_.resolve()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "run_"):
            self.classifier_ = self._loaded(self.run_)

    def _loaded(self, run: Path) -> Classifier:
        head = self.options.get("head")
        return Classifier.load(run, device=self.options.get("device", "auto"), head=None if isinstance(head, str) else head)

    def _check_names(self, names: Sequence[str]) -> None:
        """DataError where an option has classes called otherwise than `y` does: here, for after training it would be late."""
        level, file = self.options.get("level_separator"), self.options.get("class_file")
        labelling = Labelling(hierarchy=Hierarchy(level) if level else None)
        _check_classes(names, [labelling.path(name, "y") for name in names] if file is None else [*named_as_in_rows(file, labelling)])

    def _temporary_folder(self) -> Path:
        """No TemporaryDirectory: one that nobody closes warns when it goes."""
        folder = tempfile.mkdtemp(prefix="fenlei-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder) / "run"


def _texts(X: Any) -> list[Any]:
    """The texts, or pairs of them as tuples. DataError for a table with other columns than those of a pair."""
    given = np.asarray(X, dtype=object)
    if given.ndim == 1:
        return list(given)
    if given.ndim == 2 and given.shape[1] == 2:
        return [(first, second) for first, second in given]
    raise DataError(f"X: expected texts, or rows of two texts, found an array of shape {given.shape}; give one column, as frame['text']")


def _labels(y: Any) -> tuple[np.ndarray, list[str], list[str]]:
    """The classes of `y` in order, their names, and the name of each row's. DataError where rows have not one label each."""
    each = np.atleast_1d(np.asarray(y, dtype=object))
    missing = next((at for at, one in enumerate(each) if _is_missing(one)), None)
    if missing is not None:
        raise DataError(f"y: row {missing} has no label ({each[missing]}); leave such rows out")
    try:
        kind = type_of_target(y, input_name="y")
    except (TypeError, ValueError):
        kind = "lists, or texts beside numbers"
    if kind not in ("binary", "multiclass"):
        raise DataError(
            f"y: expected one label a row, a text or a whole number, found {kind!r}; rows with several labels train with fenlei.train(...)"
        )
    classes, ids = np.unique(column_or_1d(y), return_inverse=True)
    named: dict[str, str] = {}
    for one in map(str, classes.tolist()):
        if (other := named.setdefault(one.strip(), one)) != one:
            raise DataError(f"y: {other!r} and {one!r} differ in blanks alone, so training takes them for one label; write them alike")
    names = list(named)
    return classes, names, [names[at] for at in ids]


def _is_missing(label: Any) -> bool:
    """Whether it is None, NaN or the NA of pandas, which is not even to be compared."""
    return label is None or (isinstance(label, float) and math.isnan(label)) or type(label).__name__ == "NAType"


def _check_classes(names: Sequence[str], labels: Sequence[str]) -> None:
    if sorted(names) != sorted(labels):
        raise DataError(
            f"y: expected its classes among the labels that were read, {tuple(labels)}, found {tuple(names)}; write them so in y"
        )

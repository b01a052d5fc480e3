"""FenleiClassifier: training and answering as scikit-learn's tools ask for them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from fenlei.errors import ConfigError, DataError
from fenlei.inference.classifier import Classifier
from fenlei.text.pairs import check_texts
from fenlei.training.fit import train

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
        """Trains on the rows, of which some select the checkpoint and calibrate, and returns itself; raises what `train` raises."""
        if of_files := sorted(OF_FILES & self.options.keys()):
            raise ConfigError(f"{', '.join(of_files)}: fit(X, y) is given the rows, with one label each; leave it out")
        texts = _texts(X)
        pairs = bool(texts) and isinstance(texts[0], tuple)
        check_texts(texts, pairs=pairs)
        classes, names, labels = _labels(y)
        check_consistent_length(texts, labels)
        columns = {"text": [one[0] for one in texts], "pair": [one[1] for one in texts]} if pairs else {"text": texts}
        out = self._temporary_folder() if self.out is None else Path(self.out)
        options = {"baseline": False, **({"pair_column": "pair"} if pairs else {}), **self.options}
        train(pa.table({**columns, "label": labels}), model=str(self.model), out=out, multi_label=False, **options)
        head = self.options.get("head")
        own_head = None if isinstance(head, str) else head
        classifier = Classifier.load(out, device=self.options.get("device", "auto"), head=own_head)
        if sorted(names) != sorted(classifier.labels):
            raise DataError(
                f"y: expected its classes among the labels that were read, {classifier.labels}, found {tuple(names)}; write them so in y"
            )
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
    kind = type_of_target(y, input_name="y")
    if kind not in ("binary", "multiclass"):
        raise DataError(
            f"y: expected one label a row, a text or a whole number, found {kind!r}; rows with several labels train with fenlei.train(...)"
        )
    classes, ids = np.unique(column_or_1d(y), return_inverse=True)
    names = [str(one).strip() for one in classes.tolist()]
    return classes, names, [names[at] for at in ids]

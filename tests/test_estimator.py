"""The scikit-learn estimator: what its tools ask of one, and answers that are those of the run."""

from __future__ import annotations

import gc
import json
import os
import pickle  # noqa: TID251  # as joblib and the workers of scikit-learn do with an estimator
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_NEWS
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from fenlei import Classifier, FenleiClassifier, RunConfig
from fenlei.errors import ArtifactError, ConfigError, DataError, RequestError
from fenlei.training import estimator as estimators
from fenlei.training.progress import Progress

QUICK: dict[str, Any] = {"max_steps": 2, "batch_size": 8, "device": "cpu", "max_length": 48, "layers": 1, "tuning": "full"}
ROWS = [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").split("\n") if line]
TEXTS, LABELS = [row["text"] for row in ROWS], [row["label"] for row in ROWS]


@pytest.fixture(scope="module")
def fitted(tiny_qwen: Path) -> FenleiClassifier:
    return FenleiClassifier(tiny_qwen, learning_rate=0.01, **QUICK).fit(TEXTS, LABELS)


def test_it_answers_as_the_run_does_in_the_order_of_its_classes(fitted: FenleiClassifier) -> None:
    run = Classifier.load(fitted.run_, device="cpu")
    assert fitted.classes_.tolist() == sorted(run.labels) != list(run.labels)
    probabilities = fitted.predict_proba(TEXTS)
    expected = run.predict_proba(TEXTS)[:, [run.labels.index(name) for name in fitted.classes_]]
    np.testing.assert_array_equal(probabilities, expected)
    said = fitted.predict(np.array(TEXTS)).tolist()
    assert said == fitted.classes_[probabilities.argmax(1)].tolist() == [one.label for one in run.predict(TEXTS)]
    assert fitted.score(TEXTS, LABELS) == np.mean([one == label for one, label in zip(said, LABELS, strict=True)])


def test_numbers_come_back_as_numbers_in_their_own_order_and_the_run_goes_with_the_estimator(tiny_qwen: Path) -> None:
    ids = np.array([{"体育": 10, "财经": 9, "科技": 100}[label] for label in LABELS])
    fitted = FenleiClassifier(str(tiny_qwen), **QUICK).fit(np.array(TEXTS), ids)
    assert fitted.classes_.tolist() == [9, 10, 100]
    assert fitted.classifier_.labels == ("10", "9", "100")
    said = fitted.predict(TEXTS)
    assert said.dtype == ids.dtype
    assert [str(one) for one in said] == [one.label for one in fitted.classifier_.predict(TEXTS)]
    folder = fitted.run_.parent
    assert folder.is_dir()
    del fitted
    gc.collect()
    assert not folder.exists()


def test_a_clone_has_every_option_and_a_search_may_set_others(tiny_qwen: Path) -> None:
    estimator = FenleiClassifier(tiny_qwen, **QUICK)
    assert clone(estimator).get_params() == {"model": tiny_qwen, "out": None, **QUICK}
    assert "max_steps=2" in repr(estimator)
    scores = cross_val_score(estimator, TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(estimator, {"learning_rate": np.array([0.01])}, cv=[([*range(30)], [*range(30, 60)])]).fit(TEXTS, LABELS)
    assert np.isfinite(search.best_score_)
    assert search.best_estimator_.get_params()["learning_rate"] == 0.01
    assert "learning_rate: 0.01\n" in (search.best_estimator_.run_ / "config.yaml").read_text(encoding="utf-8")
    assert "learning_rate" not in estimator.get_params()
    assert estimator.set_params(model="nano", epochs=2).get_params() == {"model": "nano", "out": None, **QUICK, "epochs": 2}


def test_pairs_of_texts(tiny_qwen: Path) -> None:
    pairs = [(text, text[::-1]) for text in TEXTS]
    fitted = FenleiClassifier(tiny_qwen, **QUICK).fit(pairs, LABELS)
    assert fitted.classifier_.pairs
    np.testing.assert_array_equal(fitted.predict_proba(np.array(pairs)), fitted.predict_proba(pairs))
    with pytest.raises(RequestError, match="trained on pairs of texts"):
        fitted.predict(TEXTS)


def test_a_run_stays_where_it_is_wanted(tiny_qwen: Path, tmp_path: Path) -> None:
    estimator = FenleiClassifier(tiny_qwen, out=tmp_path / "run", **QUICK)
    assert estimator.fit(TEXTS, LABELS).run_ == tmp_path / "run"
    with pytest.raises(ArtifactError, match="already holds a complete run"):
        estimator.fit(TEXTS, LABELS)
    del estimator
    gc.collect()
    assert Classifier.load(tmp_path / "run", device="cpu").labels == ("体育", "财经", "科技")


def test_it_is_stored_with_its_run_and_not_without(fitted: FenleiClassifier, tiny_qwen: Path, tmp_path: Path) -> None:
    kept = FenleiClassifier(tiny_qwen, out=tmp_path / "run", **QUICK).fit(TEXTS, LABELS)
    again = pickle.loads(pickle.dumps(kept))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), kept.predict_proba(TEXTS))
    assert again.get_params() == kept.get_params()
    with pytest.raises(ConfigError, match="give out="):
        pickle.dumps(fitted)
    assert pickle.loads(pickle.dumps(FenleiClassifier("nano", epochs=2))).get_params() == {"model": "nano", "out": None, "epochs": 2}


def test_ctrl_c_ends_a_search(tiny_qwen: Path) -> None:
    """And is no fold that failed, after which the next one begins."""
    begun = []

    def interrupt(now: Progress) -> None:
        if now.step == 1 and now.metrics is None:
            begun.append(now)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        cross_val_score(FenleiClassifier(tiny_qwen, progress=interrupt, **{**QUICK, "max_steps": 4}), TEXTS, LABELS, cv=2)
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({}, [f"{LABELS[0]} ", *LABELS[1:]], "'体育' and '体育 ' differ in blanks alone"),
        ({"level_separator": "##"}, [f"新闻 ## {one}" for one in LABELS], "write them so in y"),
        ({"class_file": "class.txt"}, [LABELS.index(one) for one in LABELS], "write them so in y"),
    ],
)
def test_names_that_training_would_change_are_said_before_it(
    options: dict[str, Any], labels: list[Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimators, "train", lambda *_, **__: pytest.fail("it was trained"))
    monkeypatch.chdir(tmp_path)
    Path("class.txt").write_text("体育\n财经\n科技\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        FenleiClassifier("nano", **options).fit(TEXTS, labels)


def test_before_it_is_fitted_it_says_so() -> None:
    for ask in (FenleiClassifier().predict, FenleiClassifier().predict_proba):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            ask(TEXTS)


@pytest.mark.parametrize(
    ("options", "texts", "labels", "error", "message"),
    [
        ({}, TEXTS, [[0, 1]] * 30 + [[1, 0]] * 30, DataError, "expected one label a row, .*'multilabel-indicator'.*several labels"),
        ({}, TEXTS, [0.5 + at for at in range(60)], DataError, "expected one label a row, .*'continuous'"),
        ({}, np.array([[text, text, text] for text in TEXTS]), LABELS, DataError, r"X: expected texts, .*shape \(60, 3\)"),
        ({}, [*TEXTS[:59], None], LABELS, RequestError, "text 59 is NoneType None, expected a string"),
        ({}, TEXTS[:59], LABELS, ValueError, "inconsistent numbers of samples"),
        ({"text_column": "title", "label_column": "y"}, TEXTS, LABELS, ConfigError, "label_column, text_column: fit"),
        ({"config": RunConfig()}, TEXTS, LABELS, ConfigError, "config: give its options by name"),
        ({}, TEXTS, [*LABELS[:17], None, *LABELS[18:]], DataError, "y: row 17 has no label .None.; leave such rows out"),
        ({}, TEXTS, [*range(17), float("nan"), *range(42)], DataError, "y: row 17 has no label"),
        ({}, TEXTS, [[one] if at else [one, one] for at, one in enumerate(LABELS)], DataError, "several labels train with"),
        ({"learning_rat": 0.1}, TEXTS, LABELS, ConfigError, "unknown option 'learning_rat' .did you mean 'learning_rate'"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], texts: Any, labels: Any, error: type[Exception], message: str, tiny_qwen: Path
) -> None:
    with pytest.raises(error, match=message):
        FenleiClassifier(tiny_qwen, **options).fit(texts, labels)

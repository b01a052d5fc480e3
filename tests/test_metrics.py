"""Our figures against scikit-learn's and scipy's own."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from fenlei.errors import DataError
from fenlei.evaluation.bootstrap import of_means
from fenlei.evaluation.metrics import compute_metrics, wilson_interval
from fenlei.labels import LabelSet

LABELS = LabelSet(("sports", "finance", "science", "never"))


def random_rows(rows=300, seed=0):
    """Gold ids that never are the last label, and probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 3, rows)
    probabilities = rng.dirichlet(np.ones(4), rows)
    probabilities[np.arange(rows), gold] += 0.3
    return gold, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def test_figures_are_those_of_scikit_learn():
    gold, probabilities = random_rows()
    predicted = probabilities.argmax(axis=1)
    ours = compute_metrics(gold, probabilities, LABELS)
    report = reference.classification_report(gold, predicted, labels=range(4), target_names=LABELS.names, output_dict=True, zero_division=0)
    assert ours.accuracy == pytest.approx(reference.accuracy_score(gold, predicted))
    assert ours.macro_precision == pytest.approx(report["macro avg"]["precision"])
    assert ours.macro_recall == pytest.approx(report["macro avg"]["recall"])
    assert ours.macro_f1 == pytest.approx(report["macro avg"]["f1-score"])
    assert ours.log_loss == pytest.approx(reference.log_loss(gold, probabilities, labels=range(4)), rel=1e-5)
    for one in ours.classes:
        expected = report[one.name]
        assert (one.precision, one.recall, one.f1) == pytest.approx((expected["precision"], expected["recall"], expected["f1-score"]))
        assert one.support == expected["support"]


def test_confusion_has_gold_rows_and_predicted_columns():
    gold = np.array([0, 0, 1])
    probabilities = np.eye(4)[[0, 2, 1]]
    confusion = compute_metrics(gold, probabilities, LABELS).confusion
    assert confusion.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_class_without_rows_counts_in_the_macro_figures():
    gold = np.array([0, 1, 2])
    metrics = compute_metrics(gold, np.eye(4)[gold], LABELS)
    assert metrics.accuracy == 1.0
    assert metrics.macro_f1 == 0.75
    assert metrics.classes[3].f1 == 0.0


@pytest.mark.parametrize(("right", "rows"), [(0, 7), (7, 7), (1, 1), (917, 1000), (5, 9)])
def test_the_interval_is_wilsons(right, rows):
    expected = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, rows) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_log_loss_stays_finite_where_the_right_label_has_no_probability():
    metrics = compute_metrics(np.array([0, 1]), np.array([[0, 1, 0, 0], [0, 1, 0, 0]], dtype=np.float32), LABELS)
    assert np.isfinite(metrics.log_loss)
    assert metrics.log_loss > 10


def test_one_row_is_enough():
    metrics = compute_metrics(np.array([2]), np.array([[0.1, 0.1, 0.7, 0.1]]), LABELS)
    assert metrics.accuracy == 1.0
    assert 0 < metrics.accuracy_interval[0] < 0.5


def test_a_single_label_is_measured_too():
    metrics = compute_metrics(np.array([0, 0]), np.ones((2, 1)), LabelSet(("all",)), uncertainty=True)
    assert (metrics.accuracy, metrics.macro_f1, metrics.log_loss) == (1.0, 1.0, 0.0)
    assert metrics.confusion.tolist() == [[2]]


def test_to_json_holds_plain_values_only():
    gold, probabilities = random_rows()
    metrics = compute_metrics(gold, probabilities, LABELS)
    back = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert back["accuracy"] == metrics.accuracy
    assert back["confusion"] == metrics.confusion.tolist()
    assert [one["name"] for one in back["classes"]] == list(LABELS)
    assert compute_metrics(gold, probabilities, LABELS) == metrics


@pytest.mark.parametrize(
    ("gold", "probabilities", "message"),
    [
        ([], np.zeros((0, 4)), "at least one labelled row"),
        ([0], np.ones((1, 3)) / 3, r"1 rows and 4 labels, found an array of shape \(1, 3\)"),
        ([0, 1], np.array([[1, 0, 0, 0], [np.nan, 0, 0, 1]]), "row 1: a probability is not a number"),
    ],
)
def test_what_cannot_be_measured_is_refused(gold, probabilities, message):
    with pytest.raises(DataError, match=message):
        compute_metrics(np.array(gold), probabilities, LABELS)


def test_averages_top_k_matthews_and_brier_are_those_of_scikit_learn():
    gold, probabilities = random_rows()
    predicted = probabilities.argmax(axis=1)
    ours = compute_metrics(gold, probabilities, LABELS)
    for average in ("micro", "weighted"):
        expected = reference.precision_recall_fscore_support(gold, predicted, labels=range(4), average=average, zero_division=0)[:3]
        assert tuple(getattr(ours, f"{average}_{name}") for name in ("precision", "recall", "f1")) == pytest.approx(expected)
    assert set(ours.top_k) == {2, 3}
    for k, share in ours.top_k.items():
        assert share == pytest.approx(reference.top_k_accuracy_score(gold, probabilities, k=k, labels=range(4)))
    assert ours.matthews == pytest.approx(reference.matthews_corrcoef(gold, predicted))
    assert ours.brier == pytest.approx(((probabilities - np.eye(4)[gold]) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_bootstrap_intervals_are_those_of_resampled_rows():
    """The matrix is resampled, not the rows: the same figures as by resampling rows and asking scikit-learn."""
    gold, probabilities = random_rows(400)
    predicted = probabilities.argmax(axis=1)
    ours = compute_metrics(gold, probabilities, LABELS, uncertainty=True).intervals
    rng = np.random.default_rng(5)
    samples = [rng.integers(0, 400, 400) for _ in range(250)]
    ways = {
        "accuracy": lambda rows: reference.accuracy_score(gold[rows], predicted[rows]),
        "macro_f1": lambda rows: reference.f1_score(gold[rows], predicted[rows], labels=range(4), average="macro", zero_division=0),
        "weighted_f1": lambda rows: reference.f1_score(gold[rows], predicted[rows], average="weighted", zero_division=0),
        "matthews": lambda rows: reference.matthews_corrcoef(gold[rows], predicted[rows]),
        "log_loss": lambda rows: reference.log_loss(gold[rows], probabilities[rows], labels=range(4)),
        "top_2": lambda rows: reference.top_k_accuracy_score(gold[rows], probabilities[rows], k=2, labels=range(4)),
    }
    for name, way in ways.items():
        expected = np.percentile([way(rows) for rows in samples], [2.5, 97.5])
        assert ours[name] == pytest.approx(expected, abs=0.25 * (expected[1] - expected[0])), name


def test_the_interval_of_macro_f1_holds_it_where_classes_have_few_rows():
    gold = np.arange(100)
    metrics = compute_metrics(gold, np.eye(100), LabelSet(tuple(map(str, gold.tolist()))), uncertainty=True)
    low, high = metrics.intervals["macro_f1"]
    assert low <= metrics.macro_f1 <= high


@pytest.mark.parametrize("step", [0, 1], ids=["as the first class", "as the next class"])
def test_intervals_of_f1_hold_it_where_classes_of_two_rows_are_half_right(step):
    """A ratio of few rows comes out below itself when they are drawn again."""
    classes = np.arange(300)
    wrong = (classes + 1) % 300 * step
    answered = np.eye(300)[np.concatenate([classes, wrong])]
    metrics = compute_metrics(np.tile(classes, 2), answered, LabelSet(tuple(map(str, classes.tolist()))), uncertainty=True)
    for name in ("macro_f1", "weighted_f1"):
        low, high = metrics.intervals[name]
        assert low <= getattr(metrics, name) <= high <= 1, name


def test_intervals_of_very_many_rows_are_near_those_of_resampling(monkeypatch):
    gold, probabilities = random_rows(3000)
    slow = compute_metrics(gold, probabilities, LABELS, uncertainty=True).intervals["brier"]
    monkeypatch.setattr("fenlei.evaluation.bootstrap.MANY_ROWS", 100)
    assert compute_metrics(gold, probabilities, LABELS, uncertainty=True).intervals["brier"] == pytest.approx(slow, abs=0.003)


def test_an_interval_of_very_many_rows_ends_where_its_figure_does(monkeypatch):
    monkeypatch.setattr("fenlei.evaluation.bootstrap.MANY_ROWS", 100)
    right = np.arange(300) > 0
    found = of_means({"right": right, "wrong": ~right})
    assert found["right"][0] < right.mean() < found["right"][1] <= 1
    assert 0 <= found["wrong"][0] < (~right).mean() < found["wrong"][1]


def test_uncertainty_comes_only_where_it_is_asked_for():
    gold, probabilities = random_rows()
    assert compute_metrics(gold, probabilities, LABELS).calibration_noise_floor is None
    asked = compute_metrics(gold, probabilities, LABELS, uncertainty=True)
    assert 0 < asked.calibration_noise_floor < 0.2
    assert json.loads(json.dumps(asked.to_json(), allow_nan=False))["intervals"]["macro_f1"] == list(asked.intervals["macro_f1"])

"""The softmax, the temperature, and what they must never do."""

import copy

import numpy as np
import pytest
from scipy.special import softmax

from fenlei.errors import DataError, ModelError, ScoresError
from fenlei.evaluation.calibration import fit_temperature, probabilities
from fenlei.evaluation.reliability import expected_calibration_error


def drawn(rows, temperature, seed=0):
    """Logits, and gold ids drawn from their softmax at `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, 5))
    true = softmax(logits / temperature, axis=1)
    gold = (rng.random((rows, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=4)
    return logits.astype(np.float32), gold


def nll(logits, gold, temperature):
    return -np.log(softmax(logits.astype(float) / temperature, axis=1)[np.arange(len(gold)), gold]).mean()


def test_probabilities_are_a_softmax_in_float32():
    logits, _ = drawn(50, 1.0)
    ours = probabilities(logits, 2.5)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, softmax(logits / 2.5, axis=1), atol=1e-6)
    np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0, 20.0])
def test_temperature_keeps_the_answer(temperature):
    logits, _ = drawn(200, 1.0)
    assert (probabilities(logits, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_huge_logits_do_not_overflow():
    np.testing.assert_allclose(probabilities(np.array([[1e30, 0.0], [-1e30, -1e30]])), [[1, 0], [0.5, 0.5]])


def test_a_label_that_is_no_candidate_gets_nothing_and_leaves_the_rest_alone():
    logits = np.array([[1.0, -np.inf, 2.0]])
    ours = probabilities(logits, 1.7)
    assert ours[0, 1] == 0.0
    np.testing.assert_allclose(ours[:, [0, 2]], probabilities(logits[:, [0, 2]], 1.7))


@pytest.mark.parametrize("row", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_scores_that_are_no_numbers_are_an_error(row):
    with pytest.raises(ScoresError, match="row 1: expected finite scores") as told:
        probabilities(np.array([[0.0, 1.0], row]))
    assert copy.copy(told.value).rows == (1,)  # as it comes from a worker
    with pytest.raises(ModelError, match="temperature"):
        probabilities(np.zeros((1, 2)), 0.0)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    logits, gold = drawn(20_000, temperature)
    assert fit_temperature(logits, gold) == pytest.approx(temperature, rel=0.05)


def test_the_fitted_temperature_explains_the_rows_best():
    logits, gold = drawn(2_000, 2.0, seed=1)
    fitted = fit_temperature(logits, gold)
    assert nll(logits, gold, fitted) < nll(logits, gold, 1.0)
    assert nll(logits, gold, fitted) <= min(nll(logits, gold, fitted * factor) for factor in (0.9, 0.97, 1.03, 1.1))
    calibrated = expected_calibration_error(probabilities(logits, fitted), gold)
    assert calibrated < expected_calibration_error(probabilities(logits), gold) / 3


def test_a_column_without_candidates_does_not_disturb_the_fit():
    logits, gold = drawn(500, 2.0)
    wider = np.concatenate([logits, np.full((500, 1), -np.inf, dtype=np.float32)], axis=1)
    assert fit_temperature(wider, gold) == pytest.approx(fit_temperature(logits, gold))
    gold_impossible = gold.copy()
    gold_impossible[:5] = 5
    assert fit_temperature(wider, gold_impossible) == pytest.approx(fit_temperature(logits[5:], gold[5:]))


def test_few_rows_all_right_or_all_wrong_give_a_moderate_temperature():
    logits = np.array([[5.0, 0.0, 0.0]] * 8)
    assert 0.5 < fit_temperature(logits, np.zeros(8, dtype=int)) < 1.0
    assert 1.0 < fit_temperature(logits, np.ones(8, dtype=int)) <= 20.0


def test_without_rows_nothing_changes():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0
    assert fit_temperature(np.array([[-np.inf, 0.0]]), np.array([0])) == 1.0


def test_nan_logits_are_not_fitted():
    with pytest.raises(ModelError, match="row 0"):
        fit_temperature(np.array([[np.nan, 1.0], [0.0, 1.0]]), np.array([0, 1]))


def test_calibration_error_of_known_cases():
    confident = np.array([[0.8, 0.2]] * 10)
    gold = np.array([0] * 8 + [1] * 2)
    assert expected_calibration_error(confident, gold) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(confident, np.zeros(10, dtype=int)) == pytest.approx(0.2)
    assert expected_calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])) == pytest.approx(0.5)
    with pytest.raises(DataError, match="at least one labelled row"):
        expected_calibration_error(np.zeros((0, 2)), np.zeros(0, dtype=int))


def test_certain_rows_share_the_last_bin_with_nearly_certain_ones():
    assert expected_calibration_error(np.array([[1.0, 0.0], [0.95, 0.05]]), np.array([1, 0])) == pytest.approx((1.0 - 0.05) / 2)


def test_calibration_error_follows_its_definition():
    """Rows that are right and wrong in stripes of confidence narrower than a bin, so that the number of bins shows."""
    confidence = np.random.default_rng(3).uniform(0.5, 1, 2_000)
    right = np.sin(90 * confidence) > 0
    expected = 0.0
    for at in range(15):
        inside = (confidence > at / 15) & (confidence <= (at + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected_calibration_error(np.stack([confidence, 1 - confidence], axis=1), (~right).astype(int)) == pytest.approx(expected)

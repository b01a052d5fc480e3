"""The promises of evaluation/: coverage of sets, accuracy of answered rows, novelty, paired tests.

On drawn scores, so that the truth is known.
"""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import binomtest
from sklearn.covariance import ledoit_wolf

from fenlei.errors import ConfigError, DataError, ModelError
from fenlei.evaluation.abstention import accuracy_by_coverage, accuracy_threshold, fixed_threshold, least_rows
from fenlei.evaluation.calibration import Calibration, fit_calibration, fit_temperature, fit_vector_scaling, probabilities
from fenlei.evaluation.comparison import holm, mcnemar
from fenlei.evaluation.conformal import fit_conformal
from fenlei.evaluation.novelty import ClassGaussians, auroc, energy, rank_among
from fenlei.evaluation.reliability import expected_calibration_error, noise_floor, reliability


def drawn(rows, seed=0, labels=6, sharpness=3.0):
    """Probabilities, and gold ids drawn from them: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    scores = softmax(rng.normal(0, sharpness, (rows, labels)), axis=1)
    gold = (rng.random((rows, 1)) > scores.cumsum(axis=1)).sum(axis=1).clip(max=labels - 1)
    return scores.astype(np.float32), gold


# Calibration


def test_vector_scaling_is_taken_where_classes_differ_and_lowers_the_loss_on_new_rows():
    true, gold = drawn(6000)
    distorted = np.log(true) * [3, 1, 1, 1, 1, 0.4] + [0, 2, 0, 0, -1, 0]
    fitted = fit_calibration(distorted[:3000], gold[:3000])
    assert fitted.scale is not None
    own = np.arange(3000)
    plain = probabilities(distorted[3000:], fitted.temperature)[own, gold[3000:]]
    assert -np.log(fitted.probabilities(distorted[3000:])[own, gold[3000:]]).mean() < -np.log(plain).mean() - 0.1
    np.testing.assert_allclose(fitted.scale, 1 / np.array([3, 1, 1, 1, 1, 0.4]), rtol=0.25)


def test_vector_scaling_is_not_taken_where_one_temperature_tells_all_or_a_class_has_few_rows():
    true, gold = drawn(3000)
    fitted = fit_calibration(2.5 * np.log(true), gold)
    assert fitted.scale is None
    assert fitted.temperature == pytest.approx(2.5, rel=0.1)
    few = np.flatnonzero((gold != 5) | (np.cumsum(gold == 5) <= 29))
    assert fit_calibration((np.log(true) * [3, 1, 1, 1, 1, 0.4])[few], gold[few]).scale is None


def test_of_very_many_rows_a_sample_says_what_is_better_and_all_are_fitted(monkeypatch):
    true, gold = drawn(3000)
    distorted = np.log(true) * [3, 1, 1, 1, 1, 0.4] + [0, 2, 0, 0, -1, 0]
    rows = []

    def counted(logits, label_ids, temperature):
        rows.append(len(label_ids))
        return fit_vector_scaling(logits, label_ids, temperature)

    monkeypatch.setattr("fenlei.evaluation.calibration.fit_vector_scaling", counted)
    monkeypatch.setattr("fenlei.evaluation.calibration.JUDGED_CELLS", 6 * 2000)
    fitted = fit_calibration(distorted, gold)
    assert rows == [1600] * 5 + [3000]
    assert fitted == fit_vector_scaling(distorted, gold, fitted.temperature)


def test_what_is_said_too_much_of_new_classes_is_taken_back():
    """Of an extended network: one summand for all new labels, on few rows, where it helps and there are rows of both kinds."""
    true, gold = drawn(150)
    biased = 1.8 * np.log(true) + [0, 0, 0, 0, 2.7, 2.7]
    fitted = fit_calibration(biased, gold, known=4)
    assert fitted.bias is not None
    assert fitted.bias[:4] == (0.0,) * 4
    assert fitted.bias[4] == fitted.bias[5] == pytest.approx(-1.5, abs=0.4)
    new, answers = gold >= 4, [probabilities(biased).argmax(1), fitted.probabilities(biased).argmax(1)]
    assert (answers[1] == gold)[~new].mean() > (answers[0] == gold)[~new].mean() + 0.1
    assert fit_calibration(1.8 * np.log(true), gold, known=4).bias is None
    assert fit_calibration(biased, gold).bias is None
    few = ~new | (np.cumsum(new) <= 19)
    assert fit_calibration(biased[few], gold[few], known=4).bias is None


def test_a_class_without_rows_stays_near_the_temperature():
    true, gold = drawn(500)
    seen = gold != 5
    fitted = fit_vector_scaling(np.log(true)[seen], gold[seen], 1.0)
    assert np.isfinite(fitted.probabilities(np.log(true))).all()
    assert -3 < fitted.bias[5] < 0


def test_calibration_comes_back_from_the_manifest():
    logits = np.random.default_rng(0).normal(size=(20, 3))
    for one in (Calibration(1.7), Calibration(1.7, (1.0, 2.0, 0.5), (0.0, -1.0, 0.25))):
        np.testing.assert_array_equal(Calibration.from_json(one.to_json()).probabilities(logits), one.probabilities(logits))
    np.testing.assert_array_equal(Calibration(1.7).probabilities(logits), probabilities(logits, 1.7))


# Reliability


def test_the_noise_floor_is_what_a_perfect_model_measures():
    measured = [expected_calibration_error(*drawn(400, seed)) for seed in range(40)]
    assert noise_floor(drawn(400)[0]) == pytest.approx(np.mean(measured), rel=0.1)
    assert noise_floor(drawn(40_000)[0]) < 0.2 * np.mean(measured)


def test_the_bins_hold_every_row_and_add_up_to_the_calibration_error():
    scores, gold = drawn(700)
    bins = reliability(scores, gold)
    assert sum(one.rows for one in bins) == 700
    assert (bins[0].low, bins[-1].high) == (0, 1)
    gap = sum(one.rows * abs(one.accuracy - one.confidence) for one in bins) / 700
    assert gap == pytest.approx(expected_calibration_error(scores, gold))


# Abstention


def test_the_promised_accuracy_holds_on_new_rows():
    """200 times: a threshold from 3,000 rows, its true accuracy on very many. It may fail in 5 % of them."""
    many, gold = drawn(200_000, seed=1, sharpness=5)
    right, sure = many.argmax(axis=1) == gold, many.max(axis=1)
    failures, coverages = 0, []
    for seed in range(200):
        rule = accuracy_threshold(0.95, *drawn(3000, seed + 10, sharpness=5))
        failures += right[sure >= rule.min_confidence].mean() < 0.95
        coverages.append(rule.coverage)
    assert failures <= 0.05 * 200 + 2 * np.sqrt(200 * 0.05 * 0.95)
    best = np.flatnonzero(np.cumsum(right[np.argsort(-sure)]) / np.arange(1, 200_001) >= 0.95).max() / 200_000
    assert best - 0.12 < np.mean(coverages) < best  # and it does not pay for the promise with silence


def test_a_target_that_all_rows_reach_answers_all():
    scores, _ = drawn(500)
    rule = accuracy_threshold(0.9, scores, scores.argmax(axis=1))
    assert (rule.min_confidence, rule.coverage, rule.accuracy) == (0.0, 1.0, 1.0)


def test_a_target_that_cannot_be_had_is_an_error_that_says_what_can():
    scores, _ = drawn(1000)
    with pytest.raises(DataError, match=r"0\.99 cannot be promised from these 1,000 .* supports? is about 0\.") as error:
        accuracy_threshold(0.99, scores, (scores.argmax(axis=1) + (np.arange(1000) % 10 == 0)) % 6)
    possible = float(str(error.value).split("about ")[1].split(";")[0])
    assert accuracy_threshold(possible - 0.005, scores, (scores.argmax(axis=1) + (np.arange(1000) % 10 == 0)) % 6).coverage > 0


def test_too_few_rows_for_a_target_are_named_and_one_more_than_the_least_is_enough():
    scores, _ = drawn(least_rows(0.9))
    assert accuracy_threshold(0.9, scores, scores.argmax(axis=1)).coverage == 1.0
    with pytest.raises(DataError, match=r"takes at least 42 calibrating rows to promise, there are 41"):
        accuracy_threshold(0.9, scores[1:], scores[1:].argmax(axis=1))


def test_rows_that_share_the_threshold_are_answered_alike():
    confident = np.array([[0.9, 0.1]] * 300 + [[0.6, 0.4]] * 300)
    gold = np.array([0] * 300 + [0, 1] * 150)
    rule = accuracy_threshold(0.95, confident, gold)
    assert rule.coverage == 0.5
    np.testing.assert_array_equal(rule.abstains(confident), [False] * 300 + [True] * 300)


def test_a_fixed_threshold_tells_what_it_costs():
    confident = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.9, 0.1]])
    rule = fixed_threshold(0.7, confident, np.array([0, 1, 0, 0]))
    assert (rule.coverage, rule.accuracy) == (0.75, pytest.approx(2 / 3))
    assert rule.abstains(confident).tolist() == [False, False, True, False]
    assert fixed_threshold(0.99, confident, np.zeros(4, dtype=int)).accuracy is None
    assert fixed_threshold(0.5, np.zeros((0, 2)), np.zeros(0, dtype=int)).coverage is None


def test_accuracy_by_coverage_goes_from_the_surest_row_to_all():
    share, accuracy = accuracy_by_coverage(np.array([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2]]), np.array([1, 0, 0]))
    np.testing.assert_allclose(share, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(accuracy, [1, 1, 2 / 3])


# Prediction sets


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("coverage", [0.9, 0.95, 0.99])
def test_sets_hold_the_label_as_often_as_asked(score, coverage):
    covered, misses = [], 0
    for seed in range(60):
        scores, gold = drawn(1500, seed, sharpness=2.0)
        sets = fit_conformal(coverage, scores[:500], gold[:500], score=score).sets(scores[500:])
        covered.append(sets[np.arange(1000), gold[500:]].mean())
        misses += (~sets.any(axis=1)).sum()
    assert np.mean(covered) == pytest.approx(coverage, abs=0.006)
    assert score == "lac" or misses == 0


def test_lac_gives_empty_sets_where_the_model_is_better_than_asked_and_aps_never():
    scores, _ = drawn(2000)
    gold = scores.argmax(axis=1)
    lac, aps = (fit_conformal(0.8, scores, gold, score=score).sets(scores) for score in ("lac", "aps"))
    assert (~lac.any(axis=1)).mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_array_equal(aps.sum(axis=1), 1)


def test_class_conditional_sets_cover_every_class_where_marginal_ones_do_not():
    rng = np.random.default_rng(0)
    gold = rng.choice(3, 6000, p=[0.45, 0.45, 0.1])
    logits = rng.normal(0, 1, (6000, 3))
    logits[np.arange(6000), gold] += np.array([4, 4, 0])[gold]
    scores = softmax(logits, axis=1)
    shares = {}
    for conditional in (False, True):
        sets = fit_conformal(0.9, scores[:3000], gold[:3000], class_conditional=conditional).sets(scores[3000:])
        inside = sets[np.arange(3000), gold[3000:]]
        shares[conditional] = [inside[gold[3000:] == label].mean() for label in range(3)]
    assert shares[False][2] < 0.6
    np.testing.assert_allclose(shares[True], 0.9, atol=0.05)


def test_a_class_without_rows_is_in_every_class_conditional_set():
    scores, gold = drawn(900)
    seen = gold != 5
    rule = fit_conformal(0.9, scores[seen], gold[seen], class_conditional=True)
    assert rule.unpromised.tolist() == [5]
    assert rule.sets(scores)[:, 5].all()


def test_too_few_rows_for_a_coverage_are_an_error():
    scores, gold = drawn(99)
    assert np.isfinite(fit_conformal(0.99, scores, gold).thresholds).all()
    with pytest.raises(DataError, match=r"0\.99 take at least 99 calibrating rows, there are 98"):
        fit_conformal(0.99, scores[:98], gold[:98])
    with pytest.raises(DataError, match="no class has so many"):
        fit_conformal(0.99, scores, gold, class_conditional=True)
    with pytest.raises(ConfigError, match="between 0 and 1, was 95"):
        fit_conformal(95, scores, gold)


def test_a_score_that_is_not_a_number_is_named_with_its_row():
    scores, gold = drawn(60)
    scores[7, 2] = np.nan
    for promise in (fit_conformal, accuracy_threshold):
        with pytest.raises(DataError, match="row 7: a probability is not a number"):
            promise(0.9, scores, gold)
    with pytest.raises(DataError, match="row 3: label id 6 has no column"):
        fit_conformal(0.9, drawn(60)[0], np.where(np.arange(60) == 3, 6, 0))


# Novelty


def test_energy_is_minus_log_sum_exp_and_survives_large_logits():
    logits = np.random.default_rng(0).normal(0, 5, (30, 4))
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1))
    assert energy(np.array([[1e30, 0.0]]))[0] == -1e30
    with pytest.raises(ModelError, match="row 1: expected finite"):
        energy(np.array([[0.0, 1.0], [np.nan, 1.0]]))


def test_distances_are_mahalanobis_to_the_nearest_class():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 400)
    states = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 10 * rng.normal(size=(4, 5))[gold]
    fitted = ClassGaussians.fit(states, gold)
    means = np.stack([states[gold == label].mean(axis=0) for label in range(3)])
    inverse = np.linalg.inv(ledoit_wolf(states - means[gold], assume_centered=True)[0])
    away = states[:, None] - means
    np.testing.assert_allclose(fitted.distances(states), np.einsum("nci,ij,ncj->nc", away, inverse, away).min(axis=1), rtol=1e-2)


def test_distances_find_what_is_off_the_classes_even_with_more_dimensions_than_rows():
    rng = np.random.default_rng(0)
    gold = np.arange(60) % 3
    centres = rng.normal(0, 3, (3, 100))
    fitted = ClassGaussians.fit(rng.normal(size=(60, 100)) + centres[gold], gold)
    known = fitted.distances(rng.normal(size=(200, 100)) + centres[np.arange(200) % 3])
    assert auroc(known, fitted.distances(rng.normal(size=(200, 100)) + centres.mean(axis=0))) > 0.99
    with pytest.raises(DataError, match="two rows of some class"):
        ClassGaussians.fit(rng.normal(size=(3, 4)), np.arange(3))


def test_a_state_that_never_varies_is_no_division_by_zero():
    states = np.zeros((20, 3))
    states[:, 0] = np.arange(20)
    assert np.isfinite(ClassGaussians.fit(states, np.arange(20) % 2).distances(states)).all()


def test_the_rank_is_the_share_of_known_rows_below():
    assert rank_among(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.5, 4.0, 9.0])).tolist() == [0.0, 0.5, 0.75, 1.0]
    with pytest.raises(DataError, match="found 0 and 1"):
        auroc(np.zeros(0), np.zeros(1))


# Comparison


def test_mcnemar_looks_at_the_disputed_rows_alone():
    first = np.array([True] * 900 + [True] * 30 + [False] * 12 + [False] * 58)
    second = np.array([True] * 900 + [False] * 30 + [True] * 12 + [False] * 58)
    found = mcnemar(first, second)
    assert (found.both, found.only_first, found.only_second, found.neither) == (900, 30, 12, 58)
    assert found.p_value == pytest.approx(binomtest(12, 42).pvalue)
    assert mcnemar(first, first).p_value == 1.0
    with pytest.raises(DataError, match="each of the same rows"):
        mcnemar(first, second[1:])


def test_holm_raises_p_values_and_keeps_their_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)


def test_temperature_and_vector_agree_where_there_is_nothing_to_scale():
    true, gold = drawn(400)
    plain = fit_temperature(np.log(true), gold)
    same = Calibration(plain, (1 / plain,) * 6, (0.0,) * 6)
    np.testing.assert_allclose(same.probabilities(np.log(true)), probabilities(np.log(true), plain), atol=1e-6)

"""What is said with 0.8 comes true in 80 of 100 cases, or the table shows it."""

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.metrics import expected_calibration_error, reliability_table


def test_the_error_is_the_distance_of_stated_and_observed_frequency():
    stated = np.repeat([0.25, 0.85], [40, 60])
    truth = np.concatenate([np.repeat([1, 0], [10, 30]), np.repeat([1, 0], [30, 30])])
    # 0.25 comes true in 10 of 40; 0.85 in 30 of 60.
    assert expected_calibration_error(stated, truth) == pytest.approx(0.6 * 0.35)
    table = reliability_table(stated, truth, n_bins=10)
    filled = table[table["n_samples"] > 0]
    np.testing.assert_allclose(filled["confidence"], [0.25, 0.85])
    np.testing.assert_allclose(filled["frequency"], [0.25, 0.5])
    np.testing.assert_allclose(filled["low"], [0.2, 0.8])
    assert table["confidence"].isna().sum() == 8


def test_a_calibrated_forecast_errs_by_chance_alone_and_an_overconfident_one_more():
    rng = np.random.default_rng(0)
    chance = rng.random(200_000)
    truth = rng.random(len(chance)) < chance
    # Each of 15 bins errs by about sqrt(p (1 - p) / n), at most 0.5 / sqrt(13_000).
    assert expected_calibration_error(chance, truth) < 3 * 0.5 / np.sqrt(13_000)
    # Pushed half-way to 0 or 1, it errs by half the distance, whose mean is 1/8.
    pushed = (chance + (chance > 0.5)) / 2
    assert expected_calibration_error(pushed, truth) == pytest.approx(1 / 8, abs=0.01)


def test_bins_are_those_of_scikit_learn():
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(1)
    stated = np.concatenate([rng.random(300), [0, 0.2, 0.4, 1]])
    truth = rng.integers(0, 2, len(stated))
    frequency, confidence = calibration_curve(truth, stated, n_bins=10)
    table = reliability_table(stated, truth, n_bins=10).dropna()
    np.testing.assert_allclose(table["frequency"], frequency, rtol=1e-12)
    np.testing.assert_allclose(table["confidence"], confidence, rtol=1e-12)


def test_of_several_classes_the_most_probable_one_is_judged():
    stated = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
    table = reliability_table(stated, [0, 1, 1], n_bins=5).dropna()
    np.testing.assert_allclose(table["confidence"], [0.6, 0.8])
    np.testing.assert_allclose(table["frequency"], [0.5, 0])


def test_mistakes_are_clear_errors():
    with pytest.raises(UsageError, match="logits"):
        reliability_table([0.2, 1.4], [0, 1])
    with pytest.raises(UsageError, match="logits, or is one nan"):
        reliability_table([0.2, np.nan], [0, 1])
    with pytest.raises(UsageError, match="sum to 1"):
        reliability_table([[0.2, 0.2]], [0])
    with pytest.raises(UsageError, match="classes 0 to 1"):
        reliability_table([0.2, 0.3], [0, 2])
    with pytest.raises(UsageError, match=r"truth \(n_samples,\)"):
        reliability_table([0.2, 0.3], [0])
    with pytest.raises(UsageError, match="n_bins"):
        reliability_table([0.2], [0], n_bins=0)

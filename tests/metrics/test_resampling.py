"""Bootstrap intervals hold the truth, and draw patients rather than samples."""

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.metrics import bootstrap_interval


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        low, high = bootstrap_interval(
            rng.normal(0.8, 0.1, 40), n_resamples=400, rng=seed
        )
        held += low <= 0.8 <= high
    # Of 400 intervals of 95 %, with three standard errors, and a little for 40 values.
    assert 0.90 <= held / 400 <= 0.98


def test_samples_of_one_patient_do_not_make_an_interval_narrower():
    rng = np.random.default_rng(1)
    patients = rng.normal(0.8, 0.1, 15)
    alone = bootstrap_interval(patients)
    repeated = bootstrap_interval(
        np.repeat(patients, 20), groups=np.repeat(np.arange(15), 20)
    )
    assert repeated == pytest.approx(alone)
    pretended = bootstrap_interval(np.repeat(patients, 20))
    assert np.diff(pretended) < 0.5 * np.diff(alone)


def test_missing_values_do_not_count_and_one_patient_has_no_interval():
    values = [0.5, np.nan, 0.7, 0.9]
    assert bootstrap_interval(values) == bootstrap_interval([0.5, 0.7, 0.9])
    assert np.isnan(bootstrap_interval([0.5, 0.6], groups=["a", "a"])).all()
    with pytest.raises(UsageError, match="one group a value"):
        bootstrap_interval(values, groups=[1])
    with pytest.raises(UsageError, match="confidence"):
        bootstrap_interval(values, confidence=95)

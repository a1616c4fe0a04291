"""Column statistics against NumPy, scikit-learn and their own algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score as sklearn_r2

from neuromm.kernels import (
    Moments,
    column_correlation,
    column_dot,
    column_r2,
    is_constant,
)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 7)) + 100
    return x, 0.5 * x + rng.standard_normal((500, 7))


def test_correlation_equals_numpy(pair):
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(*(m.T for m in pair))]  # noqa: B905
    np.testing.assert_allclose(column_correlation(*pair), expected, rtol=1e-12)


def test_r2_equals_scikit_learn(pair):
    expected = sklearn_r2(*pair, multioutput="raw_values")
    np.testing.assert_allclose(column_r2(*pair), expected, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), gain=st.floats(0.01, 100), shift=st.floats(-9, 9))
def test_correlation_ignores_gain_and_offset(seed, gain, shift):
    x, y = np.random.default_rng(seed).standard_normal((2, 30, 4))
    np.testing.assert_allclose(
        column_correlation(gain * x + shift, y),
        column_correlation(x, y),
        # An offset of 9 over a gain of 0.01 costs three digits of sixteen.
        atol=1e-11,
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_constants_are_nan_even_where_their_mean_rounds(dtype):
    x = np.full((7, 2), 0.1, dtype=dtype)
    x[0, 1] = 0.3
    y = np.arange(14, dtype=dtype).reshape(7, 2)
    np.testing.assert_array_equal(is_constant(x), [True, False])
    for r in (column_correlation(x, y), column_correlation(y, x), column_r2(x, y)):
        assert r.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(np.isnan(r), [True, False])


def test_float32_sums_over_a_long_recording_keep_their_digits():
    x = np.random.default_rng(0).random((200_000, 2), dtype=np.float32)
    exact = (x.astype("f8") ** 2).sum(0)
    # A single float32 accumulator loses about 1e-4 here.
    np.testing.assert_allclose(column_dot(x, x), exact, rtol=2e-6)


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 59), offset=st.floats(-1e3, 1e3))
def test_merged_moments_are_those_of_all_samples(cut, offset):
    rng = np.random.default_rng(3)
    y = rng.standard_normal((60, 4)) + offset
    yhat = y + rng.standard_normal((60, 4)) + 0.2
    merged = Moments.of(y[:cut], yhat[:cut]).merge(Moments.of(y[cut:], yhat[cut:]))
    np.testing.assert_allclose(merged.correlation(), column_correlation(y, yhat))
    np.testing.assert_allclose(merged.r2(), column_r2(y, yhat))


def test_moments_tell_constant_responses_from_constant_predictions():
    varying = np.arange(6.0)[:, None]
    constant = np.full((6, 1), 0.1)
    prediction = Moments.of(varying[:2], constant[:2]).merge(
        Moments.of(varying[2:], constant[2:])
    )
    assert prediction.correlation() == 0
    response = Moments.of(constant, varying)
    assert np.isnan(response.correlation()).all()
    assert np.isnan(response.r2()).all()

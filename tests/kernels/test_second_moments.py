"""Second moments of responses and predictions against sums over kept samples."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.kernels import column_r2, second_moments
from neuromm.kernels.second_moments import SecondMoments


def held_out(seed=0, n_spaces=3, n_samples=60, n_targets=4, offset=0.0):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n_samples, n_targets)) + offset
    noise = rng.standard_normal((n_spaces, n_samples, n_targets))
    return y, 0.6 * y + noise + 0.1


def test_products_are_those_of_kept_samples():
    y, predictions = held_out()
    everything = np.concatenate([y[None], predictions])
    moments = SecondMoments.of(y, predictions)
    np.testing.assert_allclose(
        moments.products_about_zero(),
        np.einsum("int,jnt->ijt", everything, everything),
        rtol=1e-12,
    )
    errors = y - predictions
    np.testing.assert_allclose(
        moments.residual_products(),
        np.einsum("int,jnt->ijt", errors, errors) / len(y),
        rtol=1e-12,
    )
    for space, r2 in enumerate(moments.space_r2()):
        np.testing.assert_allclose(r2, column_r2(y, predictions[space]), rtol=1e-12)
    joint = 1 - ((y - predictions.sum(0)) ** 2).sum(0) / (y**2).sum(0)
    np.testing.assert_allclose(moments.joint_r2(), joint, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 59), min_size=1, max_size=4, unique=True),
    offset=st.floats(-1e3, 1e3),
)
def test_merged_folds_are_all_samples(cuts, offset):
    y, predictions = held_out(3, offset=offset)
    edges = [0, *sorted(cuts), len(y)]
    merged, *others = [
        SecondMoments.of(y[a:b], predictions[:, a:b]) for a, b in pairwise(edges)
    ]
    for other in others:
        merged = merged.merge(other)
    whole = SecondMoments.of(y, predictions)
    assert merged.n_samples == whole.n_samples
    # Deviations are of order 1, so 60 products of them are known to 1e-13 or so; an
    # offset of 1000 rounds them at 1e-13 each.
    np.testing.assert_allclose(merged.products, whole.products, atol=1e-9)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(merged.highest, y.max(0))


def test_blocks_of_rows_and_targets_leave_no_seam(monkeypatch):
    y, predictions = held_out(n_samples=37, n_targets=11)
    whole = SecondMoments.of(y, predictions)
    monkeypatch.setattr(second_moments, "_ROWS", 5)
    monkeypatch.setattr(second_moments, "_BLOCK_ON_HOST", 4 * 5 * 3)
    blocks = SecondMoments.of(y, predictions)
    np.testing.assert_allclose(blocks.products, whole.products, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-13)
    np.testing.assert_array_equal(blocks.lowest, whole.lowest)


def test_responses_far_from_zero_cost_no_digits():
    y, predictions = held_out()
    near = SecondMoments.of(y, predictions).residual_products()
    far = SecondMoments.of(y + 2.0**20, predictions + 2.0**20).residual_products()
    # Data at 2^20 are rounded at 1e-10; sums of their squares would err by 1e-4.
    np.testing.assert_allclose(far, near, rtol=1e-8, atol=1e-9)


def test_float32_data_are_summed_in_float64():
    y, predictions = (a.astype("f4") for a in held_out(n_samples=20_000))
    moments = SecondMoments.of(y, predictions)
    exact = SecondMoments.of(y.astype("f8"), predictions.astype("f8"))
    np.testing.assert_array_equal(moments.products, exact.products)
    assert moments.products.dtype == np.float64


def test_torch_gives_the_moments_of_numpy():
    torch = pytest.importorskip("torch")
    y, predictions = held_out()
    expected = SecondMoments.of(y, predictions)
    moments = SecondMoments.of(torch.from_numpy(y), torch.from_numpy(predictions))
    assert isinstance(moments.products, np.ndarray)
    np.testing.assert_allclose(moments.products, expected.products, rtol=1e-12)
    np.testing.assert_array_equal(moments.highest, expected.highest)


def test_a_target_with_nan_spoils_no_other():
    y, predictions = held_out()
    whole = SecondMoments.of(y, predictions)
    y[7, 1] = np.nan
    predictions[2, 5, 3] = np.inf
    moments = SecondMoments.of(y, predictions)
    np.testing.assert_array_equal(moments.products[:, [0, 2]], whole.products[:, ::2])
    np.testing.assert_array_equal(
        np.isnan(moments.joint_r2()), [False, True, False, True]
    )


def test_a_constant_target_has_no_r2_even_where_its_mean_rounds():
    y, predictions = held_out()
    y[:, 1] = 0.1
    moments = SecondMoments.of(y, predictions)
    for r2 in (moments.joint_r2(), *moments.space_r2()):
        np.testing.assert_array_equal(np.isnan(r2), [False, True, False, False])


def test_some_targets_have_the_moments_they_have_among_all():
    y, predictions = held_out()
    some = SecondMoments.of(y, predictions).of_targets(np.array([2, 0]))
    alone = SecondMoments.of(y[:, [2, 0]], predictions[:, :, [2, 0]])
    np.testing.assert_allclose(some.products, alone.products, rtol=1e-13)
    np.testing.assert_array_equal(some.lowest, alone.lowest)


@pytest.mark.parametrize(
    ("y", "predictions", "message"),
    [
        ((5, 2), (3, 4, 2), r"got \(5, 2\) and \(3, 4, 2\)"),
        ((5,), (3, 5), "must have shape"),
        ((0, 2), (3, 0, 2), "at least one sample"),
        ((5, 2), (0, 5, 2), "at least one sample"),
    ],
)
def test_shapes_that_do_not_belong_together_are_named(y, predictions, message):
    with pytest.raises(ValueError, match=message):
        SecondMoments.of(np.zeros(y), np.zeros(predictions))


def test_moments_of_other_targets_are_not_merged():
    first = SecondMoments.of(*held_out(n_targets=4))
    with pytest.raises(ValueError, match="3 spaces and 4 targets, and 3 and 1"):
        first.merge(SecondMoments.of(*held_out(n_targets=1)))

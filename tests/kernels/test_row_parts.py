"""Parts of rows: folds are their unions, and moments of folds are sums over them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneOut

from neuromm.encoding import BlockedKFold
from neuromm.kernels import row_parts
from neuromm.kernels.row_parts import target_rows


@st.composite
def splits_of_some_rows(draw):
    """Folds that may overlap, repeat rows, and leave rows out."""
    n_samples = draw(st.integers(2, 12))
    rows = st.lists(st.integers(0, n_samples - 1), min_size=1, max_size=20)
    folds = draw(st.lists(st.tuples(rows, rows), min_size=1, max_size=4))
    return n_samples, [(np.array(train), np.array(test)) for train, test in folds]


@settings(max_examples=60, deadline=None)
@given(splits_of_some_rows())
def test_every_side_of_every_fold_is_a_union_of_parts(case):
    n_samples, splits = case
    parts = row_parts(splits, n_samples)
    np.testing.assert_array_equal(np.sort(parts.order), np.arange(n_samples))
    for fold, sides in enumerate(splits):
        for counts, rows in zip(
            (parts.train[fold], parts.test[fold]), sides, strict=True
        ):
            counted = parts.order[parts.index(counts)]
            np.testing.assert_array_equal(np.sort(counted), np.sort(rows))
            assert parts.n_rows(counts) == len(rows)


@settings(max_examples=60, deadline=None)
@given(splits_of_some_rows(), st.integers(0, 2**31), st.booleans())
def test_moments_of_a_fold_are_those_of_its_rows(case, seed, centred):
    n_samples, splits = case
    y = np.random.default_rng(seed).standard_normal((n_samples, 3)) + 2.0
    parts = row_parts(splits, n_samples)
    targets = target_rows(y, parts)
    for fold, (train, _) in enumerate(splits):
        counts, rows = parts.train[fold], y[train]
        centre = rows.mean(0) if centred else np.zeros(3)
        np.testing.assert_allclose(targets.mean(counts), rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(
            targets.squares_about(counts, centre),
            ((rows - centre) ** 2).sum(0),
            atol=1e-12,
        )
        about = targets.rows_about(counts, centre)
        expected = y[parts.order[parts.index(counts)]] - centre
        np.testing.assert_allclose(about, expected, atol=1e-14)
        np.testing.assert_array_equal(targets.is_constant(counts), np.ptp(rows, 0) == 0)


def test_contiguous_folds_copy_no_rows_and_have_a_part_each():
    splits = list(BlockedKFold(5).split(np.zeros((23, 1))))
    parts = row_parts(splits, 23)
    x = np.ones((23, 2))
    assert parts.in_order(x) is x
    np.testing.assert_array_equal(parts.sizes, [5, 5, 5, 4, 4])


def test_purged_folds_need_few_parts():
    onset = np.arange(60.0)
    splits = list(BlockedKFold(5, purge=3.0, onset=onset).split(np.zeros((60, 1))))
    # Each inner fold: its rows, and the ends of them that the neighbours purge.
    assert len(row_parts(splits, 60).slices) == 13


def test_leave_one_out_takes_a_byte_a_sample_and_fold():
    # Eight bytes made 3000 samples take 288 MB, and seconds.
    parts = row_parts(list(LeaveOneOut().split(np.zeros((300, 1)))), 300)
    assert len(parts.slices) == 300
    assert parts.train.itemsize == parts.test.itemsize == 1


def test_a_row_may_be_counted_more_often_than_a_byte_holds():
    often = np.repeat([0, 1], [300, 1])
    parts = row_parts([(often, np.array([2]))], 3)
    assert parts.n_rows(parts.train[0]) == 301


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_mean_of_a_constant_is_its_value_to_the_last_bit(dtype):
    splits = list(BlockedKFold(3).split(np.zeros((10, 1))))
    y = np.full((10, 2), 0.1, dtype)
    y[7:] = [5.0, -3.0]  # constant in the training rows of the last fold alone
    parts = row_parts(splits, 10)
    targets = target_rows(y, parts)
    train = parts.train[2]
    np.testing.assert_array_equal(targets.mean(train), y[0].astype("f8"))
    np.testing.assert_array_equal(targets.rows_about(train, targets.mean(train)), 0)


def test_float32_targets_far_from_zero_keep_what_the_type_holds():
    # The mean of a part rounds to 0.03 here. Neither rows nor moments may see that.
    rng = np.random.default_rng(0)
    y = (rng.standard_normal((40, 3)) + 1e6).astype("f4")
    exact = y.astype("f8")
    parts = row_parts(list(BlockedKFold(4).split(np.zeros((40, 1)))), 40)
    targets = target_rows(y, parts)
    for counts in parts.train:
        rows = exact[parts.order[parts.index(counts)]]
        mean = targets.mean(counts)
        np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-14)
        about = targets.rows_about(counts, mean)
        np.testing.assert_allclose(about, rows - rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(
            targets.squares_about(counts, mean),
            ((rows - rows.mean(0)) ** 2).sum(0),
            rtol=1e-5,
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "constant"])
def test_a_masked_target_is_zero_and_leaves_its_neighbours_alone(value):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((12, 3))
    parts = row_parts(list(BlockedKFold(3).split(np.zeros((12, 1)))), 12)
    clean = target_rows(y, parts)
    if value == "constant":
        y[:, 1] = 0.1
    else:
        y[4, 1] = value
    targets = target_rows(y, parts)
    np.testing.assert_array_equal(targets.valid, [True, False, True])
    np.testing.assert_array_equal(targets.rows[:, 1], 0)
    for name in ("rows", "means", "squares"):
        np.testing.assert_array_equal(
            getattr(targets, name)[:, [0, 2]], getattr(clean, name)[:, [0, 2]]
        )
    expected = 0.1 if value == "constant" else np.nan
    np.testing.assert_array_equal(targets.constants(), [np.nan, expected, np.nan])

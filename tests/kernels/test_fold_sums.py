"""Sums over the parts of folds, shared where folds leave out one part each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.kernels.row_parts import fold_sums


@given(
    n_folds=st.integers(1, 6),
    n_parts=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    most=st.integers(1, 3),
)
def test_any_folds_are_summed_part_by_part(n_folds, n_parts, seed, most):
    rng = np.random.default_rng(seed)
    values = list(rng.integers(-99, 99, (n_parts, 2, 3)).astype(float))
    counts = rng.integers(0, most + 1, (n_folds, n_parts))
    counts[counts.sum(axis=1) == 0, 0] = 1  # a fold has rows
    kept = [value.copy() for value in values]
    expected = np.tensordot(counts, np.stack(values), axes=1)
    np.testing.assert_array_equal(np.stack(fold_sums(values, counts)), expected)
    np.testing.assert_array_equal(values, kept)


@pytest.mark.parametrize("n_parts", [2, 3, 4, 5, 12])
def test_folds_that_leave_out_one_part_share_their_sums(n_parts):
    values = list(np.random.default_rng(0).integers(-99, 99, (n_parts, 4)) * 1.0)
    kept = [value.copy() for value in values]
    counts = 1 - np.eye(n_parts, dtype=int)
    counts = np.vstack([counts[::-1], np.ones((1, n_parts), dtype=int)])
    np.testing.assert_array_equal(
        np.stack(fold_sums(values, counts)), counts @ np.stack(values)
    )
    np.testing.assert_array_equal(values, kept)

"""Truths about delayed features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.prepare import delay, valid_rows

shifts = st.lists(st.integers(-5, 5), min_size=1, max_size=4)
run_lengths = st.lists(st.integers(1, 8), min_size=1, max_size=4)


def labelled_runs(lengths):
    return np.repeat([f"r{i}" for i in range(len(lengths))], lengths)


@given(delays=shifts, lengths=run_lengths)
def test_a_delay_never_crosses_the_boundary_of_a_run(delays, lengths):
    runs = labelled_runs(lengths)
    run_number = np.repeat(np.arange(1, len(lengths) + 1), lengths)[:, None]
    delayed = delay(run_number, delays, runs=runs)
    # The value of a row is the number of its run, so any other number has crossed.
    assert np.all((delayed == 0) | (delayed == run_number))


@given(delays=shifts, lengths=run_lengths)
def test_inside_a_run_a_delay_equals_a_roll(delays, lengths):
    runs = labelled_runs(lengths)
    x = np.random.default_rng(0).standard_normal((len(runs), 2))
    inside = valid_rows(delays, len(runs), runs=runs)
    rolled = np.hstack([np.roll(x, d, axis=0) for d in delays])
    np.testing.assert_array_equal(delay(x, delays, runs=runs)[inside], rolled[inside])
    np.testing.assert_array_equal(
        delay(x, delays, runs=runs, fill="drop"), rolled[inside]
    )


@given(
    delays=shifts,
    lengths=run_lengths,
    a=st.floats(-10, 10),
    seed=st.integers(0, 2**31),
)
def test_delaying_is_linear(delays, lengths, a, seed):
    runs = labelled_runs(lengths)
    x, y = np.random.default_rng(seed).standard_normal((2, len(runs), 3))
    np.testing.assert_allclose(
        delay(a * x + y, delays, runs=runs),
        a * delay(x, delays, runs=runs) + delay(y, delays, runs=runs),
    )


@given(delays=shifts, lengths=run_lengths)
def test_a_run_alone_is_delayed_as_among_others(delays, lengths):
    runs = labelled_runs(lengths)
    x = np.random.default_rng(1).standard_normal((len(runs), 2))
    together = delay(x, delays, runs=runs)
    for label in set(runs):
        rows = runs == label
        np.testing.assert_array_equal(together[rows], delay(x[rows], delays))


def test_the_longest_delay_decides_how_many_rows_of_a_run_are_valid():
    runs = labelled_runs([5, 3, 2])
    valid = valid_rows([1, 2], 10, runs=runs)
    assert [int(valid[runs == r].sum()) for r in ("r0", "r1", "r2")] == [3, 1, 0]


def test_columns_are_ordered_by_delay_then_feature():
    x = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(delay(x, [0, 1])[2], [4, 5, 2, 3])


def test_delays_in_seconds_are_refused():
    with pytest.raises(ValueError, match=r"whole numbers of samples, got \[1\.5\]"):
        delay(np.ones((4, 1)), [1.5])


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match="one label per sample"):
        delay(np.ones((4, 1)), [1], runs=["1"] * 3)

"""Folds keep runs together, and training samples away in time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_score

from neuromm.core import UsageError
from neuromm.encoding import BlockedKFold, RunKFold
from neuromm.encoding.splitters import as_splits, contiguous_splits

RUNS = np.repeat(["b", "a", "d", "c"], [5, 3, 4, 6])


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=2, max_size=9),
    n_splits=st.one_of(st.none(), st.integers(2, 9)),
)
def test_run_folds_hold_each_run_out_once_and_never_cut_one(lengths, n_splits):
    runs = np.repeat(np.arange(len(lengths)), lengths)
    splitter = RunKFold(n_splits)
    if n_splits is not None and n_splits > len(lengths):
        with pytest.raises(UsageError, match=f"needs at least {n_splits} runs"):
            list(splitter.split(runs, groups=runs))
        return
    splits = list(splitter.split(runs, groups=runs))
    assert len(splits) == splitter.get_n_splits(groups=runs)
    assert len(splits) == (n_splits or len(lengths))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([test for _, test in splits])), np.arange(len(runs))
    )
    for train, test in splits:
        assert not set(runs[train]) & set(runs[test])
        assert len(train) + len(test) == len(runs)


def test_runs_are_taken_in_order_of_appearance():
    held_out = [set(RUNS[test]) for _, test in RunKFold(2).split(RUNS, groups=RUNS)]
    assert held_out == [{"b", "a"}, {"d", "c"}]


def test_a_single_run_cannot_be_left_out():
    with pytest.raises(UsageError, match="split within runs with BlockedKFold"):
        list(RunKFold().split(np.zeros(9), groups=np.zeros(9)))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    n_splits=st.integers(2, 6),
    purge=st.floats(0, 4),
    n_runs=st.integers(1, 3),
)
def test_no_training_sample_is_closer_than_the_purge(seed, n_splits, purge, n_runs):
    rng = np.random.default_rng(seed)
    runs = rng.integers(n_runs, size=40)
    onset = rng.uniform(0, 60, size=40)  # unevenly spaced, in no order
    splitter = BlockedKFold(n_splits, purge=purge, onset=onset)
    splits = list(splitter.split(onset, groups=runs))
    held_out = np.sort(np.concatenate([test for _, test in splits]))
    np.testing.assert_array_equal(held_out, np.arange(40))
    for train, test in splits:
        distance = np.abs(onset[:, None] - onset[test])
        distance[runs[:, None] != runs[test]] = np.inf
        far = distance.min(axis=1) >= purge
        far[test] = False
        np.testing.assert_array_equal(train, np.flatnonzero(far))


def test_without_a_purge_blocks_are_those_of_kfold():
    for ours, peer in zip(
        BlockedKFold(4).split(np.zeros(22)), KFold(4).split(np.zeros(22)), strict=True
    ):
        np.testing.assert_array_equal(ours[0], peer[0])
        np.testing.assert_array_equal(ours[1], peer[1])


@pytest.mark.parametrize("n_samples", [10, 11, 13])
def test_a_number_of_folds_is_scikit_learns_kfold(n_samples):
    peers = KFold(4).split(np.zeros(n_samples))
    for ours, peer in zip(contiguous_splits(n_samples, 4), peers, strict=True):
        np.testing.assert_array_equal(ours[0], peer[0])
        np.testing.assert_array_equal(ours[1], peer[1])


def test_scikit_learn_takes_the_splitters():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 18, 2))
    assert len(cross_val_score(Ridge(), x, y, groups=RUNS, cv=RunKFold())) == 4
    blocks = BlockedKFold(3, purge=1.0, onset=np.arange(18.0))
    assert len(cross_val_score(Ridge(), x, y, cv=blocks)) == 3


def test_messages_of_blocked_folds_name_the_cure():
    x = np.zeros(10)
    with pytest.raises(UsageError, match="pass onset=, in seconds"):
        list(BlockedKFold(2, purge=1.0).split(x))
    with pytest.raises(UsageError, match=r"spans 9 s\. Shorten the purge"):
        list(BlockedKFold(2, purge=20.0, onset=np.arange(10.0)).split(x))
    with pytest.raises(UsageError, match="one value a sample"):
        list(BlockedKFold(2, onset=np.arange(3.0)).split(x))
    with pytest.raises(UsageError, match="needs between 2 folds and one a sample"):
        list(BlockedKFold(11).split(x))


def test_given_rows_are_checked():
    x = np.zeros(6)
    mask = np.arange(6) < 3
    (train, test), *_ = as_splits([(mask, ~mask)], x)
    np.testing.assert_array_equal(train, [0, 1, 2])
    np.testing.assert_array_equal(test, [3, 4, 5])
    with pytest.raises(UsageError, match="tests on samples it trains on"):
        as_splits([([0, 1], [1, 2])], x)
    with pytest.raises(UsageError, match="names rows 4 to 9 of 6"):
        as_splits([([4, 9], [1, 2])], x)
    with pytest.raises(UsageError, match="no training or no test"):
        as_splits([([], [1, 2])], x)
    with pytest.raises(UsageError, match="cv must be a number of folds"):
        as_splits("five", x)

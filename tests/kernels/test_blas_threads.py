"""Bases built side by side are those built one after the other, in the memory given."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from neuromm.kernels import EigenRidge, RidgeMemory
from neuromm.kernels.blas_threads import n_blas_threads, side_by_side


def test_jobs_at_once_take_one_thread_each_and_keep_their_order():
    before = n_blas_threads()
    jobs = [lambda number=number: (number, n_blas_threads()) for number in range(3)]
    assert side_by_side(jobs) == [(0, 1), (1, 1), (2, 1)]
    assert side_by_side(jobs[:1]) == [(0, before)]
    assert n_blas_threads() == before


def test_limits_in_force_are_seen():
    with threadpool_limits(1, "blas"):
        assert n_blas_threads() == 1


def test_an_error_of_a_job_is_raised_and_threads_are_given_back():
    before = n_blas_threads()
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1 / 0, lambda: 1])
    assert n_blas_threads() == before


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("groups", [[2, 2, 1], [1, 4], [5]])
def test_scores_and_weights_do_not_depend_on_what_is_built_at_once(form, groups):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 20)), rng.standard_normal((60, 7))
    folds = np.array_split(np.arange(60), 4)
    splits = [(np.setdiff1d(np.arange(60), test), test) for test in folds]
    alphas = np.geomspace(0.1, 100, 5)

    def results(side_by_side):
        made = EigenRidge(
            x, splits, alphas, form=form, method="divided-difference", scoring="r2",
            fit_intercept=True, n_targets=7, side_by_side=side_by_side,
        )  # fmt: skip
        batch = made.load(y)
        return made.path(batch), *made.weights(batch, np.arange(7) % 5)

    for one, other in zip(results(groups), results([]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_as_many_bases_are_built_at_once_as_fit():
    memory = RidgeMemory(
        building=90, kept=60, results=0, per_target=1, folds=50, decomposing=20,
        decomposing_all=30, waiting=10,
    )  # fmt: skip
    # All rows: 10 + 30; a fold: 10 + 10 + those before (10 each) + 20 for each at work.
    assert memory.side_by_side(5, 4, 1000) == [4, 2]
    assert memory.side_by_side(5, 4, 80) == [3, 2, 1]
    assert memory.side_by_side(5, 1, 1000) == [1] * 6
    assert memory.side_by_side(5, 4, 0) == [1] * 6
    assert memory.built([1] * 6) == 90
    assert memory.built([4, 2]) == max(90, 10 + 30 + 3 * 20, 10 + 10 + 30 + 40)

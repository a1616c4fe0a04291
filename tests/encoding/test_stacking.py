"""Stacking against planted noise, a grid on the simplex, SLSQP and its own algebra."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from neuromm.core import DataError
from neuromm.encoding import stacking
from neuromm.encoding.stacking import stack, stacking_weights
from neuromm.kernels import column_r2
from neuromm.kernels.second_moments import SecondMoments


def residual_products(n_spaces, n_targets, *, seed=0, rank=None):
    """Errors that are correlated and of very different size, as those of layers are."""
    rng = np.random.default_rng(seed)
    rank = rank or 3 * n_spaces
    errors = rng.standard_normal((rank, n_spaces, n_targets))
    errors += rng.standard_normal((rank, 1, n_targets))
    errors *= np.exp(rng.standard_normal((n_spaces, n_targets)))
    return np.einsum("nit,njt->ijt", errors, errors) / rank


def error_of(products, weights):
    return np.einsum("it,ijt,jt->t", weights, products, weights)


def assert_on_simplex(weights):
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-12)


def assert_optimal(products, weights):
    """No space outside lowers the error: the conditions of Karush, Kuhn and Tucker."""
    assert_on_simplex(weights)
    error = error_of(products, weights)
    gradient = np.einsum("ijt,jt->it", products, weights)
    # The preference for equal weights gives away 1e-9 of the error, shared by spaces.
    assert (gradient >= error * (1 - 1e-8) - 1e-14 * np.abs(products).max()).all()


def test_two_spaces_with_independent_equal_noise_are_averaged():
    rng = np.random.default_rng(0)
    n_samples = 40_000
    y = rng.standard_normal((n_samples, 3))
    predictions = y + rng.standard_normal((2, n_samples, 3))
    # w1 - w2 = (P_22 - P_11) / 2, known to a standard error of about 1 / sqrt(n).
    weights = stack(SecondMoments.of(y, predictions)).weights
    np.testing.assert_allclose(weights, 0.5, atol=4 / np.sqrt(n_samples))


def test_weights_are_inverse_to_the_variance_of_independent_errors():
    variance = np.array([0.5, 1.0, 4.0])
    weights = stacking_weights(np.diag(variance)[:, :, None])[:, 0]
    np.testing.assert_allclose(
        weights, (1 / variance) / (1 / variance).sum(), rtol=1e-8
    )


def test_a_space_of_pure_noise_gets_the_weight_that_shrinks():
    # With errors e and y - noise, independent, of variances 0.25 and 1 + noise:
    # the noise space is good only for shrinking towards the mean.
    products = np.array([[0.25, 0.0], [0.0, 26.0]])[:, :, None]
    weights = stacking_weights(products)[:, 0]
    np.testing.assert_allclose(weights, [26 / 26.25, 0.25 / 26.25], rtol=1e-8)


@pytest.mark.parametrize("n_spaces", [3, 8])
def test_the_space_that_predicts_is_found_among_overfitted_ones(n_spaces):
    rng = np.random.default_rng(1)
    n_samples, n_targets = 400, 20
    y = rng.standard_normal((n_samples, n_targets))
    # Ridge predictions that shrink their error: cov(error, prediction) = 0.
    right = 0.9 * y + 0.3 * rng.standard_normal((n_samples, n_targets))
    predictions = 3 * rng.standard_normal((n_spaces, n_samples, n_targets))
    where = rng.integers(n_spaces, size=n_targets)
    predictions[where, :, np.arange(n_targets)] = right.T
    stacked = stack(SecondMoments.of(y, predictions))
    np.testing.assert_array_equal(stacked.weights.argmax(0), where)
    assert (stacked.weights.max(0) > 0.95).all()
    assert (stacked.r2 >= stacked.space_r2.max(0) - 1e-9).all()


@pytest.mark.parametrize("n_spaces", [1, 2, 3])
def test_no_point_of_a_fine_grid_on_the_simplex_is_better(n_spaces):
    products = residual_products(n_spaces, 50)
    weights = stacking_weights(products)
    assert_optimal(products, weights)
    steps = 40
    grid = np.array(
        [p for p in product(range(steps + 1), repeat=n_spaces) if sum(p) == steps]
    )
    grid = grid.T / steps
    on_grid = np.einsum("ig,ijt,jg->gt", grid, products, grid).min(0)
    best = error_of(products, weights)
    assert (best <= on_grid * (1 + 1e-9)).all()
    # On the face of the optimum the error is quadratic around it, and a point of the
    # grid is near.
    farthest = np.abs(products).max((0, 1)) * (n_spaces / steps) ** 2
    assert (on_grid - best <= farthest).all()


@pytest.mark.parametrize("n_spaces", [4, 9])
def test_weights_are_those_of_slsqp(n_spaces):
    products = residual_products(n_spaces, 8)
    weights = stacking_weights(products)
    for target in range(8):
        matrix = products[:, :, target] / products[:, :, target].diagonal().min()
        peer = minimize(
            lambda w, matrix=matrix: (w @ matrix @ w, 2 * matrix @ w),
            np.full(n_spaces, 1 / n_spaces),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * n_spaces,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        # An error within 1e-14 leaves the weights uncertain by its square root.
        np.testing.assert_allclose(weights[:, target], peer.x, atol=1e-5)
        assert weights[:, target] @ matrix @ weights[:, target] <= peer.fun + 1e-8


@pytest.mark.parametrize("n_spaces", [2, 3, 4, 5, 6])
def test_enumeration_and_descent_find_the_same_weights(n_spaces):
    products = stacking._made_definite(residual_products(n_spaces, 2000))
    every_face = stacking._best_of_all_faces(products)
    np.testing.assert_allclose(
        stacking._face_by_face_descent(products), every_face, atol=1e-12
    )
    assert_optimal(products, every_face)


@pytest.mark.parametrize("n_spaces", [7, 12, 25])
def test_descent_meets_the_conditions_of_optimality(n_spaces):
    products = residual_products(n_spaces, 300, seed=n_spaces)
    assert_optimal(products, stacking_weights(products))


@pytest.mark.parametrize("n_spaces", [3, 6, 9])
@pytest.mark.parametrize("rank", [1, 2])
def test_singular_products_have_optimal_weights_too(n_spaces, rank):
    products = residual_products(n_spaces, 200, rank=rank)
    weights = stacking_weights(products)
    assert_on_simplex(weights)
    # Errors in a plane often cancel: what is left is rounding of the largest one.
    gradient = np.einsum("ijt,jt->it", products, weights)
    slack = 1e-8 * products.max((0, 1))
    assert (gradient >= error_of(products, weights) - slack).all()


@pytest.mark.parametrize("copies", [2, 7])
def test_duplicated_spaces_share_equally(copies):
    single = residual_products(2, 30)
    index = [0, *[1] * copies]
    weights = stacking_weights(single[np.ix_(index, index)])
    two = stacking_weights(single)
    np.testing.assert_allclose(
        weights[1:], np.tile(two[1] / copies, (copies, 1)), atol=1e-6
    )
    np.testing.assert_allclose(weights[0], two[0], atol=1e-6)


@pytest.mark.parametrize("n_spaces", [3, 8])
def test_a_perfect_space_takes_all_and_perfect_spaces_share(n_spaces):
    products = residual_products(n_spaces, 2)
    products[0] = products[:, 0] = 0
    products[1, :, 1] = products[:, 1, 1] = 0
    weights = stacking_weights(products)
    np.testing.assert_allclose(weights[:, 0], np.eye(n_spaces)[0], atol=1e-12)
    np.testing.assert_allclose(weights[:2, 1], 0.5, rtol=1e-12)
    np.testing.assert_allclose(stacking_weights(0 * products), 1 / n_spaces)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_spaces=st.integers(2, 9),
    unit=st.sampled_from([1e-30, 1e-6, 1.0, 1e12]),
)
def test_weights_follow_the_spaces_and_ignore_the_unit(seed, n_spaces, unit):
    products = residual_products(n_spaces, 5, seed=seed)
    order = np.random.default_rng(seed).permutation(n_spaces)
    weights = stacking_weights(products)
    moved = stacking_weights(unit * products[np.ix_(order, order)])
    # The order of sums rounds; nearly equal spaces magnify that.
    np.testing.assert_allclose(moved, weights[order], atol=1e-6)


@pytest.mark.parametrize("n_spaces", [3, 8])
def test_r2_and_average_are_those_of_the_weighted_predictions(n_spaces):
    rng = np.random.default_rng(2)
    y = rng.standard_normal((80, 5)) + 3
    predictions = y + rng.standard_normal((n_spaces, 80, 5))
    stacked = stack(SecondMoments.of(y[:50], predictions[:, :50]))
    average = stacked.average(predictions)
    np.testing.assert_allclose(stacked.r2, column_r2(y[:50], average[:50]), rtol=1e-10)
    np.testing.assert_allclose(
        stacked.score(SecondMoments.of(y[50:], predictions[:, 50:])),
        column_r2(y[50:], average[50:]),
        rtol=1e-10,
    )


def test_targets_in_chunks_have_the_weights_they_have_together(monkeypatch):
    rng = np.random.default_rng(2)
    y = rng.standard_normal((80, 11))
    moments = SecondMoments.of(y, y + rng.standard_normal((3, 80, 11)))
    together = stack(moments)
    monkeypatch.setattr(stacking, "_CHUNK", 9 * 4)
    chunks = stack(moments)
    np.testing.assert_array_equal(chunks.weights, together.weights)
    np.testing.assert_array_equal(chunks.r2, together.r2)


@pytest.mark.parametrize("n_spaces", [3, 8])
def test_nan_and_constant_targets_leave_the_others_alone(n_spaces):
    rng = np.random.default_rng(2)
    y = rng.standard_normal((80, 4))
    predictions = y + rng.standard_normal((n_spaces, 80, 4))
    whole = stack(SecondMoments.of(y, predictions))
    y[3, 0] = np.nan
    y[:, 2] = 0.1
    stacked = stack(SecondMoments.of(y, predictions))
    np.testing.assert_array_equal(np.isnan(stacked.weights[0]), [1, 0, 0, 0])
    np.testing.assert_array_equal(np.isnan(stacked.r2), [1, 0, 1, 0])
    np.testing.assert_array_equal(stacked.weights[:, [1, 3]], whole.weights[:, [1, 3]])


def test_a_search_that_does_not_end_says_so_and_is_no_worse_than_one_space(monkeypatch):
    products = residual_products(8, 40)
    monkeypatch.setattr(stacking, "_MOST_STEPS", 2)  # most targets need more
    with pytest.warns(RuntimeWarning, match="of 40 targets"):
        weights = stacking_weights(products)
    assert_on_simplex(weights)
    single = np.einsum("iit->it", products).min(0)
    assert (error_of(products, weights) <= single * (1 + 1e-9)).all()


def test_shapes_of_other_spaces_or_targets_are_named():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((9, 4))
    moments = SecondMoments.of(y, y + rng.standard_normal((3, 9, 4)))
    stacked = stack(moments)
    with pytest.raises(DataError, match=r"\(3, n_samples, 4\).*got \(2, 9, 4\)"):
        stacked.average(np.zeros((2, 9, 4)))
    with pytest.raises(DataError, match="3 spaces and 4 targets cannot score"):
        stacked.score(moments.of_targets(slice(2)))
    with pytest.raises(DataError, match=r"got \(2, 3, 4\)"):
        stacking_weights(np.zeros((2, 3, 4)))

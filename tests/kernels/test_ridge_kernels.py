"""Ridge in the eigenbasis: closed forms, brute force, and hard spectra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from neuromm.kernels import (
    centred_eigenmodes,
    cheaper_form,
    fit_basis,
    fold_basis,
    operation_count,
    path_scores,
    select_alphas,
    shrunken_weights,
    working_memory,
)

ALPHAS = np.geomspace(1e-2, 1e5, 8)


def _problem(n_samples, n_features, n_targets=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_samples, n_features)) + rng.standard_normal(n_features)
    w = rng.standard_normal((n_features, n_targets)) / np.sqrt(n_features)
    y = x @ w + rng.standard_normal((n_samples, n_targets)) + 5.0
    return x, y


def _brute_force(x_train, y_train, x_test, y_test, scoring):
    rows = []
    for alpha in ALPHAS:
        yhat = Ridge(alpha=alpha).fit(x_train, y_train).predict(x_test)
        if scoring == "correlation":
            pairs = zip(y_test.T, yhat.T, strict=True)
            rows.append([np.corrcoef(a, b)[0, 1] for a, b in pairs])
            continue
        loss = ((y_test - yhat) ** 2).mean(0)
        rows.append(-loss if scoring == "mse" else 1 - loss / y_test.var(0))
    return np.array(rows)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
@pytest.mark.parametrize("n_features", [7, 30, 45, 90])  # 45 is n_train itself
def test_path_scores_equal_one_scikit_learn_ridge_an_alpha(form, scoring, n_features):
    x, y = _problem(60, n_features)
    basis = fold_basis(x[:45], x[45:], form)
    scores = path_scores(basis, y[:45], y[45:], ALPHAS, scoring=scoring)
    expected = _brute_force(x[:45], y[:45], x[45:], y[45:], scoring)
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("n_targets", [2, 60])  # fewer and more than the rank
def test_weights_with_one_alpha_a_target_equal_scikit_learn(form, n_targets):
    x, y = _problem(40, 55, n_targets)
    alphas = np.geomspace(0.1, 1e4, n_targets)
    basis = fit_basis(x, form, n_targets=n_targets)
    weights, intercepts = shrunken_weights(basis, y, alphas)
    peer = Ridge(alpha=alphas).fit(x, y)
    np.testing.assert_allclose(weights, peer.coef_.T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(intercepts, peer.intercept_, rtol=1e-8)


def test_orthonormal_ridge_shrinks_by_one_over_one_plus_alpha():
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((40, 5)))[0]
    y = rng.standard_normal((40, 3))
    basis = fit_basis(x, "primal", n_targets=3, fit_intercept=False)
    weights, intercepts = shrunken_weights(
        basis, y, np.full(3, 3.0), fit_intercept=False
    )
    np.testing.assert_allclose(weights, x.T @ y / 4, rtol=1e-10)
    np.testing.assert_array_equal(intercepts, 0)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_duplicated_columns_add_no_mode(form):
    x, _ = _problem(50, 6)
    x = np.hstack([x, x, np.zeros((50, 2))])
    eigenvalues, vectors = centred_eigenmodes(x - x.mean(0), form)
    assert eigenvalues.shape == (6,)
    assert vectors.shape[1] == 6


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_features_that_never_vary_predict_the_mean(form):
    _, y = _problem(30, 2)
    basis = fit_basis(np.full((30, 2), 0.1), form, n_targets=6)
    weights, intercepts = shrunken_weights(basis, y, np.ones(6))
    np.testing.assert_allclose(weights, 0, atol=1e-12)  # the mean of 0.1 rounds
    np.testing.assert_allclose(intercepts, y.mean(0))


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
def test_float32_stays_finite_and_close_over_hard_spectra(form, scoring):
    rng = np.random.default_rng(1)
    n_samples, n_features = 80, 40
    decaying = rng.standard_normal((n_samples, n_features)) * np.logspace(0, -6, 40)
    one_hot = np.eye(n_features)[rng.integers(n_features, size=n_samples)]
    rank_one = np.outer(rng.standard_normal(n_samples), np.ones(n_features))
    y = rng.standard_normal((n_samples, 4)) + decaying[:, :1]
    alphas = np.geomspace(1e-6, 1e20, 14)
    for x in (decaying, one_hot, rank_one):
        x32, y32 = x.astype("f4"), y.astype("f4")
        score = {}
        for xx, yy in ((x32, y32), (x32.astype("f8"), y32.astype("f8"))):
            basis = fold_basis(xx[:60], xx[60:], form)
            score[xx.dtype.itemsize] = path_scores(
                basis, yy[:60], yy[60:], alphas, scoring=scoring
            )
        assert np.isfinite(score[4]).all()
        chosen = select_alphas(score[4], alphas)
        # Regret: what the float32 choice loses by the float64 score.
        reached = np.take_along_axis(score[8], chosen[None], 0)[0]
        assert (score[8].max(0) - reached).max() < 1e-3


def test_held_out_rows_leave_the_training_side_untouched():
    x, y = _problem(40, 8)
    clean = fold_basis(x[:30], x[30:], "primal")
    poisoned = fold_basis(x[:30], x[30:] * 1e12, "primal")
    np.testing.assert_array_equal(clean.train, poisoned.train)
    np.testing.assert_array_equal(clean.eigenvalues, poisoned.eigenvalues)
    assert np.isfinite(y).all()


def test_a_constant_prediction_correlates_zero_and_a_constant_response_is_nan():
    x, y = _problem(40, 3)
    y = y.copy()
    y[30:, 1] = 0.1
    basis = fold_basis(np.zeros((30, 3)), x[30:], "primal")
    r = path_scores(basis, y[:30], y[30:], ALPHAS, scoring="correlation")
    assert np.isnan(r[:, 1]).all()
    np.testing.assert_array_equal(np.delete(r, 1, axis=1), 0)


@given(order=st.permutations(range(5)))
def test_ties_go_to_the_larger_alpha_in_any_order(order):
    alphas = np.array([0.0, 1e-3, 1.0, 1e3, 1e20])[list(order)]
    flat = np.full((5, 2), 0.3)
    flat[:, 1] = np.nan
    chosen = select_alphas(flat, alphas)
    np.testing.assert_array_equal(alphas[chosen], 1e20)


def test_nan_never_wins():
    scores = np.array([[0.1], [np.nan], [-0.5]])
    np.testing.assert_array_equal(select_alphas(scores, np.array([1.0, 2, 3])), [0])


@settings(max_examples=25, deadline=None)
@given(
    n_samples=st.integers(10, 4000),
    n_features=st.integers(1, 6000),
    n_targets=st.integers(1, 100_000),
)
def test_the_chosen_form_is_the_one_with_fewer_operations(
    n_samples, n_features, n_targets
):
    counts = {"n_alphas": 20, "n_folds": 5}
    sizes = (n_samples, n_features, n_targets)
    form = cheaper_form(*sizes, **counts)
    other = "dual" if form == "primal" else "primal"
    chosen = operation_count(*sizes, **counts, form=form)
    refused = operation_count(*sizes, **counts, form=other)
    assert chosen.total <= refused.total
    memory = working_memory(*sizes, **counts, form=form, itemsize=4)
    assert memory.fixed > 4 * n_features * n_targets


def test_few_features_are_primal_and_few_samples_dual():
    counts = {"n_targets": 1000, "n_alphas": 20, "n_folds": 5}
    assert cheaper_form(3000, 100, **counts) == "primal"
    assert cheaper_form(100, 3000, **counts) == "dual"

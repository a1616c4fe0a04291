"""Ridge engines: closed forms, brute force, and what held-out rows may not touch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut

from neuromm.kernels import (
    EigenRidge,
    HoldOutRidge,
    RidgeShape,
    Solver,
    cheapest_solvers,
    operation_count,
    select_alphas,
    working_memory,
)
from neuromm.kernels.ridge_cholesky import CholeskyRidge
from neuromm.kernels.ridge_modes import eigenmodes

ALPHAS = np.geomspace(1e-2, 1e5, 8)
FORMS = ["primal", "dual"]
METHODS = ["divided-difference", "direct", "hold-out", "cholesky"]
SOLVERS = [f"{form}-{method}" for form in FORMS for method in METHODS]
EIGEN = [name for name in SOLVERS if name.endswith(("difference", "direct"))]
SCORINGS = ["r2", "correlation", "mse"]
# Held-out blocks have no correlation.
SCORED = [
    (name, scoring)
    for name in SOLVERS
    for scoring in SCORINGS
    if scoring != "correlation" or not name.endswith("hold-out")
]


def contiguous(n_samples, n_splits):
    rows = np.arange(n_samples)
    return [(np.setdiff1d(rows, test), test) for test in np.array_split(rows, n_splits)]


def engine(name, x, splits, alphas, *, scoring, fit_intercept=True, n_targets=6):
    solver = Solver.named(name)
    shared = {"scoring": scoring, "fit_intercept": fit_intercept, "form": solver.form}
    if solver.method == "cholesky":
        return CholeskyRidge(x, splits, alphas, **shared)
    if solver.method == "hold-out":
        return HoldOutRidge(x, splits, alphas, n_targets=n_targets, **shared)
    return EigenRidge(
        x, splits, alphas, method=solver.method, n_targets=n_targets, **shared
    )


def scores_of(name, x, y, splits, alphas, **settings):
    made = engine(name, x, splits, alphas, n_targets=y.shape[1], **settings)
    return made.path(made.load(y))


def problem(n_samples, n_features, n_targets=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_samples, n_features)) + rng.standard_normal(n_features)
    w = rng.standard_normal((n_features, n_targets)) / np.sqrt(n_features)
    y = x @ w + rng.standard_normal((n_samples, n_targets)) + 5.0
    return x, y


def brute_force(x, y, splits, scoring, *, fit_intercept=True):
    """Mean over folds of one scikit-learn Ridge an alpha."""
    total = 0.0
    for train, test in splits:
        rows, truth = [], y[test]
        for alpha in ALPHAS:
            peer = Ridge(alpha=alpha, fit_intercept=fit_intercept)
            yhat = peer.fit(x[train], y[train]).predict(x[test])
            if scoring == "correlation":
                pairs = zip(truth.T, yhat.T, strict=True)
                rows.append([np.corrcoef(a, b)[0, 1] for a, b in pairs])
                continue
            loss = ((truth - yhat) ** 2).mean(0)
            rows.append(-loss if scoring == "mse" else 1 - loss / truth.var(0))
        total = total + np.array(rows) / len(splits)
    return total


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("n_features", [7, 30, 45, 90])  # 45 is n_train itself
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_every_score_of_every_solver_is_that_of_one_scikit_learn_ridge_an_alpha(
    scoring, n_features, fit_intercept
):
    x, y = problem(60, n_features)
    splits = contiguous(60, 4)
    expected = brute_force(x, y, splits, scoring, fit_intercept=fit_intercept)
    for name in [one for one, scored in SCORED if scored == scoring]:
        scores = scores_of(
            name, x, y, splits, ALPHAS, scoring=scoring, fit_intercept=fit_intercept
        )
        np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("n_targets", [2, 60])  # fewer and more than the rank
@pytest.mark.parametrize("n_features", [12, 55])
def test_weights_with_one_alpha_a_target_equal_scikit_learn(
    name, n_targets, n_features
):
    x, y = problem(40, n_features, n_targets)
    choice = np.arange(n_targets) % len(ALPHAS)
    made = engine(
        name, x, contiguous(40, 4), ALPHAS, scoring="mse", n_targets=n_targets
    )
    weights, intercepts = made.weights(made.load(y), choice)
    peer = Ridge(alpha=ALPHAS[choice]).fit(x, y)
    np.testing.assert_allclose(weights, peer.coef_.T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(intercepts, peer.intercept_, rtol=1e-8)


@pytest.mark.parametrize(("name", "scoring"), SCORED)
def test_the_score_of_the_chosen_alpha_lies_on_the_path(name, scoring):
    x, y = problem(60, 20)
    made = engine(name, x, contiguous(60, 4), ALPHAS, scoring=scoring)
    batch = made.load(y)
    path = made.path(batch)
    choice = np.arange(6)
    np.testing.assert_allclose(
        made.at(batch, choice), path[choice, np.arange(6)], rtol=1e-10
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_orthonormal_ridge_shrinks_by_one_over_one_plus_alpha(name):
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((40, 5)))[0]
    y = rng.standard_normal((40, 3))
    made = engine(
        name, x, contiguous(40, 4), np.array([3.0]), scoring="mse", fit_intercept=False
    )
    weights, intercepts = made.weights(made.load(y), np.zeros(3, int))
    np.testing.assert_allclose(weights, x.T @ y / 4, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(intercepts, 0)


@pytest.mark.parametrize("form", FORMS)
def test_duplicated_columns_add_no_mode(form):
    x, _ = problem(50, 6)
    x = np.hstack([x, x, np.zeros((50, 2))])
    x -= x.mean(0)
    gram = x.T @ x if form == "primal" else x @ x.T
    eigenvalues, vectors = eigenmodes(gram, min(x.shape))
    assert eigenvalues.shape == (6,)
    assert vectors.shape == (len(gram), 6)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 + 0.1])  # the mean of 0.1 rounds
def test_features_that_never_vary_predict_the_mean(name, value):
    _, y = problem(30, 2)
    splits = contiguous(30, 3)
    x = np.full((30, 2), value)
    made = engine(name, x, splits, np.array([1e-6, 1.0]), scoring="r2")
    batch = made.load(y)
    weights, intercepts = made.weights(batch, np.zeros(6, int))
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_allclose(intercepts, y.mean(0), rtol=1e-13)
    r2 = [
        1 - ((y[test] - y[train].mean(0)) ** 2).mean(0) / y[test].var(0)
        for train, test in splits
    ]
    np.testing.assert_allclose(made.path(batch), [np.mean(r2, 0)] * 2, rtol=1e-10)


@pytest.mark.parametrize("name", [one for one, s in SCORED if s == "correlation"])
@pytest.mark.parametrize("n_features", [3, 60])
def test_a_constant_prediction_correlates_zero(name, n_features):
    # Not with what rounding leaves of it: a correlation of that can be anything.
    x, y = problem(40, n_features)
    splits, alphas = contiguous(40, 4)[-1:], np.array([1.0, 1e20])

    def score(features, targets):
        return scores_of(name, features, targets, splits, alphas, scoring="correlation")

    held_out_alike, never_varying, same_in_training = x.copy(), x * 0 + 0.1, y.copy()
    held_out_alike[30:] = held_out_alike[30]
    same_in_training[:30] = 0.1
    assert abs(score(x, y)).min() > 1e-3
    np.testing.assert_array_equal(score(held_out_alike, y), 0)
    np.testing.assert_array_equal(score(never_varying, y), 0)
    np.testing.assert_array_equal(score(x, same_in_training), 0)


@pytest.mark.parametrize("name", EIGEN)
def test_held_out_features_orthogonal_to_the_others_predict_nothing(name):
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    scores = scores_of(
        name,
        x,
        rng.standard_normal((40, 6)),
        contiguous(40, 4),
        ALPHAS,
        scoring="correlation",
        fit_intercept=False,
    )
    np.testing.assert_array_equal(scores, 0)


@pytest.mark.parametrize(
    ("name", "scoring"), [case for case in SCORED if case[1] != "mse"]
)
def test_a_fold_in_which_a_target_is_constant_does_not_count(name, scoring):
    x, y = problem(40, 5)
    y[30:, 1] = 0.1
    splits = contiguous(40, 4)
    scores = scores_of(name, x, y, splits, ALPHAS, scoring=scoring)
    peer = name.replace("hold-out", "direct")
    others = scores_of(peer, x, y, splits[:3], ALPHAS, scoring=scoring)
    np.testing.assert_allclose(scores[:, 1], others[:, 1], rtol=1e-9)
    y[:30, 1] = np.repeat([1.0, 2.0, 3.0], 10)  # constant in every fold
    scores = scores_of(name, x, y, splits, ALPHAS, scoring=scoring)
    assert np.isnan(scores[:, 1]).all()
    assert np.isfinite(np.delete(scores, 1, axis=1)).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_splits", [2, 5])
@pytest.mark.parametrize("n_features", [12, 100])
def test_held_out_rows_leave_no_trace_in_the_training_side(form, n_splits, n_features):
    x, y = problem(60, n_features)
    splits = contiguous(60, n_splits)
    rows = splits[1][1]
    poisoned_x, poisoned_y = x.copy(), y.copy()
    poisoned_x[rows] *= 1e6
    poisoned_y[rows] *= 1e6
    sides = []
    for features, targets in ((x, y), (poisoned_x, poisoned_y)):
        made = engine(f"{form}-direct", features, splits, ALPHAS, scoring="mse")
        batch = made.load(targets)
        made.path(batch)
        fold = made._folds[1]
        sides.append((fold.eigenvalues * fold.unit, batch.folds[1].z))
    (values, z), (poisoned_values, poisoned_z) = sides
    if form == "primal":
        np.testing.assert_array_equal(values, poisoned_values)
        np.testing.assert_array_equal(z, poisoned_z)
    else:  # one kernel serves all folds, so rounding may differ
        np.testing.assert_allclose(values, poisoned_values, rtol=1e-9)
        np.testing.assert_allclose(
            abs(z), abs(poisoned_z), atol=1e-9 * abs(z).max()
        )  # eigenvectors have no sign


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_features", [5, 60])
def test_an_artefact_in_one_sample_does_not_reach_other_folds_by_hold_out(
    dtype, n_features
):
    # Its leverage is nearly 1, and what is left of the sample is rounding: the engine
    # must say so, for another one to be taken.
    x, _ = problem(40, n_features)
    spoiled = x.copy()
    spoiled[7] *= 1e6
    splits = list(LeaveOneOut().split(x))
    for form in FORMS:
        for features, accurate in ((x, True), (spoiled, False)):
            made = engine(
                f"{form}-hold-out",
                features.astype(dtype),
                splits,
                ALPHAS,
                scoring="mse",
            )
            assert made.is_accurate == accurate


def test_a_sample_that_is_fitted_exactly_has_no_held_out_error_to_derive():
    x, _ = problem(30, 50)
    splits = list(LeaveOneOut().split(x))
    made = engine("dual-hold-out", x, splits, np.array([0.0, 1.0]), scoring="mse")
    assert not made.is_accurate


@pytest.mark.parametrize("form", FORMS)
def test_a_penalty_far_below_the_eigenvalues_has_no_cholesky_factor_to_trust(form):
    x, _ = problem(30, 8)
    for alpha, trusted in ((0.0, False), (1e-12, False), (1e-3, True)):
        alphas = np.array([alpha, 1e3])
        made = engine(f"{form}-cholesky", x, contiguous(30, 3), alphas, scoring="mse")
        assert made.is_accurate == trusted


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


def test_a_tie_is_told_in_the_unit_of_the_score():
    # MEG is in tesla: an MSE of 1e-26 must not be a tie with one of twice that.
    scores = -1e-26 * np.array([[1.0, 1.0], [2.0, 1.0 + 1e-12]])
    chosen = select_alphas(scores, np.array([1.0, 10.0]), tie_scale=1e-26)
    np.testing.assert_array_equal(chosen, [0, 1])


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(10, 4000),
    n_features=st.integers(1, 6000),
    n_targets=st.integers(1, 100_000),
    n_folds=st.integers(2, 10),
    itemsize=st.sampled_from([4, 8]),
)
def test_the_chosen_solver_is_the_one_that_takes_fewest_operations(
    n_samples, n_features, n_targets, n_folds, itemsize
):
    shape = RidgeShape.of_equal_folds(
        n_samples, n_features, n_targets, n_alphas=20, n_folds=n_folds,
        itemsize=itemsize,
    )  # fmt: skip
    solvers = cheapest_solvers(shape, has_factors=True)
    costs = [operation_count(shape, one).weighted(itemsize) for one in solvers]
    assert {one.name for one in solvers} == set(SOLVERS)
    assert costs == sorted(costs)
    for one in solvers:
        weights = itemsize * n_features * n_targets
        assert working_memory(shape, one).fixed >= weights


@pytest.mark.parametrize(
    ("sizes", "n_folds", "name"),
    [
        ((3000, 100, 20_000), 5, "primal-divided-difference"),
        ((200, 3000, 20_000), 5, "dual-divided-difference"),
        ((500, 50, 1), 500, "primal-hold-out"),
        ((1000, 500, 1), 3, "primal-cholesky"),
    ],
)
def test_sizes_have_the_solver_that_suits_them(sizes, n_folds, name):
    shape = RidgeShape.of_equal_folds(
        *sizes, n_alphas=5 if sizes[2] == 1 else 20, n_folds=n_folds, itemsize=4
    )
    assert cheapest_solvers(shape, has_factors=True)[0].name == name


def test_a_solver_without_factors_or_complements_is_not_offered():
    shape = RidgeShape(
        n_samples=100, n_features=10, n_targets=1, n_alphas=5, n_folds=3, n_train=60.0,
        n_test=30.0, n_parts=9, complements=False, itemsize=8,
    )  # fmt: skip
    names = {one.name for one in cheapest_solvers(shape, has_factors=False)}
    assert names == set(EIGEN)
    with pytest.raises(ValueError, match="solver must be 'auto' or one of primal-"):
        Solver.named("primal-magic")

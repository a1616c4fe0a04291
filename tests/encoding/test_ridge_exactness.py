"""RidgeCV is exact: peers on every kind of fold, and what must not change a result."""

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut

from neuromm.core import ResourceLimitError, UsageError
from neuromm.encoding import BlockedKFold, RidgeCV
from neuromm.encoding.ridge_fit import fit_ridge
from neuromm.kernels import Solver

ALPHAS = np.geomspace(1e-2, 1e6, 12)
FORMS = ["primal", "dual"]
EIGEN = [f"{form}-{m}" for form in FORMS for m in ("divided-difference", "direct")]
HOLD_OUT = [f"{form}-hold-out" for form in FORMS]
CHOLESKY = [f"{form}-cholesky" for form in FORMS]
SOLVERS = [*EIGEN, *HOLD_OUT, *CHOLESKY]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*of the targets chose the", "ignore:.*targets are constant or have"
)


def problem(n_samples, n_features, n_targets=300, seed=0):
    """Targets from nearly pure signal to nearly pure noise: any alpha is chosen."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, n_features + 1) ** -0.5
    x = rng.standard_normal((n_samples, n_features)) * scale + 1.0
    w = rng.standard_normal((n_features, n_targets)) * scale[:, None]
    noise = rng.standard_normal((n_samples, n_targets))
    return x, x @ w + noise * np.geomspace(0.01, 30, n_targets) + 3.0


def bootstrap(n_samples, n_folds=3):
    """Training rows drawn with repeats, tested on those that were not drawn."""
    rng = np.random.default_rng(1)
    folds = []
    for _ in range(n_folds):
        train = np.sort(rng.integers(n_samples, size=n_samples))
        folds.append((train, np.setdiff1d(np.arange(n_samples), train)))
    return folds


def splits_of(kind, n_samples):
    rows = np.zeros((n_samples, 1))
    if kind == "uneven":
        return list(KFold(7).split(rows))
    if kind == "shuffled":
        return list(KFold(4, shuffle=True, random_state=0).split(rows))
    if kind == "grouped":
        groups = np.random.default_rng(0).integers(9, size=n_samples)
        return list(GroupKFold(4).split(rows, groups=groups))
    if kind == "purged":
        onset = np.arange(float(n_samples))
        return list(BlockedKFold(4, purge=4.0, onset=onset).split(rows))
    if kind == "bootstrap":
        return bootstrap(n_samples)
    if kind == "partial":  # half of the rows are never held out, some are never used
        part = n_samples // 6
        everything = np.arange(part, n_samples)
        return [
            (np.setdiff1d(everything, test), test)
            for test in (everything[:part], everything[-part:])
        ]
    return list(KFold(5).split(rows))


SPLITS = ["even", "uneven", "shuffled", "grouped", "purged", "bootstrap", "partial"]
# Rows, features: fewer, as many as training rows, more.
SHAPES = {"p < n": (90, 12), "p = n_train": (60, 48), "p > n": (50, 120)}


def peer_path(x, y, splits, scoring):
    """Scores of every alpha by a singular value decomposition of every fold."""
    total = 0.0
    for train, test in splits:
        x_mean, y_mean = x[train].mean(0), y[train].mean(0)
        u, s, vt = np.linalg.svd(x[train] - x_mean, full_matrices=False)
        kept = s > 1e-10 * s[0]
        z = u[:, kept].T @ (y[train] - y_mean)
        held, truth = (x[test] - x_mean) @ vt[kept].T, y[test] - y_mean
        rows = []
        for alpha in ALPHAS:
            yhat = held @ ((s[kept] / (s[kept] ** 2 + alpha))[:, None] * z)
            if scoring == "correlation":
                a, b = yhat - yhat.mean(0), truth - truth.mean(0)
                rows.append((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0)))
                continue
            loss = ((truth - yhat) ** 2).mean(0)
            rows.append(-loss if scoring == "mse" else 1 - loss / truth.var(0))
        total = total + np.array(rows) / len(splits)
    return total


def himalaya_fit(estimator, x, y, splits, scoring):
    pytest.importorskip("himalaya")
    from himalaya import scoring as scores
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV

    shared = {"alphas": ALPHAS, "cv": splits, "fit_intercept": True}
    score_func = {
        "r2": scores.r2_score,
        "correlation": scores.correlation_score,
        "mse": scores.l2_neg_loss,
    }[scoring]
    if estimator == "ridge":
        solver_params = {"score_func": score_func, "warn": False}
        peer = HimalayaRidgeCV(**shared, solver_params=solver_params).fit(x, y)
        return peer, peer.coef_
    peer = KernelRidgeCV(
        **shared, kernel="linear", solver_params={"score_func": score_func}, warn=False
    ).fit(x, y)
    return peer, peer.get_primal_coef()


def solvers_for(kind, scoring):
    complements = kind in ("even", "uneven", "shuffled", "grouped")
    holds = complements and scoring != "correlation"
    return ["auto", *EIGEN, *CHOLESKY, *(HOLD_OUT if holds else [])]


@pytest.mark.parametrize("estimator", ["ridge", "kernel ridge"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kind", "scoring"),
    [*((kind, "r2") for kind in SPLITS), ("uneven", "mse"), ("purged", "correlation")],
)
def test_every_solver_gives_the_numbers_of_himalaya(estimator, shape, kind, scoring):
    x, y = problem(*SHAPES[shape])
    splits = splits_of(kind, len(x))
    peer, peer_coef = himalaya_fit(estimator, x, y, splits, scoring)
    path = peer_path(x, y, splits, scoring)
    unit = y.var(0) if scoring == "mse" else np.ones(y.shape[1])
    assert len(np.unique(peer.best_alphas_)) > 3
    # Where p < n, its kernel has null modes, and their rounding is divided by alpha.
    tolerance = 1e-6 if (estimator, shape) == ("kernel ridge", "p < n") else 1e-8
    for solver in solvers_for(kind, scoring):
        fit = RidgeCV(ALPHAS, cv=splits, scoring=scoring, solver=solver).fit(x, y)
        same = np.isclose(fit.best_alphas_, peer.best_alphas_, rtol=1e-9)
        assert same.mean() >= 0.999, solver
        # Others are ties: what they reach is the best, but for rounding.
        place = np.searchsorted(ALPHAS, fit.best_alphas_ * (1 - 1e-9))
        reached = np.take_along_axis(path, place[None], axis=0)[0]
        assert ((path.max(0) - reached) / unit).max() < 1e-9, solver
        # himalaya's scores contain the slope of its tie-break, 1e-10 log(alpha).
        np.testing.assert_allclose(
            fit.cv_scores_ / unit, peer.cv_scores_ / unit, rtol=1e-8, atol=1e-8
        )
        error = abs(fit.coef_ - peer_coef).max(0) / abs(peer_coef).max(0)
        assert error[same].max() < tolerance, solver
        if estimator == "ridge":
            np.testing.assert_allclose(fit.predict(x), peer.predict(x), atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_leave_one_out_is_scikit_learns_generalised_cross_validation(
    shape, fit_intercept
):
    x, y = problem(*SHAPES[shape], n_targets=100)
    peer = linear_model.RidgeCV(
        ALPHAS, alpha_per_target=True, fit_intercept=fit_intercept
    ).fit(x, y)
    for solver in ("auto", *SOLVERS):
        fit = RidgeCV(
            ALPHAS,
            cv=LeaveOneOut(),
            scoring="mse",
            fit_intercept=fit_intercept,
            solver=solver,
        ).fit(x, y)
        np.testing.assert_array_equal(fit.best_alphas_, peer.alpha_, err_msg=solver)
        # scikit-learn's score without scoring= is the negative mean squared error.
        np.testing.assert_allclose(fit.cv_scores_, peer.best_score_, rtol=1e-8)
        error = abs(fit.coef_ - peer.coef_.T).max(0) / abs(peer.coef_.T).max(0)
        assert error.max() < 1e-8, solver
        if fit_intercept:
            np.testing.assert_allclose(fit.intercept_, peer.intercept_, rtol=1e-7)
    auto = RidgeCV(ALPHAS, cv=LeaveOneOut(), scoring="mse").fit(x, y)
    assert auto.solver_form_.endswith("hold-out")


RESULTS = ("coef_", "intercept_", "best_alphas_", "cv_scores_")


def assert_equal_results(fit, other, columns=slice(None), rtol=1e-10):
    np.testing.assert_array_equal(
        fit.best_alphas_[columns], other.best_alphas_[columns]
    )
    for name in ("coef_", "intercept_", "cv_scores_"):
        one, two = getattr(fit, name)[..., columns], getattr(other, name)[..., columns]
        scale = max(abs(two).max(), 1e-300)
        np.testing.assert_allclose(one / scale, two / scale, atol=rtol, err_msg=name)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", ["p < n", "p > n"])
def test_batches_and_order_of_targets_and_alphas_are_indifferent(shape, solver):
    x, y = problem(*SHAPES[shape], n_targets=60)

    def fitted(y, alphas=ALPHAS, **settings):
        return RidgeCV(alphas, cv=4, solver=solver, **settings).fit(x, y)

    fit = fitted(y)
    order = np.random.default_rng(0).permutation(60)
    permuted = fitted(y[:, order])
    for name in RESULTS:
        setattr(permuted, name, getattr(permuted, name)[..., np.argsort(order)])
    assert_equal_results(permuted, fit)
    assert_equal_results(fitted(y, np.random.default_rng(0).permutation(ALPHAS)), fit)
    for column in (0, 30, 59):  # a batch of one
        alone = fitted(y[:, [column]])
        for name in RESULTS:
            np.testing.assert_allclose(
                getattr(alone, name)[..., 0],
                getattr(fit, name)[..., column],
                rtol=1e-9,
                atol=1e-10,
            )


# Kernels of the dual Cholesky solver take more than so many targets at once.
@pytest.mark.parametrize("solver", ["auto", *SOLVERS[:-1]])
@pytest.mark.parametrize("scoring", ["r2", "mse"])
@pytest.mark.parametrize("alpha_per_target", [True, False])
def test_a_memory_limit_changes_the_batches_and_no_number(
    solver, scoring, alpha_per_target
):
    x, y = problem(60, 30, n_targets=150)
    y[3, 7] = np.nan
    splits = splits_of("even", 60)
    settings = {"scoring": scoring, "alpha_per_target": alpha_per_target}
    fit = fit_ridge(x, y, splits, ALPHAS, solver=_solver(solver), **settings)
    limit, small = 200_000, None
    while small is None:  # the smallest limit that holds: the narrowest batches
        batches = []
        try:
            small = fit_ridge(
                x,
                y,
                splits,
                ALPHAS,
                memory_limit=limit,
                solver=_solver(solver),
                progress=lambda done, _, batches=batches: batches.append(done),
                **settings,
            )
        except ResourceLimitError:
            limit = int(limit * 1.15)
    assert len(batches) > 1
    assert solver == "auto" or small.solver_form == solver
    valid = fit.valid_targets
    np.testing.assert_array_equal(small.best_alphas, fit.best_alphas)
    for name in ("coef", "intercept", "cv_scores"):
        one, two = getattr(small, name)[..., valid], getattr(fit, name)[..., valid]
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-10 * abs(two).max())


def _solver(name):
    return None if name == "auto" else Solver.named(name)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])  # MEG is in tesla
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
def test_the_unit_of_the_responses_is_indifferent(dtype, scale, scoring):
    tolerance = {"f4": 1e-4, "f8": 1e-8}[dtype]
    for shape in ("p < n", "p > n"):
        x, y = problem(*SHAPES[shape], n_targets=40)
        x, y = x.astype(dtype), (scale * y).astype(dtype)
        # The same numbers in float64 and in another unit.
        exact = RidgeCV(ALPHAS, scoring=scoring, solver="primal-direct")
        exact.fit(x.astype("f8"), y.astype("f8") / scale)
        variance = y.astype("f8").var(0) / scale**2
        unit = variance if scoring == "mse" else 1.0
        for solver in solvers_for("even", scoring):
            fit = RidgeCV(ALPHAS, scoring=scoring, solver=solver).fit(x, y)
            in_unit = fit.cv_scores_ / (scale**2 if scoring == "mse" else 1)
            np.testing.assert_allclose(
                in_unit / unit, exact.cv_scores_ / unit, atol=tolerance
            )
            same = fit.best_alphas_ == exact.best_alphas_
            assert same.mean() >= (0.9 if dtype == "f4" else 1)
            coef = fit.coef_[:, same] / scale
            error = abs(coef - exact.coef_[:, same]).max(0)
            assert (error / abs(exact.coef_[:, same]).max(0)).max() < 10 * tolerance


@pytest.mark.parametrize("offset", [1e4, -3e5])
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
def test_float32_responses_may_lie_far_from_zero(offset, scoring):
    # EEG channels with an offset, or BOLD around 10 000. What the type rounds away is
    # lost, so the yardstick is float64 of the rounded values.
    for shape in ("p < n", "p > n"):
        x, y = problem(*SHAPES[shape], n_targets=40)
        x, y = x.astype("f4"), (10 * y + offset).astype("f4")
        exact = RidgeCV(ALPHAS, scoring=scoring, solver="primal-direct")
        exact.fit(x.astype("f8"), y.astype("f8") - offset)
        unit = y.astype("f8").var(0) if scoring == "mse" else 1.0
        for solver in solvers_for("even", scoring):
            fit = RidgeCV(ALPHAS, scoring=scoring, solver=solver).fit(x, y)
            np.testing.assert_allclose(
                fit.cv_scores_ / unit, exact.cv_scores_ / unit, atol=2e-5
            )
            same = fit.best_alphas_ == exact.best_alphas_
            assert same.mean() >= 0.9


SPOILED = [2, 3, 5, 6, 8]


def spoil(y):
    y = y.copy()
    y[4, 2] = np.nan
    y[7, 3] = np.inf
    y[:, 5] = 0.1
    y[:, 6] = 0.0
    y[-1, 8] = -np.inf
    return y


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("alpha_per_target", [True, False])
def test_targets_without_an_answer_leave_the_others_bit_identical(
    dtype, solver, alpha_per_target
):
    for shape in ("p < n", "p > n"):
        for scoring in ("r2", "mse", "correlation"):
            if scoring == "correlation" and "hold-out" in solver:
                continue
            x, y = (a.astype(dtype) for a in problem(*SHAPES[shape], n_targets=30))
            settings = {
                "scoring": scoring,
                "solver": solver,
                "alpha_per_target": alpha_per_target,
            }
            fit = RidgeCV(ALPHAS, **settings).fit(x, spoil(y))
            clean = RidgeCV(ALPHAS, **settings)
            if alpha_per_target:
                clean.fit(x, y)
            else:  # one alpha for all is the best of those that count
                clean.fit(x, np.where(fit.valid_targets_, y, 0))
            others = np.delete(np.arange(30), SPOILED)
            np.testing.assert_array_equal(np.flatnonzero(fit.valid_targets_), others)
            for name in RESULTS:
                np.testing.assert_array_equal(
                    getattr(fit, name)[..., others], getattr(clean, name)[..., others]
                )
            np.testing.assert_array_equal(fit.coef_[:, SPOILED], 0)
            assert np.isnan(fit.best_alphas_[SPOILED]).all()
            assert np.isnan(fit.cv_scores_[SPOILED]).all()
            expected = np.array([np.nan, np.nan, 0.1, 0.0, np.nan], dtype)
            np.testing.assert_array_equal(fit.intercept_[SPOILED], expected)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
@pytest.mark.parametrize("alpha_per_target", [True, False])
def test_a_fit_of_masked_targets_alone_has_no_answer_and_no_error(
    solver, alpha_per_target
):
    x, y = problem(40, 8, n_targets=9)
    y = spoil(y)[:, SPOILED]
    fit = RidgeCV(ALPHAS, solver=solver, alpha_per_target=alpha_per_target).fit(x, y)
    assert not fit.valid_targets_.any()
    np.testing.assert_array_equal(fit.coef_, 0)
    assert np.isnan(fit.best_alphas_).all()
    assert np.isnan(fit.score(x, y))


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_the_smallest_fit_is_a_fit(solver):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 1)), rng.standard_normal((4, 1))
    fit = RidgeCV([0.5], cv=2, scoring="mse", solver=solver).fit(x, y)
    peer = linear_model.Ridge(alpha=0.5)
    errors = [
        (peer.fit(x[train], y[train]).predict(x[test]) - y[test].ravel()) ** 2
        for train, test in KFold(2).split(x)
    ]
    np.testing.assert_allclose(fit.cv_scores_, -np.mean(errors), rtol=1e-10)
    peer.fit(x, y)
    np.testing.assert_allclose(fit.coef_.ravel(), peer.coef_, rtol=1e-10)
    np.testing.assert_allclose(fit.intercept_, peer.intercept_, rtol=1e-10)
    np.testing.assert_array_equal(fit.best_alphas_, 0.5)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
@pytest.mark.parametrize("scoring", ["r2", "correlation"])
def test_two_held_out_samples_have_a_score_and_one_has_none(solver, scoring):
    if scoring == "correlation" and "hold-out" in solver:
        with pytest.raises(UsageError, match="the hold-out solver scores r2 or mse"):
            RidgeCV(ALPHAS, scoring=scoring, solver=solver).fit(*problem(10, 3, 2))
        return
    x, y = problem(11, 3, n_targets=8)
    settings = {"scoring": scoring, "solver": solver}
    fit = RidgeCV(ALPHAS, cv=5, **settings).fit(x, y)
    assert np.isfinite(fit.cv_scores_).all()
    # Eleven samples in six folds: the last one of a sample, which does not count.
    folds = list(KFold(6).split(x))
    fit = RidgeCV(ALPHAS, cv=folds, **settings).fit(x, y)
    path = peer_path(x, y, folds[:5], scoring)
    np.testing.assert_allclose(fit.cv_scores_, path.max(0), rtol=1e-6)
    with pytest.raises(UsageError, match="at least 2 held-out samples"):
        RidgeCV(ALPHAS, cv=LeaveOneOut(), **settings).fit(x, y)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["auto", *EIGEN])
def test_a_penalty_of_zero_is_least_squares_of_the_shortest_weights(shape, solver):
    x, y = problem(*SHAPES[shape], n_targets=6)
    fit = RidgeCV([0.0], cv=3, scoring="mse", solver=solver).fit(x, y)
    # The null mode of centring is rounding: not to be inverted.
    expected = np.linalg.pinv(x - x.mean(0), rcond=1e-10) @ (y - y.mean(0))
    np.testing.assert_allclose(
        fit.coef_, expected, atol=1e-8 * abs(expected).max(), rtol=1e-8
    )
    grid = RidgeCV([0.0, *ALPHAS], cv=3, scoring="mse", solver=solver).fit(x, y)
    assert np.isfinite(grid.cv_scores_).all()
    assert (grid.cv_scores_ >= fit.cv_scores_ - 1e-9 * abs(fit.cv_scores_)).all()


@pytest.mark.parametrize("solver", [*HOLD_OUT, *CHOLESKY])
def test_a_solver_that_would_lose_its_digits_says_so(solver):
    x, y = problem(*SHAPES["p > n"], n_targets=6)
    with pytest.raises(UsageError, match="loses its digits with these penalties"):
        RidgeCV([0.0, 1.0], cv=3, scoring="mse", solver=solver).fit(x, y)


@pytest.mark.parametrize("solver", HOLD_OUT)
@pytest.mark.parametrize("kind", ["purged", "bootstrap", "partial"])
def test_held_out_blocks_are_refused_where_folds_leave_rows_out(solver, kind):
    x, y = problem(*SHAPES["p < n"], n_targets=6)
    with pytest.raises(UsageError, match="folds that train on every sample"):
        RidgeCV(ALPHAS, cv=splits_of(kind, 90), solver=solver).fit(x, y)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_features_that_never_vary_predict_the_mean(solver):
    _, y = problem(40, 8, n_targets=9)
    x = np.full((40, 3), 0.1)
    fit = RidgeCV(ALPHAS, solver=solver, scoring="mse").fit(x, y)
    np.testing.assert_array_equal(fit.best_alphas_, ALPHAS.max())  # all are a tie
    np.testing.assert_array_equal(fit.coef_, 0)
    np.testing.assert_allclose(fit.predict(x), np.tile(y.mean(0), (40, 1)))

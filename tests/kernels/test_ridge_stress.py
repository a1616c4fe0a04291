"""Ridge engines on features that break solvers: regret, and two ways to one score.

Alphas run from 1e-6 to 1e20. The yardstick is a singular value decomposition of the
training rows of each fold in float64, which does not square their condition number.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.kernels import EigenRidge, HoldOutRidge, select_alphas
from neuromm.kernels.ridge_cholesky import CholeskyRidge

ALPHAS = np.geomspace(1e-6, 1e20, 27)
N_SAMPLES = 96
SCORINGS = ["r2", "correlation", "mse"]
FORMS = ["primal", "dual"]


def contiguous(n_samples, n_splits):
    rows = np.arange(n_samples)
    return [(np.setdiff1d(rows, test), test) for test in np.array_split(rows, n_splits)]


SPLITS = contiguous(N_SAMPLES, 4)


def one_hot(rng, shares):
    return np.eye(len(shares))[rng.choice(len(shares), N_SAMPLES, p=shares)]


def autoregressive_delays(rng):
    """Eight AR(1) features at five delays, as a finite impulse response has them."""
    series = rng.standard_normal((N_SAMPLES + 5, 8))
    for row in range(1, len(series)):
        series[row] += 0.95 * series[row - 1]
    return np.hstack([series[5 - lag : 5 - lag + N_SAMPLES] for lag in range(5)])


def decades(rng, n_features):
    """Singular values over six decades: eigenvalues over twelve."""
    rank = min(n_features, N_SAMPLES - 1)
    left = np.linalg.qr(rng.standard_normal((N_SAMPLES, rank)))[0]
    right = np.linalg.qr(rng.standard_normal((n_features, rank)))[0]
    return (left * np.logspace(0, -6, rank)) @ right.T


def repeated(rng, n_features):
    x = rng.standard_normal((N_SAMPLES, n_features))
    return np.hstack([x, x, x[:, :3]])


HARD = {
    "one-hot": lambda rng: np.tile(np.eye(8), (12, 1)),
    "unbalanced one-hot": lambda rng: one_hot(rng, [0.6, 0.2, 0.1, 0.05, 0.05]),
    "duplicated columns": lambda rng: repeated(rng, 10),
    "duplicated columns, p > n": lambda rng: repeated(rng, 80),
    "orthonormal": lambda rng: np.linalg.qr(rng.standard_normal((N_SAMPLES, 20)))[0],
    "rank 1": lambda rng: np.outer(rng.standard_normal(N_SAMPLES), np.ones(15)),
    "12 decades": lambda rng: decades(rng, 40),
    "12 decades, p > n": lambda rng: decades(rng, 150),
    "AR(1) + FIR": autoregressive_delays,
    "p > n": lambda rng: rng.standard_normal((N_SAMPLES, 200)),
    "p = n_train": lambda rng: rng.standard_normal((N_SAMPLES, 72)),
    "far from zero": lambda rng: rng.standard_normal((N_SAMPLES, 20)) + 1e4,
}


def hard_problem(kind, n_targets=12):
    """Features of unit variance, and targets from pure signal to pure noise."""
    rng = np.random.default_rng(0)
    x = HARD[kind](rng)
    x = x / x.std()
    signal = x @ rng.standard_normal((x.shape[1], n_targets))
    signal /= signal.std(0)
    noise = np.r_[0, np.geomspace(0.01, 1, n_targets - 2), 1]
    gain = np.r_[np.ones(n_targets - 1), 0]
    y = gain * signal + noise * rng.standard_normal((N_SAMPLES, n_targets))
    return x, (y - y.mean(0)) / y.std(0)


def by_svd(x, y, splits, alphas, scoring):
    """Scores of every alpha, averaged over folds, float64."""
    total = 0.0
    for train, test in splits:
        x_mean, y_mean = x[train].mean(0), y[train].mean(0)
        u, s, vt = np.linalg.svd(x[train] - x_mean, full_matrices=False)
        kept = s**2 > min(x[train].shape) * np.finfo(float).eps * s[0] ** 2
        z = u[:, kept].T @ (y[train] - y_mean)
        held = (x[test] - x_mean) @ vt[kept].T
        truth = y[test] - y_mean
        rows = []
        for alpha in alphas:
            shrunken = (s[kept] / (s[kept] ** 2 + alpha))[:, None] * z
            if scoring == "correlation":  # ignores scale: keep it within the exponent
                yhat = (held - held.mean(0)) @ (shrunken * (1 + alpha))
                about = truth - truth.mean(0)
                norm = np.sqrt((yhat**2).sum(0) * (about**2).sum(0))
                rows.append((yhat * about).sum(0) / norm)
                continue
            loss = ((truth - held @ shrunken) ** 2).mean(0)
            rows.append(-loss if scoring == "mse" else 1 - loss / truth.var(0))
        total = total + np.array(rows) / len(splits)
    return total


def regret(scores, exact):
    """What the choice by ``scores`` loses by the exact ones, worst target."""
    chosen = select_alphas(scores, ALPHAS)
    return (exact.max(0) - np.take_along_axis(exact, chosen[None], axis=0)[0]).max()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("kind", HARD)
def test_alphas_chosen_on_hard_features_lose_less_than_a_thousandth(
    kind, scoring, dtype
):
    x, y = (one.astype(dtype) for one in hard_problem(kind))
    exact = by_svd(x.astype("f8"), y.astype("f8"), SPLITS, ALPHAS, scoring)
    shared = {"scoring": scoring, "fit_intercept": True}
    for form in FORMS:
        paths = {}
        for method in ("divided-difference", "direct"):
            made = EigenRidge(
                x, SPLITS, ALPHAS, form=form, method=method, n_targets=12, **shared
            )
            batch = made.load(y)
            paths[method] = made.path(batch)
            weights, _ = made.weights(batch, select_alphas(paths[method], ALPHAS))
            assert np.isfinite(weights).all()
        if scoring != "correlation":
            held = HoldOutRidge(x, SPLITS, ALPHAS, form=form, n_targets=12, **shared)
            if held.is_accurate:
                paths["hold-out"] = held.path(held.load(y))
        factored = CholeskyRidge(x, SPLITS, ALPHAS, form=form, **shared)
        if factored.is_accurate:
            paths["cholesky"] = factored.path(factored.load(y))
        for method, scores in paths.items():
            assert np.isfinite(scores).all(), (form, method)
            assert regret(scores, exact) < 1e-3, (form, method)
        if dtype == "f8":
            # Errors of an unstable score are in proportion to it.
            scale = np.maximum(1, abs(paths["direct"]))
            step = (paths["divided-difference"] - paths["direct"]) / scale
            assert abs(step).max() < 1e-8, form


@pytest.mark.parametrize("kind", [kind for kind in HARD if "decades" not in kind])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_scores_on_hard_features_are_those_of_singular_values(kind, scoring):
    # Twelve decades are left out: a Gram squares the condition number of features, so
    # scores of the smallest penalties keep seven digits there.
    x, y = hard_problem(kind)
    exact = by_svd(x, y, SPLITS, ALPHAS, scoring)
    for form in FORMS:
        made = EigenRidge(
            x,
            SPLITS,
            ALPHAS,
            form=form,
            method="divided-difference",
            scoring=scoring,
            fit_intercept=True,
            n_targets=12,
        )
        scores = made.path(made.load(y))
        np.testing.assert_allclose(scores, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_features", [40, 150])
def test_held_out_blocks_keep_as_many_digits_as_folds_over_twelve_decades(
    form, n_features
):
    # The modes of small eigenvalues are orthonormal to 1e-4 only before they are made
    # so, and errors of held-out blocks took that for signal, at any penalty.
    x, y = hard_problem("12 decades" + ", p > n" * (n_features > N_SAMPLES))
    alphas = ALPHAS[ALPHAS > 1e-4]
    exact = by_svd(x, y, SPLITS, alphas, "r2")
    made = HoldOutRidge(
        x, SPLITS, alphas, form=form, scoring="r2", fit_intercept=True, n_targets=12
    )
    assert made.is_accurate
    np.testing.assert_allclose(made.path(made.load(y)), exact, rtol=1e-7, atol=1e-7)


@st.composite
def small_problems(draw):
    """Any shape, folds that may overlap, and eigenvalues that may nearly be equal."""
    n_samples, n_features = draw(st.integers(9, 24)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = rng.standard_normal((n_samples, n_features))
    kind = draw(
        st.sampled_from(["any", "equal", "nearly equal", "duplicated", "steep"])
    )
    # With as many columns as rows, rows would be orthogonal too: predictions are 0.
    q = np.linalg.qr(x[:, : n_samples // 2])[0]
    if kind == "equal":
        x = q
    elif kind == "nearly equal":
        x = q * (1 + draw(st.sampled_from([1e-3, 1e-5, 1e-7])) * np.arange(q.shape[1]))
    elif kind == "duplicated":
        x = np.hstack([x, x])
    elif kind == "steep":
        x = x * np.logspace(0, -5, n_features)
    folds = []
    for _ in range(draw(st.integers(1, 3))):
        order = rng.permutation(n_samples)
        # A correlation of two or three samples may be that of a prediction whose modes
        # cancel: what its square of 1e-8 of theirs then keeps is half of the digits.
        n_test = draw(st.integers(5, n_samples - 3))
        train = order[n_test:]
        if draw(st.booleans()):
            train = rng.choice(train, len(train))  # a bootstrap
        folds.append((train, order[:n_test]))
    y = rng.standard_normal((n_samples, 3))
    return x, y, folds


@settings(max_examples=120, deadline=None)
@given(
    small_problems(),
    st.sampled_from(FORMS),
    st.sampled_from(SCORINGS),
    st.booleans(),
)
def test_divided_differences_are_the_direct_scores(
    problem, form, scoring, fit_intercept
):
    x, y, folds = problem
    scores = {}
    for method in ("divided-difference", "direct"):
        made = EigenRidge(
            x,
            folds,
            ALPHAS,
            form=form,
            method=method,
            scoring=scoring,
            fit_intercept=fit_intercept,
            n_targets=3,
        )
        scores[method] = made.path(made.load(y))
    np.testing.assert_allclose(
        scores["divided-difference"], scores["direct"], rtol=1e-8, atol=1e-8
    )

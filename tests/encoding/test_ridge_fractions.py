"""RidgeCV by fractions of the length of least-squares weights."""

import numpy as np
import pytest
from fracridge import fracridge
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from neuromm.core import UsageError
from neuromm.encoding import RidgeCV, r2_score

FRACS = np.array([0.1, 0.3, 0.5, 0.8, 1.0])


def problem(n_features, n_targets=12):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, n_features)) * np.arange(1, n_features + 1) ** -0.5
    w = rng.standard_normal((n_features, n_targets))
    noise = rng.standard_normal((60, n_targets)) * np.geomspace(0.1, 8, n_targets)
    y = x @ w + noise
    return x - x.mean(0), y - y.mean(0)


@pytest.mark.parametrize("n_features", [10, 90])
@pytest.mark.parametrize("fraction", [0.2, 0.6])
def test_one_fraction_is_that_of_fracridge(n_features, fraction):
    x, y = problem(n_features)
    fit = RidgeCV(fracs=[fraction], fit_intercept=False).fit(x, y)
    coef, alphas = fracridge(x, y, fracs=np.array([fraction]))
    # Both interpolate on a grid of steps of 10^0.2, placed by the smallest eigenvalue.
    np.testing.assert_allclose(fit.best_alphas_, np.squeeze(alphas), rtol=1e-6)
    np.testing.assert_allclose(fit.coef_, np.squeeze(coef), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_features", [10, 90])
def test_weights_have_the_length_that_was_asked_for(n_features):
    x, y = problem(n_features)
    full = np.linalg.pinv(x) @ y
    for fraction in FRACS:
        fit = RidgeCV(fracs=[fraction]).fit(x, y)
        length = np.linalg.norm(fit.coef_, axis=0) / np.linalg.norm(full, axis=0)
        # Linear interpolation on the grid errs by less than two per cent.
        np.testing.assert_allclose(length, fraction, rtol=0.02)


def test_the_fraction_with_the_best_held_out_score_is_chosen():
    x, y = problem(20)
    fit = RidgeCV(fracs=FRACS, cv=4).fit(x, y)
    scores = np.zeros((len(FRACS), y.shape[1]))
    for train, test in KFold(4).split(x):
        mean = x[train].mean(0), y[train].mean(0)
        _, alphas = fracridge(x[train] - mean[0], y[train] - mean[1], fracs=FRACS)
        for row in range(len(FRACS)):
            peer = Ridge(alpha=alphas[row]).fit(x[train], y[train])
            scores[row] += r2_score(y[test], peer.predict(x[test])) / 4
    np.testing.assert_array_equal(fit.best_fracs_, FRACS[scores.argmax(axis=0)])
    np.testing.assert_allclose(fit.cv_scores_, scores.max(axis=0), rtol=1e-6)
    assert len(np.unique(fit.best_fracs_)) > 2
    assert fit.solver_form_ == "primal-direct"


def test_the_scale_of_features_changes_no_fraction():
    x, y = problem(20)
    fit, scaled = (RidgeCV(fracs=FRACS).fit(x * unit, y) for unit in (1.0, 1e3))
    np.testing.assert_array_equal(fit.best_fracs_, scaled.best_fracs_)


@pytest.mark.parametrize("fracs", [[0.0], [1.2], []])
def test_fractions_out_of_range_are_refused(fracs):
    x, y = problem(5)
    with pytest.raises(UsageError, match=r"numbers in \(0, 1\]"):
        RidgeCV(fracs=fracs).fit(x, y)

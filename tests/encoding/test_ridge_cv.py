"""RidgeCV: peers, conventions, and targets that cannot be fitted."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from neuromm.core import ResourceLimitError, UsageError
from neuromm.encoding import RidgeCV, RunKFold, r2_score

# From below the smallest to above the largest eigenvalue of these problems.
ALPHAS = np.geomspace(1e-2, 1e6, 12)
SHAPES = {"primal": (90, 12), "dual": (60, 150), "as many": (60, 48)}

pytestmark = pytest.mark.filterwarnings("ignore:.*of the targets chose the")


@parametrize_with_checks(
    [
        RidgeCV(),
        RidgeCV(scoring="mse", fit_intercept=False, alpha_per_target=False),
        RidgeCV(scoring="correlation", memory_limit="50MB"),
    ]
)
def test_scikit_learn_estimator_check(estimator, check):
    # The array API check skips itself unless SCIPY_ARRAY_API is set; RidgeCV does not
    # claim array API support.
    check(estimator)


def problem(shape, dtype="f8", n_targets=30, seed=0):
    rng = np.random.default_rng(seed)
    n_samples, n_features = SHAPES[shape]
    scale = np.arange(1, n_features + 1) ** -0.5
    x = rng.standard_normal((n_samples, n_features)) * scale
    w = rng.standard_normal((n_features, n_targets))
    noise = rng.standard_normal((n_samples, n_targets))
    y = x @ w + noise * np.geomspace(0.1, 10, n_targets) + 3.0
    return x.astype(dtype), y.astype(dtype)


def ours(**settings):
    return RidgeCV(alphas=ALPHAS, **settings)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_alphas_scores_and_weights_are_those_of_himalaya(shape, scoring, fit_intercept):
    himalaya = pytest.importorskip("himalaya.ridge")
    scores = pytest.importorskip("himalaya.scoring")
    x, y = problem(shape)
    x = x + 1.0 if fit_intercept else x
    peer = himalaya.RidgeCV(
        alphas=ALPHAS,
        fit_intercept=fit_intercept,
        cv=5,
        solver_params={
            "score_func": {
                "r2": scores.r2_score,
                "correlation": scores.correlation_score,
                "mse": scores.l2_neg_loss,
            }[scoring],
            "warn": False,
        },
    ).fit(x, y)
    fit = ours(scoring=scoring, fit_intercept=fit_intercept).fit(x, y)
    assert fit.solver_form_.startswith("dual" if shape == "dual" else "primal")
    np.testing.assert_allclose(fit.best_alphas_, peer.best_alphas_, rtol=1e-8)
    # himalaya's scores contain the slope of its tie-break, 1e-10 log(alpha).
    np.testing.assert_allclose(fit.cv_scores_, peer.cv_scores_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fit.coef_, peer.coef_, rtol=1e-7, atol=1e-9)
    if fit_intercept:
        np.testing.assert_allclose(fit.intercept_, peer.intercept_, rtol=1e-8)
    np.testing.assert_allclose(fit.predict(x), peer.predict(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_agrees_with_himalaya_in_float64_to_single_precision(shape):
    himalaya = pytest.importorskip("himalaya.ridge")
    r2 = pytest.importorskip("himalaya.scoring").r2_score
    x, y = problem(shape, "f4")
    fit = ours().fit(x, y)
    assert fit.coef_.dtype == fit.predict(x).dtype == np.float32
    peer = himalaya.RidgeCV(
        alphas=ALPHAS,
        fit_intercept=True,
        cv=5,
        solver_params={"warn": False, "score_func": r2},
    )
    peer.fit(x.astype("f8"), y.astype("f8"))
    same = np.isclose(fit.best_alphas_, peer.best_alphas_, rtol=1e-6)
    assert same.mean() > 0.9  # neighbours on a flat part of the curve may swap
    np.testing.assert_allclose(fit.cv_scores_, peer.cv_scores_, atol=1e-5)
    # Weights of float32 err by eps times the condition of the shrunken system (< 1e3).
    np.testing.assert_allclose(fit.coef_[:, same], peer.coef_[:, same], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("scoring", "peer_scoring"), [("r2", "r2"), ("mse", "neg_mean_squared_error")]
)
def test_one_target_is_scikit_learns_grid_search(shape, scoring, peer_scoring):
    x, y = problem(shape, n_targets=3)
    for target in y.T:
        peer = GridSearchCV(
            Ridge(), {"alpha": ALPHAS}, cv=KFold(4), scoring=peer_scoring
        ).fit(x, target)
        fit = ours(cv=4, scoring=scoring).fit(x, target)
        assert fit.best_alphas_ == peer.best_params_["alpha"]
        np.testing.assert_allclose(fit.cv_scores_, peer.best_score_, rtol=1e-8)
        best = peer.best_estimator_
        np.testing.assert_allclose(fit.coef_, best.coef_, rtol=1e-7, atol=1e-9)
        assert fit.intercept_ == pytest.approx(best.intercept_)
        assert fit.score(x, target) == pytest.approx(best.score(x, target))


def test_one_alpha_for_all_is_the_best_by_the_mean_score():
    x, y = problem("primal")
    peer = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=KFold(5)).fit(x, y)
    fit = ours(alpha_per_target=False).fit(x, y)
    np.testing.assert_array_equal(fit.best_alphas_, peer.best_params_["alpha"])
    assert fit.score(x, y) == pytest.approx(peer.score(x, y))


def test_folds_may_be_a_number_a_splitter_or_rows():
    x, y = problem("primal")
    runs = np.repeat(np.arange(6), 15)
    by_run = ours(cv=RunKFold()).fit(x, y, groups=runs)
    by_rows = ours(cv=list(RunKFold().split(x, groups=runs))).fit(x, y)
    np.testing.assert_array_equal(by_run.coef_, by_rows.coef_)
    np.testing.assert_array_equal(
        ours(cv=5).fit(x, y).coef_, ours(cv=KFold(5)).fit(x, y).coef_
    )
    np.testing.assert_array_equal(
        ours(cv=6).fit(x, y).cv_scores_, by_run.cv_scores_
    )  # runs of equal length are the folds of KFold


def test_the_order_of_alphas_is_indifferent():
    x, y = problem("primal")
    rng = np.random.default_rng(0)
    shuffled = RidgeCV(alphas=rng.permutation(ALPHAS)).fit(x, y)
    np.testing.assert_array_equal(shuffled.best_alphas_, ours().fit(x, y).best_alphas_)


def test_gain_and_offset_of_a_target_change_neither_alpha_nor_score():
    x, y = problem("dual")
    for scoring in ("r2", "correlation"):
        fit = ours(scoring=scoring).fit(x, y)
        moved = ours(scoring=scoring).fit(x, 1e3 * y - 7)
        np.testing.assert_array_equal(fit.best_alphas_, moved.best_alphas_)
        np.testing.assert_allclose(fit.cv_scores_, moved.cv_scores_, rtol=1e-8)
    moved = ours(scoring="mse").fit(x, 1e3 * y - 7)
    np.testing.assert_array_equal(
        ours(scoring="mse").fit(x, y).best_alphas_, moved.best_alphas_
    )


@pytest.mark.parametrize("shape", ["primal", "dual"])
def test_masked_targets_leave_the_others_bit_identical(shape):
    x, y = problem(shape)
    spoiled = y.copy()
    spoiled[4, 2] = np.nan
    spoiled[7, 3] = np.inf
    spoiled[:, 5] = 0.1
    spoiled[:, 6] = 0.0
    with pytest.warns(UserWarning, match="4 of 30 targets are constant or have"):
        fit = ours().fit(x, spoiled)
    clean = ours().fit(x, y)
    masked = [2, 3, 5, 6]
    np.testing.assert_array_equal(np.flatnonzero(~fit.valid_targets_), masked)
    others = fit.valid_targets_
    for name in ("coef_", "intercept_", "best_alphas_", "cv_scores_"):
        np.testing.assert_array_equal(
            getattr(fit, name)[..., others], getattr(clean, name)[..., others]
        )
    np.testing.assert_array_equal(fit.coef_[:, masked], 0)
    assert np.isnan(fit.best_alphas_[masked]).all()
    assert np.isnan(fit.cv_scores_[masked]).all()
    prediction = fit.predict(x)
    assert np.isnan(prediction[:, [2, 3]]).all()
    np.testing.assert_array_equal(prediction[:, 5], 0.1)
    np.testing.assert_array_equal(prediction[:, 6], 0.0)
    assert fit.score(x, spoiled) == pytest.approx(
        r2_score(y[:, others], prediction[:, others]).mean()
    )


def test_a_fold_in_which_a_target_is_constant_does_not_count():
    x, y = problem("primal")
    y[:18, 0] = 1.5  # the first of five folds
    fit = ours().fit(x, y)
    rest = [split for split in KFold(5).split(x) if split[1][0] != 0]
    alone = ours(cv=rest).fit(x, y)
    assert fit.cv_scores_[0] == pytest.approx(alone.cv_scores_[0], rel=1e-12)


def test_nothing_to_predict_goes_to_the_largest_alpha():
    x, _ = problem("primal")
    y = np.tile([0.0, 1.0], 45)[:, None]  # orthogonal to features that never vary
    fit = ours().fit(np.zeros_like(x), y)
    np.testing.assert_array_equal(fit.best_alphas_, ALPHAS.max())
    np.testing.assert_allclose(fit.predict(x), 0.5)


@pytest.mark.parametrize("alpha_per_target", [True, False])
def test_a_memory_limit_changes_batches_and_not_results(alpha_per_target):
    x, y = problem("primal", n_targets=200)
    free = ours(alpha_per_target=alpha_per_target).fit(x, y)
    tight = ours(memory_limit="250KB", alpha_per_target=alpha_per_target).fit(x, y)
    np.testing.assert_array_equal(free.best_alphas_, tight.best_alphas_)
    np.testing.assert_allclose(free.coef_, tight.coef_, rtol=1e-9, atol=1e-12)
    with pytest.raises(ResourceLimitError, match=r"needs at least .* MB above"):
        ours(memory_limit=1000).fit(x, y)
    with pytest.raises(UsageError, match="such as '2GB'"):
        ours(memory_limit="lots").fit(x, y)


@pytest.mark.filterwarnings("default")
def test_an_edge_of_the_grid_is_reported_with_its_share():
    x, y = problem("primal")
    with pytest.warns(
        UserWarning, match="100% of the targets chose the largest alpha, 1e-08"
    ):
        RidgeCV(alphas=[1e-9, 1e-8]).fit(x[::-1], y[:, -1:])
    with pytest.warns(UserWarning, match="100% of the targets chose the smallest"):
        RidgeCV(alphas=[1e8, 1e9]).fit(x, y[:, :5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RidgeCV(alphas=[1.0]).fit(x, y)  # a grid of one has no edge


def test_inputs_are_left_as_they_were():
    x, y = problem("dual")
    y[0, 0] = np.nan
    copies = x.copy(), y.copy()
    with pytest.warns(UserWarning, match="1 of 30"):
        ours().fit(x, y)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


def test_messages_name_the_cure():
    x, y = problem("primal")
    with pytest.raises(ValueError, match="same dummy volumes dropped"):
        ours().fit(x[:-1], y)
    with pytest.raises(UsageError, match="take scoring='mse'"):
        ours(cv=len(x)).fit(x, y)
    with pytest.raises(UsageError, match="pass it as groups="):
        ours(cv=RunKFold()).fit(x, y)
    with pytest.raises(UsageError, match="alphas must be numbers of 0 or above"):
        RidgeCV(alphas=[-1.0]).fit(x, y)
    with pytest.raises(UsageError, match="scoring must be"):
        RidgeCV(scoring="accuracy").fit(x, y)
    with pytest.raises(ValueError, match="NaN"):
        ours().fit(x, np.where(np.arange(90) == 3, np.nan, y[:, 0]))

"""BandedRidgeCV: himalaya, brute force, planted spaces, and targets that cannot be."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from neuromm.core import ResourceLimitError, UsageError
from neuromm.encoding import BandedRidgeCV, RidgeCV, RunKFold, r2_score
from neuromm.encoding.banded_fit import fit_banded, gamma_candidates
from neuromm.encoding.splitters import contiguous_splits
from neuromm.kernels import Solver, banded_search

ALPHAS = np.geomspace(1e-2, 1e6, 9)
# Samples and features of two spaces.
SHAPES = {"primal": (90, (12, 8)), "as many": (60, (30, 18)), "dual": (60, (80, 40))}
GAMMAS = gamma_candidates(8, 2, (0.1, 1.0), 3)

pytestmark = pytest.mark.filterwarnings("ignore:.*of the targets chose the")


@parametrize_with_checks(
    [
        BandedRidgeCV(n_iter=3, random_state=0),
        BandedRidgeCV(scoring="mse", fit_intercept=False, memory_limit="50MB"),
    ]
)
def test_scikit_learn_estimator_check(estimator, check):
    check(estimator)


def problem(shape="primal", n_targets=24, seed=0, offset=1.0):
    """Targets that follow two spaces in all proportions, under all levels of noise."""
    rng = np.random.default_rng(seed)
    n_samples, sizes = SHAPES[shape]
    spaces = {
        name: rng.standard_normal((n_samples, size)) * np.arange(1, size + 1) ** -0.5
        + offset
        for name, size in zip(("vision", "language"), sizes, strict=True)
    }
    share = rng.beta(0.3, 0.3, n_targets)
    y = rng.standard_normal((n_samples, n_targets)) * np.geomspace(0.1, 5, n_targets)
    for space, part in zip(spaces.values(), (share, 1 - share), strict=True):
        y += space @ (rng.standard_normal((space.shape[1], n_targets)) * part)
    return spaces, y


def ours(**settings):
    return BandedRidgeCV(**{"alphas": ALPHAS, "n_iter": GAMMAS} | settings)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_choices_scores_and_weights_are_those_of_himalaya(
    shape, scoring, fit_intercept
):
    himalaya = pytest.importorskip("himalaya.ridge")
    scores = pytest.importorskip("himalaya.scoring")
    spaces, y = problem(shape, offset=float(fit_intercept))
    score = {
        "r2": scores.r2_score,
        "correlation": scores.correlation_score,
        "mse": scores.l2_neg_loss,
    }[scoring]
    peer = himalaya.GroupRidgeCV(
        groups="input",
        fit_intercept=fit_intercept,
        solver_params={
            "n_iter": GAMMAS,
            "alphas": ALPHAS,
            "score_func": score,
            "progress_bar": False,
            "warn": False,
        },
    ).fit(list(spaces.values()), y)
    fit = ours(scoring=scoring, fit_intercept=fit_intercept).fit(spaces, y)
    assert fit.solver_form_.startswith("dual" if shape == "dual" else "primal")
    np.testing.assert_allclose(fit.deltas_, peer.deltas_, rtol=1e-9, atol=1e-9)
    # himalaya's scores contain the slope of its tie-break, 1e-10 log(alpha).
    best = peer.cv_scores_.max(axis=0)
    np.testing.assert_allclose(fit.cv_scores_, best, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fit.coef_, peer.coef_, rtol=1e-7, atol=1e-9)
    if fit_intercept:
        np.testing.assert_allclose(fit.intercept_, peer.intercept_, rtol=1e-8)
    progress = np.maximum.accumulate(peer.cv_scores_, axis=0).mean(axis=1)
    np.testing.assert_allclose(fit.cv_scores_path_, progress, rtol=1e-8, atol=1e-8)


def test_candidates_are_those_of_himalaya_for_the_same_seed():
    kernel_ridge = pytest.importorskip("himalaya.kernel_ridge")
    for concentration in ([0.1, 1.0], [np.inf, 0.5], 1.0):
        peer = kernel_ridge.generate_dirichlet_samples(7, 3, concentration, 5)
        drawn = gamma_candidates(7, 3, concentration, 5)
        np.testing.assert_array_equal(drawn[1:], peer[1:])
        np.testing.assert_array_equal(drawn[0], 1 / 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["divided-difference", "direct"])
def test_every_candidate_and_penalty_was_tried(shape, method):
    spaces, y = problem(shape, n_targets=4)
    x = np.hstack(list(spaces.values()))
    sizes = [space.shape[1] for space in spaces.values()]
    folds = list(KFold(4).split(x))
    found = []
    for gamma in GAMMAS:
        z = x * np.repeat(np.sqrt(gamma), sizes)
        for alpha in ALPHAS:
            folded = [
                r2_score(y[test], Ridge(alpha).fit(z[train], y[train]).predict(z[test]))
                for train, test in folds
            ]
            found.append(np.mean(folded, axis=0))
    edges = np.cumsum([0, *sizes])
    for form in ("primal", "dual"):
        fit = fit_banded(
            x,
            y,
            [slice(*pair) for pair in pairwise(edges)],
            folds,
            ALPHAS,
            GAMMAS,
            solver=Solver(form, method),
        )
        assert fit.solver_form == f"{form}-{method}"
        best = np.max(found, axis=0)
        np.testing.assert_allclose(fit.cv_scores, best, rtol=1e-8, atol=1e-9)
        gamma, alpha = np.unravel_index(
            np.argmax(found, axis=0), (len(GAMMAS), len(ALPHAS))
        )
        np.testing.assert_allclose(fit.best_gammas, GAMMAS[gamma].T)
        np.testing.assert_array_equal(fit.best_alphas, ALPHAS[alpha])


@pytest.mark.parametrize("shape", SHAPES)
def test_one_space_is_ridge_of_one_penalty(shape):
    spaces, y = problem(shape)
    x = np.hstack(list(spaces.values()))
    banded = BandedRidgeCV(alphas=ALPHAS).fit(x, y)
    ridge = RidgeCV(alphas=ALPHAS).fit(x, y)
    np.testing.assert_array_equal(banded.best_alphas_, ridge.best_alphas_)
    np.testing.assert_array_equal(banded.best_gammas_, 1)
    np.testing.assert_allclose(banded.cv_scores_, ridge.cv_scores_, rtol=1e-10)
    np.testing.assert_allclose(banded.coef_, ridge.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(banded.predict(x), ridge.predict(x), rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_weight_of_zero_leaves_the_space_out(shape):
    spaces, y = problem(shape)
    fit = ours(n_iter=[[0.0, 1.0]]).fit(spaces, y)
    alone = RidgeCV(alphas=ALPHAS).fit(spaces["language"], y)
    np.testing.assert_array_equal(fit.best_alphas_, alone.best_alphas_)
    np.testing.assert_allclose(fit.cv_scores_, alone.cv_scores_, rtol=1e-9, atol=1e-12)
    rows = fit.space_slices_
    np.testing.assert_array_equal(fit.coef_[rows["vision"]], 0)
    np.testing.assert_allclose(
        fit.coef_[rows["language"]], alone.coef_, rtol=1e-8, atol=1e-11
    )
    assert (fit.deltas_[0] == -np.inf).all()
    assert (fit.alphas_per_space_[0] == np.inf).all()
    np.testing.assert_array_equal(fit.alphas_per_space_[1], alone.best_alphas_)


@pytest.mark.parametrize("shape", ["primal", "dual"])
def test_each_target_finds_the_space_that_drives_it(shape):
    rng = np.random.default_rng(4)
    n_samples, sizes = (300, (20, 15)) if shape == "primal" else (160, (150, 120))
    names = ("vision", "language")
    spaces = {
        name: rng.standard_normal((n_samples, size)) * np.arange(1, size + 1) ** -1.0
        for name, size in zip(names, sizes, strict=True)
    }
    x = list(spaces.values())
    driver = np.repeat([0, 1], 15)
    y = np.stack(
        [x[one] @ rng.standard_normal(x[one].shape[1]) for one in driver], axis=1
    )
    y += 0.3 * rng.standard_normal(y.shape)
    fit = ours(n_iter=20, random_state=0).fit(spaces, y)
    np.testing.assert_array_equal(fit.best_gammas_.argmax(axis=0), driver)
    fresh = {name: rng.standard_normal(space.shape) for name, space in spaces.items()}
    parts = fit.predict(fresh, split=True)
    strength = np.linalg.norm(parts, axis=1)
    np.testing.assert_array_equal(strength.argmax(axis=0), driver)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_shares_of_spaces_sum_to_the_joint_r2(shape, fit_intercept):
    spaces, y = problem(shape)
    held_out, truth = problem(shape, seed=1)
    fit = ours(fit_intercept=fit_intercept).fit(spaces, y)
    prediction = fit.predict(held_out)
    parts = fit.predict(held_out, split=True)
    np.testing.assert_allclose(parts.sum(axis=0) + fit.y_mean_, prediction, rtol=1e-8)
    centre = y.mean(axis=0) if fit_intercept else 0.0
    joint = 1 - ((truth - prediction) ** 2).sum(0) / ((truth - centre) ** 2).sum(0)
    shares = fit.score(held_out, truth, split=True)
    np.testing.assert_allclose(shares.sum(axis=0), joint, rtol=1e-8, atol=1e-10)
    assert fit.score(held_out, truth) == pytest.approx(
        r2_score(truth, prediction).mean()
    )


def test_a_mapping_slices_and_scattered_columns_agree():
    spaces, y = problem()
    x = np.hstack(list(spaces.values()))
    mapped = ours().fit(spaces, y)
    sliced = ours(spaces={"vision": slice(0, 12), "language": slice(12, 20)}).fit(x, y)
    np.testing.assert_array_equal(mapped.coef_, sliced.coef_)
    np.testing.assert_array_equal(mapped.cv_scores_, sliced.cv_scores_)
    assert mapped.space_names_ == sliced.space_names_ == ("vision", "language")
    assert mapped.n_features_in_ == sliced.n_features_in_ == 20
    # Columns in another order: weights follow them.
    mixed = np.random.default_rng(0).permutation(20)
    where = np.argsort(mixed)
    scattered = ours(spaces={"vision": where[:12], "language": where[12:]})
    scattered.fit(x[:, mixed], y)
    np.testing.assert_allclose(scattered.coef_, mapped.coef_[mixed], rtol=1e-9)
    np.testing.assert_allclose(
        scattered.predict(x[:, mixed], split=True), mapped.predict(spaces, split=True)
    )
    backwards = dict(reversed(spaces.items()))
    np.testing.assert_array_equal(mapped.predict(backwards), mapped.predict(spaces))


@pytest.mark.parametrize("shape", SHAPES)
def test_masked_targets_leave_the_others_bit_identical(shape):
    spaces, y = problem(shape)
    spoiled = y.copy()
    spoiled[4, 2], spoiled[7, 3] = np.nan, np.inf
    spoiled[:, 5], spoiled[:, 6] = 0.1, 0.0
    with pytest.warns(UserWarning, match="4 of 24 targets are constant or have"):
        fit = ours().fit(spaces, spoiled)
    clean = ours().fit(spaces, y)
    masked, others = [2, 3, 5, 6], fit.valid_targets_
    np.testing.assert_array_equal(np.flatnonzero(~others), masked)
    for name in (
        "coef_", "intercept_", "best_alphas_", "best_gammas_", "deltas_", "cv_scores_",
    ):  # fmt: skip
        np.testing.assert_array_equal(
            getattr(fit, name)[..., others], getattr(clean, name)[..., others]
        )
    np.testing.assert_array_equal(fit.coef_[:, masked], 0)
    for name in ("best_alphas_", "best_gammas_", "deltas_", "cv_scores_"):
        assert np.isnan(getattr(fit, name)[..., masked]).all()
    prediction = fit.predict(spaces)
    assert np.isnan(prediction[:, [2, 3]]).all()
    np.testing.assert_array_equal(prediction[:, 5], 0.1)
    assert np.isnan(fit.score(spaces, spoiled, split=True)[:, masked]).all()
    assert np.isfinite(fit.score(spaces, spoiled))
    assert np.isfinite(fit.cv_scores_path_).all()


def test_equal_candidates_leave_a_target_to_the_first():
    spaces, y = problem()
    gammas = np.array([[0.3, 0.7], [0.6, 0.4], [0.3, 0.7], [0.6, 0.4]])
    twice = ours(n_iter=gammas).fit(spaces, y)
    once = ours(n_iter=gammas[:2]).fit(spaces, y)
    np.testing.assert_array_equal(twice.coef_, once.coef_)
    # alpha / gamma is the same model: it must not win by rounding.
    double = ours(n_iter=[[0.5, 0.5], [1.0, 1.0]], alphas=[1.0, 2.0]).fit(spaces, y)
    best = ours(n_iter=[[0.5, 0.5]], alphas=[0.5, 1.0, 2.0]).fit(spaces, y)
    same = best.best_alphas_ >= 1
    assert same.any()
    np.testing.assert_array_equal(double.best_gammas_[:, same], 0.5)


def test_order_of_targets_memory_and_units_change_nothing():
    spaces, y = problem(n_targets=120)
    fit = ours().fit(spaces, y)
    order = np.random.default_rng(0).permutation(120)
    shuffled = ours().fit(spaces, y[:, order])
    tight = ours(memory_limit="900KB").fit(spaces, y)
    moved = ours().fit(spaces, 1e3 * y - 7)
    for other, columns, gain in (
        (shuffled, order, 1),
        (tight, slice(None), 1),
        (moved, slice(None), 1e3),
    ):
        np.testing.assert_array_equal(other.deltas_, fit.deltas_[:, columns])
        np.testing.assert_allclose(
            other.cv_scores_, fit.cv_scores_[columns], rtol=1e-8, atol=1e-10
        )
        np.testing.assert_allclose(
            other.coef_, gain * fit.coef_[:, columns], rtol=1e-7, atol=gain * 1e-11
        )
    scaled = ours(scoring="mse").fit(spaces, 1e3 * y - 7)
    np.testing.assert_array_equal(
        scaled.deltas_, ours(scoring="mse").fit(spaces, y).deltas_
    )
    with pytest.raises(ResourceLimitError, match=r"needs at least .* MB above"):
        ours(memory_limit=1000).fit(spaces, y)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scoring", ["r2", "correlation"])
def test_torch_gives_the_numbers_of_numpy(shape, scoring):
    torch = pytest.importorskip("torch")
    spaces, y = problem(shape)
    gammas = np.vstack([GAMMAS[:4], np.eye(2)])
    settings = {"scoring": scoring, "n_iter": gammas}
    fit = ours(**settings).fit(spaces, y)
    tensors = {name: torch.asarray(space) for name, space in spaces.items()}
    other = ours(**settings).fit(tensors, torch.asarray(y))
    for name in ("coef_", "intercept_", "cv_scores_", "deltas_", "best_alphas_"):
        value = getattr(other, name)
        assert isinstance(value, torch.Tensor)
        np.testing.assert_allclose(
            value.numpy(), getattr(fit, name), rtol=1e-8, atol=1e-10
        )
    assert isinstance(other.predict(tensors), torch.Tensor)
    np.testing.assert_allclose(
        other.score(tensors, torch.asarray(y), split=True),
        fit.score(spaces, y, split=True),
        atol=1e-8,
    )
    # NumPy targets beside tensors: results are NumPy's.
    mixed = ours(**settings).fit(tensors, y)
    np.testing.assert_allclose(mixed.coef_, fit.coef_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_scores_are_those_of_float64_to_single_precision(shape):
    spaces, y = problem(shape)
    single = {name: space.astype("f4") for name, space in spaces.items()}
    double = {name: space.astype("f8") for name, space in single.items()}
    fit = ours().fit(single, y.astype("f4"))
    exact = ours().fit(double, y.astype("f4").astype("f8"))
    assert fit.coef_.dtype == fit.predict(single).dtype == np.float32
    np.testing.assert_allclose(fit.cv_scores_, exact.cv_scores_, atol=2e-5)
    same = np.isclose(fit.deltas_, exact.deltas_).all(axis=0)
    assert same.mean() > 0.8  # neighbours on a flat part of the curve may swap
    np.testing.assert_allclose(fit.coef_[:, same], exact.coef_[:, same], atol=1e-3)


def test_a_steep_spectrum_in_float32_loses_nothing_that_matters():
    rng = np.random.default_rng(0)
    spectrum = np.geomspace(1, 1e-6, 40)
    spaces = {
        name: (rng.standard_normal((120, 40)) * spectrum).astype("f4")
        for name in ("vision", "language")
    }
    y = spaces["vision"] @ (rng.standard_normal((40, 30)) / spectrum[:, None]).astype(
        "f4"
    )
    y += 0.5 * rng.standard_normal(y.shape).astype("f4") * y.std()
    alphas = np.geomspace(1e-12, 1e3, 12)
    fit = ours(alphas=alphas).fit(spaces, y)
    exact = ours(alphas=alphas).fit(
        {name: space.astype("f8") for name, space in spaces.items()}, y.astype("f8")
    )
    assert np.isfinite(fit.coef_).all()
    np.testing.assert_allclose(fit.cv_scores_, exact.cv_scores_, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_predictions_for_every_penalty_take_over_where_a_path_is_doubted(
    shape, monkeypatch
):
    spaces, y = problem(shape)
    fit = ours().fit(spaces, y)
    monkeypatch.setattr(banded_search, "_DISAGREEMENT", -1.0)
    doubted = ours().fit(spaces, y)
    np.testing.assert_array_equal(doubted.deltas_, fit.deltas_)
    np.testing.assert_allclose(doubted.cv_scores_, fit.cv_scores_, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_one_hot_and_duplicated_columns_are_the_same_in_both_forms(dtype):
    rng = np.random.default_rng(0)
    one_hot = np.eye(8)[np.arange(96) % 8]
    noise = rng.standard_normal((96, 6))
    x = np.hstack([one_hot, noise, noise]).astype(dtype)
    y = x @ rng.standard_normal((20, 12)) + rng.standard_normal((96, 12))
    spaces = [slice(0, 8), slice(8, 20)]
    gammas = np.vstack([GAMMAS, np.eye(2)])
    alphas = np.geomspace(1e-6, 1e20, 14)
    primal, dual = (
        fit_banded(
            x,
            y.astype(dtype),
            spaces,
            contiguous_splits(96, 6),
            alphas,
            gammas,
            solver=Solver(form, "divided-difference"),
        )
        for form in ("primal", "dual")
    )
    assert np.isfinite(primal.coef).all()
    atol = 1e-9 if dtype == "f8" else 1e-5
    np.testing.assert_allclose(primal.cv_scores, dual.cv_scores, atol=atol)
    if dtype == "f8":
        np.testing.assert_array_equal(primal.best_gammas, dual.best_gammas)
        np.testing.assert_allclose(primal.coef, dual.coef, rtol=1e-6, atol=1e-9)


def test_runs_are_kept_together_and_a_constant_fold_does_not_count():
    spaces, y = problem()
    runs = np.repeat(np.arange(6), 15)
    by_run = ours(cv=RunKFold()).fit(spaces, y, groups=runs)
    np.testing.assert_array_equal(by_run.coef_, ours(cv=6).fit(spaces, y).coef_)
    y = y.copy()
    y[:18, 0] = 1.5  # the first of five folds
    fit = ours().fit(spaces, y)
    rest = contiguous_splits(90, 5)[1:]
    alone = ours(cv=rest).fit(spaces, y)
    assert fit.cv_scores_[0] == pytest.approx(alone.cv_scores_[0], rel=1e-10)


def test_targets_on_disk_are_those_in_memory(tmp_path):
    spaces, y = problem(n_targets=60)
    np.save(tmp_path / "y.npy", y)
    stored = np.load(tmp_path / "y.npy", mmap_mode="r")
    from_disk = ours(memory_limit="900KB").fit(spaces, stored)
    fit = ours().fit(spaces, y)
    np.testing.assert_array_equal(from_disk.deltas_, fit.deltas_)
    np.testing.assert_allclose(from_disk.coef_, fit.coef_, rtol=1e-9, atol=1e-12)


def test_one_target_may_be_a_vector():
    spaces, y = problem()
    fit = ours().fit(spaces, y[:, 0])
    whole = ours().fit(spaces, y[:, :1])
    assert fit.coef_.shape == (20,)
    assert isinstance(fit.intercept_, float)
    assert fit.predict(spaces).shape == (90,)
    assert fit.predict(spaces, split=True).shape == (2, 90)
    np.testing.assert_allclose(fit.predict(spaces), whole.predict(spaces)[:, 0])
    np.testing.assert_allclose(
        fit.score(spaces, y[:, 0], split=True),
        whole.score(spaces, y[:, :1], split=True),
    )


def test_inputs_are_left_as_they_were_and_warnings_are_meant():
    spaces, y = problem()
    copies = {name: space.copy() for name, space in spaces.items()}, y.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(alphas=[1.0], n_iter=np.eye(2)).fit(spaces, y)
    for name, space in spaces.items():
        np.testing.assert_array_equal(space, copies[0][name])
    np.testing.assert_array_equal(y, copies[1])


def test_messages_name_the_cure():
    spaces, y = problem()
    x = np.hstack(list(spaces.values()))
    with pytest.raises(UsageError, match=r"one column a feature space, \(n_cand"):
        ours(n_iter=[[1.0]]).fit(spaces, y)
    with pytest.raises(UsageError, match="above 0 for one space at least"):
        ours(n_iter=[[0.0, 0.0]]).fit(spaces, y)
    with pytest.raises(UsageError, match="n_iter must be a number of candidates"):
        ours(n_iter=0).fit(spaces, y)
    with pytest.raises(UsageError, match="exactly one space, but 8 of 20 are not"):
        ours(spaces={"vision": slice(0, 12)}).fit(x, y)
    with pytest.raises(UsageError, match="names columns that X, with 20"):
        ours(spaces={"vision": [0, 20]}).fit(x, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ours().fit({"vision": x[:-1], "language": x}, y)
    with pytest.raises(ValueError, match="same dummy volumes dropped"):
        ours().fit(spaces, y[:-1])
    with pytest.raises(UsageError, match="take scoring='mse'"):
        ours(cv=90).fit(spaces, y)
    with pytest.raises(UsageError, match="concentration must be above 0"):
        ours(n_iter=3, concentration=0.0).fit(spaces, y)
    fit = ours().fit(spaces, y)
    with pytest.raises(UsageError, match="feature spaces of the fit, vision, language"):
        fit.predict({"vision": x})
    with pytest.raises(ValueError, match=r"had \[12, 8\] columns in fit"):
        fit.predict({"vision": x, "language": x})

"""Weights that are made once the folds are given up are those made at once."""

import numpy as np
import pytest

from neuromm.encoding import RidgeCV, ridge_batches
from neuromm.encoding.memory import target_batches
from neuromm.encoding.ridge_engines import RidgeSettings, ridge_engine
from neuromm.encoding.ridge_fit import fit_ridge
from neuromm.kernels import RidgeMemory, Solver

FORMS = ["primal-divided-difference", "primal-direct", "dual-divided-difference"]
pytestmark = pytest.mark.filterwarnings("ignore:.*targets are constant or have")

NAMES = ("coef", "intercept", "best_alphas", "cv_scores", "valid_targets")


def problem(dtype):
    rng = np.random.default_rng(3)
    n_samples, n_features, n_targets = 90, 30, 4000
    x = rng.standard_normal((n_samples, n_features)) + 2
    y = x @ rng.standard_normal((n_features, n_targets)) / 5 + rng.standard_normal(
        (n_samples, n_targets)
    ) * np.geomspace(0.1, 5, n_targets)
    y[:, 5], y[3, 7] = 4.0, np.nan
    folds = np.array_split(np.arange(n_samples), 5)
    splits = [(np.setdiff1d(np.arange(n_samples), test), test) for test in folds]
    return x.astype(dtype), y.astype(dtype), splits, np.geomspace(1e-2, 1e5, 12)


def settings_of(x, y, splits, alphas):
    return RidgeSettings(
        x=x, splits=splits, alphas=alphas, scoring="r2", fit_intercept=True,
        n_targets=y.shape[1],
    )  # fmt: skip


def tightest(x, y, splits, alphas, solver):
    """A limit just above what the fit needs, and the batches that it makes."""
    *_, memory, _ = ridge_engine(settings_of(x, y, splits, alphas), solver, None)
    limit = int(1.15 * memory.peak(64))
    return limit, target_batches(memory, y.shape[1], limit)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_tight_limit_makes_weights_late_and_the_same(name, dtype):
    x, y, splits, alphas = problem(dtype)
    solver = Solver.named(name)
    limit, batches = tightest(x, y, splits, alphas, solver)
    assert 0 < batches.n_late <= y.shape[1]
    done = []
    late = fit_ridge(
        x, y, splits, alphas, solver=solver, memory_limit=limit,
        progress=lambda n, total: done.append((n, total)),
    )  # fmt: skip
    whole = fit_ridge(x, y, splits, alphas, solver=solver)
    # Products of another width round differently.
    tolerance = 1e-5 if dtype == "f4" else 1e-10
    for one in NAMES:
        np.testing.assert_allclose(
            getattr(late, one), getattr(whole, one), rtol=tolerance, atol=tolerance
        )
    assert not late.valid_targets[[5, 7]].any()
    assert late.intercept[5] == 4
    assert np.isnan(late.intercept[7])
    assert done[-1] == (4000, 4000)
    assert done == sorted(done)


def test_doubted_targets_keep_their_float64_weights_when_they_come_late(monkeypatch):
    x, y, splits, alphas = problem("f4")
    solver = Solver.named("primal-divided-difference")
    limit, batches = tightest(x, y, splits, alphas, solver)
    assert batches.n_late > 0
    monkeypatch.setattr(ridge_batches, "_DISAGREEMENT", -1.0)  # doubts every target
    late = fit_ridge(x, y, splits, alphas, solver=solver, memory_limit=limit)
    exact = fit_ridge(x.astype("f8"), y.astype("f8"), splits, alphas, solver=solver)
    np.testing.assert_array_equal(late.best_alphas, exact.best_alphas)
    np.testing.assert_allclose(late.cv_scores, exact.cv_scores, rtol=1e-12)
    # Stored as float32, but of float64 work: float32 products would err tenfold.
    np.testing.assert_allclose(late.coef, exact.coef.astype("f4"), rtol=1.2e-7)


def test_fractions_and_targets_on_disk_are_never_late(tmp_path):
    x, y, splits, alphas = problem("f8")
    settings = settings_of(x, y, splits, alphas)
    solver = Solver.named("primal-divided-difference")
    *_, memory, _ = ridge_engine(settings, solver, None, reads_twice=False)
    assert target_batches(memory, y.shape[1], None).n_late == 0
    stored = np.lib.format.open_memmap(
        tmp_path / "y.npy", mode="w+", dtype="f8", shape=y.shape
    )
    stored[:] = y
    late = RidgeCV(alphas, cv=splits).fit(x, stored)
    np.testing.assert_allclose(late.coef_, RidgeCV(alphas, cv=splits).fit(x, y).coef_)


def test_folds_and_results_are_not_held_together():
    memory = RidgeMemory(
        building=60_000_000, kept=56_000_000, results=80_000_000, per_target=50_000,
        folds=52_000_000, late_share=1.0,
    )  # fmt: skip
    made = target_batches(memory, 20_000, None)
    assert made.peak <= 4_000_000 + memory.results + 8_000_000
    assert made.late[0].start == 0
    assert made.late[-1].stop == made.n_late > 5000
    assert any(one.stop == made.n_late for one in made.columns)
    few = RidgeMemory(
        building=0, kept=0, results=1000, per_target=10, folds=10, late_share=0.25
    )
    assert target_batches(few, 100, None).n_late == 0

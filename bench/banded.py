"""Time BandedRidgeCV against himalaya's GroupRidgeCV, and check that both agree.

Run: python bench/banded.py [N_SAMPLES N_FEATURES_OF_A_SPACE N_TARGETS N_CANDIDATES]

Two feature spaces and targets that follow them in all proportions are made on the spot.
Both do the same job in float32: the same candidates, 5 contiguous folds, 20 alphas, one
choice a target by R2, intercept, weights of the final fit. Wall time and CPU time, one
run each, threads as set by OMP_NUM_THREADS; himalaya with its torch backend. Scores are
compared with a float64 himalaya on every tenth target.
"""

import platform
import sys
import time

import himalaya
import numpy as np
import threadpoolctl
import torch
from himalaya.backend import set_backend
from himalaya.ridge import GroupRidgeCV
from himalaya.scoring import r2_score

from neuromm import __version__
from neuromm.encoding import BandedRidgeCV
from neuromm.encoding.banded_fit import gamma_candidates

ALPHAS = np.geomspace(1e-1, 1e6, 20)
N_FOLDS = 5


def make_data(n_samples, n_features, n_targets):
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, n_features + 1) ** -0.5
    spaces = [rng.standard_normal((n_samples, n_features)) * spectrum for _ in range(2)]
    share = rng.beta(0.3, 0.3, n_targets)
    y = rng.standard_normal((n_samples, n_targets)) * np.geomspace(0.03, 3, n_targets)
    for space, weight in zip(spaces, (share, 1 - share), strict=True):
        w = rng.standard_normal((n_features, n_targets)) / np.sqrt(n_features)
        y += space @ (w * weight)
    return [space.astype(np.float32) for space in spaces], y.astype(np.float32)


def with_neuromm(spaces, y, gammas):
    named = {f"space{number}": space for number, space in enumerate(spaces)}
    model = BandedRidgeCV(alphas=ALPHAS, n_iter=gammas, cv=N_FOLDS).fit(named, y)
    return model.deltas_, model.cv_scores_, model.coef_


def with_himalaya(spaces, y, gammas):
    set_backend("torch")
    model = GroupRidgeCV(
        groups="input",
        fit_intercept=True,
        cv=N_FOLDS,
        solver_params={
            "n_iter": torch.asarray(gammas.astype(y.dtype)),
            "alphas": torch.asarray(ALPHAS.astype(y.dtype)),
            "score_func": r2_score,
            "progress_bar": False,
            "warn": False,
        },
    ).fit(spaces, y)
    best = np.asarray(model.cv_scores_).max(axis=0)
    return np.asarray(model.deltas_), best, np.asarray(model.coef_)


def agreement(ours, theirs):
    """Share of equal choices; largest difference of scores, and of weights there."""
    equal = np.isclose(ours[0], theirs[0], atol=1e-3).all(axis=0)
    return (
        equal.mean(),
        np.abs(ours[1] - theirs[1]).max(),
        np.abs(ours[2] - theirs[2])[:, equal].max() / np.abs(theirs[2]).max(),
    )


def timed(fit, *data):
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit(*data)
    return fitted, time.perf_counter() - wall, time.process_time() - cpu


def main():
    sizes = [int(size) for size in sys.argv[1:5]] or [1500, 250, 2500, 10]
    *shape, n_candidates = sizes
    spaces, y = make_data(*shape)
    gammas = gamma_candidates(n_candidates, 2, (0.1, 1.0), 0)
    small = [space[:100, :10] for space in spaces], y[:100, :10], gammas[:2]
    with_neuromm(*small), with_himalaya(*small)  # imports and threads
    ours, our_wall, our_cpu = timed(with_neuromm, spaces, y, gammas)
    theirs, wall, cpu = timed(with_himalaya, spaces, y, gammas)
    exact_spaces = [space.astype(np.float64) for space in spaces]
    exact = with_himalaya(exact_spaces, y[:, ::10].astype(np.float64), gammas)
    blas = threadpoolctl.threadpool_info()
    threads = {info["prefix"]: info["num_threads"] for info in blas}
    print(
        f"n_samples {shape[0]}, 2 spaces of {shape[1]} features, {shape[2]} targets, "
        f"{n_candidates} candidates, {len(ALPHAS)} alphas, {N_FOLDS} folds, float32"
    )
    print(
        f"{platform.processor() or platform.machine()}, {threads}; neuromm "
        f"{__version__}, himalaya {himalaya.__version__}, torch {torch.__version__}"
    )
    print(f"neuromm BandedRidgeCV   {our_wall:8.2f} s wall {our_cpu:8.2f} s CPU")
    print(f"himalaya GroupRidgeCV   {wall:8.2f} s wall {cpu:8.2f} s CPU")
    print(f"ratio {wall / our_wall:.1f} (wall), {cpu / our_cpu:.1f} (CPU)")
    tenth = tuple(values[..., ::10] for values in ours)
    for name, pair in (
        ("himalaya float32", (ours, theirs)),
        ("himalaya float64, every 10th target", (tenth, exact)),
    ):
        same, score, coef = agreement(*pair)
        print(
            f"{name}: same choice {same:.2%}, largest difference of scores "
            f"{score:.1e}, of weights {coef:.1e}"
        )
        # float32: flat score curves may swap neighbouring choices.
        if same < 0.95 or score > 1e-3:
            raise SystemExit(f"{name} does not agree")


if __name__ == "__main__":
    main()

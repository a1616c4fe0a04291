"""Time RidgeCV against himalaya and scikit-learn, and check that all agree.

Run: python bench/ridge.py [N_SAMPLES N_FEATURES N_TARGETS]

Correlated features and targets of widely spread noise are made on the spot, so that
many different alphas are selected. Everybody does the same job in float32: 5 contiguous
folds, 20 alphas, one alpha a target, intercept, weights of the final fit. scikit-learn
has no such estimator: its Ridge runs in a loop over folds and alphas on a tenth of the
targets, and its time is that of the part. Wall time, one run each, threads as set by
OMP_NUM_THREADS.
"""

import platform
import sys
import time

import himalaya
import numpy as np
import sklearn
import threadpoolctl
import torch
from himalaya.backend import set_backend
from himalaya.ridge import RidgeCV as HimalayaRidgeCV
from himalaya.scoring import r2_score as himalaya_r2
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from neuromm import __version__
from neuromm.encoding import RidgeCV, plan, r2_score

ALPHAS = np.geomspace(1e-1, 1e6, 20)
N_FOLDS = 5
SKLEARN_SHARE = 10


def make_data(n_samples, n_features, n_targets):
    rng = np.random.default_rng(0)
    x = (
        rng.standard_normal((n_samples, n_features))
        * np.arange(1, n_features + 1) ** -0.5
    )
    rotation = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]
    w = rng.standard_normal((n_features, n_targets)) / np.sqrt(n_features)
    noise = rng.standard_normal((n_samples, n_targets))
    y = x @ w + noise * np.geomspace(0.03, 3, n_targets)
    return (x @ rotation).astype(np.float32), y.astype(np.float32)


def with_neuromm(x, y):
    model = RidgeCV(alphas=ALPHAS, cv=N_FOLDS).fit(x, y)
    return model.best_alphas_, model.cv_scores_, model.coef_


def with_himalaya(backend):
    def fit(x, y):
        set_backend(backend)
        model = HimalayaRidgeCV(
            alphas=ALPHAS,
            fit_intercept=True,
            cv=N_FOLDS,
            solver_params={
                "score_func": himalaya_r2,
                "warn": False,
                "n_targets_batch": 2500,
                "n_targets_batch_refit": 2500,
            },
        ).fit(x, y)
        fitted = model.best_alphas_, model.cv_scores_, model.coef_
        return tuple(np.asarray(array) for array in fitted)

    return fit


def with_scikit_learn(x, y):
    y = y[:, ::SKLEARN_SHARE]
    scores = np.zeros((len(ALPHAS), y.shape[1]))
    for train, test in KFold(N_FOLDS).split(x):
        for row, alpha in enumerate(ALPHAS):
            model = Ridge(alpha=alpha).fit(x[train], y[train])
            scores[row] += r2_score(y[test], model.predict(x[test])) / N_FOLDS
    best = ALPHAS[scores.argmax(axis=0)]
    coef = np.empty((x.shape[1], y.shape[1]), dtype=y.dtype)
    for alpha in np.unique(best):
        chosen = best == alpha
        weights = Ridge(alpha=alpha).fit(x, y[:, chosen]).coef_
        coef[:, chosen] = np.atleast_2d(weights).T
    return best, scores.max(axis=0), coef


def agreement(ours, theirs):
    """Share of equal alphas; largest difference of scores, and of weights there."""
    step = ours[0].size // theirs[0].size
    alphas, scores, coef = ours[0][::step], ours[1][::step], ours[2][:, ::step]
    equal = np.isclose(alphas, theirs[0], rtol=1e-4)
    unit = np.abs(theirs[2][:, equal]).max()
    return (
        equal.mean(),
        np.abs(scores - theirs[1]).max(),
        np.abs(coef - theirs[2])[:, equal].max() / unit,
    )


def main():
    sizes = [int(size) for size in sys.argv[1:4]] or [1500, 500, 2500]
    x, y = make_data(*sizes)
    names = {
        "neuromm RidgeCV": with_neuromm,
        "himalaya RidgeCV, torch": with_himalaya("torch"),
        "himalaya RidgeCV, numpy": with_himalaya("numpy"),
        f"scikit-learn Ridge, 1/{SKLEARN_SHARE} of targets": with_scikit_learn,
    }
    planned = plan(*sizes, n_alphas=len(ALPHAS), cv=N_FOLDS, dtype=x.dtype)
    with_neuromm(x[:200, :20], y[:200, :20])  # imports and threads
    fitted, seconds = {}, {}
    for name, fit in names.items():
        start = time.perf_counter()
        fitted[name] = fit(x, y)
        seconds[name] = time.perf_counter() - start
    blas = threadpoolctl.threadpool_info()
    threads = {info["prefix"]: info["num_threads"] for info in blas}
    print(
        f"n_samples, n_features, n_targets = {sizes}, float32, {len(ALPHAS)} alphas, "
    )
    print(f"{N_FOLDS} folds; {platform.processor() or platform.machine()}, {threads}")
    print(
        f"neuromm {__version__}, himalaya {himalaya.__version__}, torch "
        f"{torch.__version__}, scikit-learn {sklearn.__version__}, numpy "
        f"{np.__version__}"
    )
    print(
        f"planned: {planned.seconds:.2f} s, {planned.peak_memory / 1e6:.0f} MB, "
        f"{planned.solver_form}"
    )
    heads = ("seconds", "ratio", "same alpha", "max dscore", "max dcoef")
    print(f"{'':38}" + "".join(f"{head:>12}" for head in heads))
    ours = "neuromm RidgeCV"
    for name in names:
        same, score, coef = agreement(fitted[ours], fitted[name])
        print(
            f"{name:38}{seconds[name]:12.2f}{seconds[name] / seconds[ours]:12.1f}"
            f"{same:12.2%}{score:12.1e}{coef:12.1e}"
        )
        # float32: flat score curves may swap neighbouring alphas.
        if same < 0.97 or score > 1e-3:
            raise SystemExit(f"{name} does not agree")


if __name__ == "__main__":
    main()

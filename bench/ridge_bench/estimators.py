"""The estimators that are timed, each with what it gives: alphas, scores, weights."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ridge_bench.jobs import alpha_grid

OURS = "neuromm RidgeCV"


@dataclass(frozen=True)
class Fitted:
    """Arrays of the host, one value or column a target."""

    best_alphas: np.ndarray
    cv_scores: np.ndarray
    coef: np.ndarray


@dataclass(frozen=True)
class Estimator:
    """A way to do the job.

    Attributes
    ----------
    fit : callable (x, y, n_folds, n_alphas, options) -> model
        What is timed.
    results : callable (model, x) -> Fitted
        What is not.
    options : list of dict
        Batch sizes to try: the fastest are used.
    per_targets : int
        Takes every so manyth target, for want of speed.
    """

    name: str
    fit: Callable[..., Any]
    results: Callable[[Any, Any], Fitted]
    options: list[dict] = field(default_factory=lambda: [{}])
    per_targets: int = 1


def host(array):
    """NumPy array of an array of any library and device."""
    if hasattr(array, "detach"):
        return array.detach().cpu().numpy()
    return array.get() if hasattr(array, "get") else np.asarray(array)


def fit_neuromm(x, y, n_folds, n_alphas, options):
    from neuromm.encoding import RidgeCV

    return RidgeCV(alphas=alpha_grid(n_alphas), cv=n_folds, **options).fit(x, y)


def fit_neuromm_torch(x, y, n_folds, n_alphas, options):
    import torch

    return fit_neuromm(
        torch.from_numpy(x), torch.from_numpy(y), n_folds, n_alphas, options
    )


def fitted_attributes(model, x):
    return Fitted(host(model.best_alphas_), host(model.cv_scores_), host(model.coef_))


def fit_himalaya(estimator, backend):
    def fit(x, y, n_folds, n_alphas, options):
        from himalaya.backend import set_backend
        from himalaya.kernel_ridge import KernelRidgeCV
        from himalaya.ridge import RidgeCV
        from himalaya.scoring import r2_score

        set_backend(backend)
        params = {"score_func": r2_score, **options}
        shared = {"alphas": alpha_grid(n_alphas), "fit_intercept": True, "cv": n_folds}
        if estimator == "KernelRidgeCV":
            model = KernelRidgeCV(solver_params=params, warn=False, **shared).fit(x, y)
            model.primal_coef = model.get_primal_coef()  # as everybody else has them
            return model
        params["warn"] = False
        return RidgeCV(solver_params=params, **shared).fit(x, y)

    return fit


def kernel_attributes(model, x):
    return Fitted(
        host(model.best_alphas_), host(model.cv_scores_), host(model.primal_coef)
    )


def fit_scikit_learn(x, y, n_folds, n_alphas, options):
    """Ridge in a loop over folds and alphas, for want of an estimator that does it."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    from neuromm.encoding import r2_score

    alphas = alpha_grid(n_alphas)
    scores = np.zeros((n_alphas, y.shape[1]))
    for train, test in KFold(n_folds).split(x):
        for row, alpha in enumerate(alphas):
            model = Ridge(alpha=alpha).fit(x[train], y[train])
            scores[row] += r2_score(y[test], model.predict(x[test])) / n_folds
    best = alphas[scores.argmax(axis=0)]
    coef = np.empty((x.shape[1], y.shape[1]), dtype=y.dtype)
    for alpha in np.unique(best):
        chosen = best == alpha
        weights = Ridge(alpha=alpha).fit(x, y[:, chosen]).coef_
        coef[:, chosen] = np.atleast_2d(weights).T
    return Fitted(best, scores.max(axis=0), coef)


def batches(n_targets, n_refit, n_alphas):
    return {
        "n_targets_batch": n_targets,
        "n_targets_batch_refit": n_refit,
        "n_alphas_batch": n_alphas,
    }


# The first is used untuned.
_CPU_BATCHES = [batches(1000, 1000, None), batches(500, 500, 5), batches(2500, 1000, 1)]
_GPU_BATCHES = [
    batches(20_000, 20_000, 5),
    batches(5000, 5000, None),
    batches(50_000, 20_000, 1),
]


def himalaya_estimator(estimator, backend, options):
    return Estimator(
        f"himalaya {estimator}, {backend}",
        fit_himalaya(estimator, backend),
        kernel_attributes if estimator == "KernelRidgeCV" else fitted_attributes,
        options,
    )


def himalaya_estimators(backends, options):
    return {
        f"himalaya-{short}-{backend}": himalaya_estimator(name, backend, options)
        for name, short in (("RidgeCV", "ridge"), ("KernelRidgeCV", "kernel"))
        for backend in backends
    }


ESTIMATORS = {
    "neuromm": Estimator(OURS, fit_neuromm, fitted_attributes),
    "neuromm-torch": Estimator(f"{OURS}, torch", fit_neuromm_torch, fitted_attributes),
    **himalaya_estimators(("torch", "numpy"), _CPU_BATCHES),
    "scikit-learn": Estimator(
        "scikit-learn Ridge in a loop",
        fit_scikit_learn,
        lambda model, x: model,
        per_targets=10,
    ),
}
CUDA_ESTIMATORS = {
    "neuromm": Estimator(OURS, fit_neuromm, fitted_attributes),
    **himalaya_estimators(("torch_cuda", "cupy"), _GPU_BATCHES),
}


def ignore_warnings():
    """Edges of the grid and few targets of a warm-up are no news here."""
    warnings.filterwarnings("ignore", category=UserWarning)

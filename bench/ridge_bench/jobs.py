"""What is timed: sizes, data, and the operations that himalaya needs for them."""

from dataclasses import dataclass

import numpy as np

ALPHAS = (1e-1, 1e6)
N_ALPHAS = 20


@dataclass(frozen=True)
class Job:
    """A cross-validated ridge of float32 data, with contiguous folds.

    Attributes
    ----------
    by_model : bool
        The peers would take an hour: the count of their operations stands for them.
    """

    n_samples: int
    n_features: int
    n_targets: int
    n_folds: int = 5
    by_model: bool = False

    @property
    def name(self):
        sizes = f"{self.n_samples} x {self.n_features} x {self.n_targets}"
        return f"{sizes}, {self.n_folds} folds"

    @property
    def shape(self):
        return self.n_samples, self.n_features, self.n_targets


SHORT = (Job(1500, 500, 2500), Job(400, 1500, 1000))
FULL = (
    Job(1500, 500, 25_000),
    Job(3000, 1000, 20_000),
    Job(3000, 1000, 50_000),
    Job(3000, 1000, 30_000, n_folds=3),
    Job(3000, 5000, 20_000),
    Job(3000, 5000, 20_000, n_folds=12),
    Job(1000, 4000, 20_000),
    Job(3600, 6820, 84_000, by_model=True),
)
CUDA = (
    Job(3000, 1000, 50_000),
    Job(10_000, 768, 200_000),
    Job(10_000, 10_000, 200_000),
)


def parse_jobs(words, device):
    """Jobs of ``short``, ``full`` and ``N,P,V[,FOLDS]``."""
    jobs = []
    for word in words:
        if word == "short":
            jobs += SHORT
        elif word == "full":
            jobs += CUDA if device == "cuda" else FULL
        else:
            try:
                sizes = [int(size) for size in word.split(",")]
            except ValueError:
                sizes = []
            if len(sizes) not in (3, 4) or min(sizes) < 1:
                raise SystemExit(
                    "ridge.py: error: a shape is short, full, or N_SAMPLES,N_FEATURES,"
                    f"N_TARGETS[,N_FOLDS] in whole numbers, got {word!r}"
                )
            named = {(*job.shape, job.n_folds): job for job in FULL}
            job = Job(*sizes)
            jobs.append(named.get((*job.shape, job.n_folds), job))
    return list(dict.fromkeys(jobs))


def alpha_grid(n_alphas):
    return np.geomspace(*ALPHAS, n_alphas)


def make_data(job):
    """Correlated features, and targets of widely spread noise: alphas spread too."""
    n_samples, n_features, n_targets = job.shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_samples, n_features), dtype=np.float32)
    x *= (np.arange(1, n_features + 1) ** -0.5).astype(np.float32)
    square = rng.standard_normal((n_features, n_features), dtype=np.float32)
    rotation = np.linalg.qr(square)[0]
    w = rng.standard_normal((n_features, n_targets), dtype=np.float32)
    y = x @ (w / np.float32(n_features**0.5))
    noise = np.geomspace(0.03, 3, n_targets, dtype=np.float32)
    for start in range(0, n_samples, 256):
        part = y[start : start + 256]
        part += rng.standard_normal(part.shape, dtype=np.float32) * noise
    return x @ rotation, y


def spread_columns(n_targets, n_chosen):
    """Some of the targets, evenly from the first to the last."""
    return np.linspace(0, n_targets - 1, n_chosen).round().astype(int)


def himalaya_count(estimator, job, n_targets=None, n_alphas=N_ALPHAS):
    """Operations of himalaya's RidgeCV or KernelRidgeCV.

    Of its 0.4.11: an SVD (6 a b^2 + 20 b^3) or eigh (9 n^3) a fold and one of all
    samples; for each alpha a matrix from training to held-out samples, applied to the
    targets; and the final fit once more for each alpha. All alphas are taken as used.
    """
    n, p, v = job.shape
    v = n_targets or v
    m = n / job.n_folds
    n_train = n - m
    predictions = 2.0 * n_alphas * m * n_train * v
    if estimator == "KernelRidgeCV":
        tables = 2.0 * n_alphas * m * n_train**2
        fold = 9.0 * n_train**3 + tables + predictions
        refit = 9.0 * n**3 + 2.0 * n_alphas * n**3 + 2.0 * n_alphas * n * n * v
        return job.n_folds * fold + refit
    r, full = min(n_train, p), min(n, p)
    tables = 2.0 * n_alphas * p * n_train * (r + m)
    fold = _svd(n_train, p) + tables + predictions
    refit = _svd(n, p) + 2.0 * n_alphas * p * n * full + 2.0 * n_alphas * p * n * v
    return job.n_folds * fold + refit


def _svd(n_rows, n_columns):
    large, small = max(n_rows, n_columns), min(n_rows, n_columns)
    return 6.0 * large * small**2 + 20.0 * small**3

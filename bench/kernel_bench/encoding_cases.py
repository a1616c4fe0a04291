"""Kernels of ridge, scores and permutations beside the plain arrays they replace."""

import numpy as np

from kernel_bench.case import Case
from neuromm.kernels import gpu_columns, gpu_mixtures, gpu_permutation, gpu_ridge
from neuromm.kernels.arrays import namespace
from neuromm.kernels.penalty_curves import spanning_penalties


def _path(draw, n_alphas, rank, n_targets):
    made = {name: draw.normal(rank, n_targets) for name in ("z", "w", "w2", "b")}
    tables = ("d_fit", "d_cross", "d_near")
    return made | {name: draw.normal(n_alphas, rank) for name in tables}


def _plain_path(z, w, w2, b, d_fit, d_cross, d_near):
    xp = namespace(z)
    power = d_cross @ (z * w) + d_near @ (z * w2)
    return xp.astype(d_fit @ (b * z), xp.float64), xp.astype(power, xp.float64)


def _selection(draw, n_alphas, n_targets):
    alphas = np.geomspace(1e-6, 1e6, n_alphas)
    total = draw.normal(n_alphas, n_targets)
    xp = namespace(total)
    return {
        "total": xp.astype(total, xp.float64),
        "slope": draw.place(1e-10 * np.log(alphas)),
        "tie_scale": draw.place(np.ones(n_targets)),
        "order": draw.place(np.argsort(-alphas, kind="stable")),
    }


def _plain_selection(total, slope, tie_scale, order):
    xp = namespace(total)
    ranked = total + slope[:, None] * tie_scale
    ranked = xp.where(xp.isnan(ranked), -xp.inf, ranked)
    best = xp.take(order, xp.argmax(xp.take(ranked, order, axis=0), axis=0))
    return best, xp.take_along_axis(total, best[None, :], axis=0)[0]


def _shrinkage(draw, n_alphas, rank, n_targets):
    # Of size 1, so that targets shrunken again and again stay what they are.
    signs = draw.host.choice([-1.0, 1.0], (n_alphas, rank)).astype(np.float32)
    choice = draw.host.integers(n_alphas, size=n_targets)
    made = {"z": draw.normal(rank, n_targets), "table": draw.place(signs)}
    return made | {"choice": draw.place(choice)}


def _shrink(z, table, choice):
    gpu_ridge.shrink_gather(z, table, choice)
    return (z,)


def _plain_shrink(z, table, choice):
    z *= namespace(z).take(table.T, choice, axis=1)
    return (z,)


def _mixtures(draw, n_alphas, n_folds, n_rows, n_targets):
    mix = _mix(n_alphas)
    errors = draw.normal(mix.shape[1], n_folds, n_rows, n_targets)
    return {"errors": errors, "mix": draw.place(mix)}


def _mix(n_alphas):
    """Mixtures of a grid over seven decades, as RidgeCV forms them in float32."""
    alphas = np.geomspace(1e-1, 1e6, n_alphas)
    mix = spanning_penalties(alphas, np.geomspace(1e4, 1e-2, 500), 5e-6).mix
    return mix.astype(np.float32)


def _mixture_traffic(n_alphas, n_folds, n_rows, n_targets):
    read = 4 * _mix(n_alphas).shape[1] * n_folds * n_rows * n_targets
    return read + 8 * n_alphas * n_folds * n_targets


def _mixed_squares(errors, mix):
    return (gpu_mixtures.mixed_squares(errors, mix),)


def _plain_mixed_squares(errors, mix):
    xp = namespace(errors)
    mixed = mix @ xp.reshape(errors, (errors.shape[0], -1))
    mixed = xp.reshape(mixed, (mix.shape[0], *errors.shape[1:]))
    return (xp.sum(mixed * mixed, axis=2, dtype=xp.float64),)


def _kernels(draw, n_spaces, n_samples):
    kernels = draw.normal(n_spaces, n_samples, n_samples)
    xp = namespace(kernels)
    gamma = draw.host.dirichlet(np.ones(n_spaces))
    return {"kernels": xp.astype(kernels, xp.float64), "gamma": gamma}


def _mixed_kernel(kernels, gamma):
    return (gpu_mixtures.mixed_kernel(kernels, gamma),)


def _plain_mixed_kernel(kernels, gamma):
    total = kernels[0] * float(gamma[0])
    for space in range(1, len(gamma)):
        total += kernels[space] * float(gamma[space])
    return (total,)


def _pair(draw, n_samples, n_targets):
    y = draw.normal(n_samples, n_targets)
    return {"y": y, "prediction": 0.3 * y + draw.normal(n_samples, n_targets)}


def _moments(y, prediction):
    found = gpu_columns.column_moments(y, prediction)
    return found[:2], found[2:5], found[5], found[6:]


def _plain_moments(y, prediction):
    xp = namespace(y)

    def total(products):
        return xp.sum(products, axis=0, dtype=xp.float64)

    both = y, prediction
    means = [total(one) / y.shape[0] for one in both]
    a, b = (
        one - xp.astype(mean, one.dtype) for one, mean in zip(both, means, strict=True)
    )
    error = y - prediction
    extremes = [xp.min(one, axis=0) for one in both]
    extremes += [xp.max(one, axis=0) for one in both]
    return (
        xp.stack(means),
        xp.stack([total(a * a), total(b * b), total(a * b)]),
        total(error * error),
        xp.astype(xp.stack(extremes), xp.float64),
    )


def _blocks(draw, n_permutations, n_blocks, length, n_targets):
    y = draw.normal(n_blocks * length, n_targets)
    xp = namespace(y)
    yhat = 0.2 * y + draw.normal(n_blocks * length, n_targets)
    columns = [one - xp.mean(one, axis=0) for one in (y, yhat)]
    y, yhat = (one / xp.sqrt(xp.sum(one * one, axis=0)) for one in columns)
    orders = np.tile(np.arange(n_blocks), (n_permutations, 1))
    return {
        "y": y,
        "yhat": yhat,
        "rows": np.arange(n_blocks * length).reshape(n_blocks, length),
        "orders": draw.host.permuted(orders, axis=1),
    }


def _exceeding(y, yhat, rows, orders):
    count = gpu_permutation.count_exceeding(y, yhat, [(rows, orders, True)], 1.0)
    return (count,)


def _plain_exceeding(y, yhat, rows, orders):
    xp = namespace(y)
    observed = xp.sum(y * yhat, axis=0, dtype=xp.float64)
    shape = (*rows.shape, y.shape[1])
    count = 0
    for order in xp.asarray(orders, device=y.device):
        moved = xp.take(xp.reshape(y, shape), order, axis=0)
        null = xp.sum(xp.reshape(moved, y.shape) * yhat, axis=0, dtype=xp.float64)
        count = count + (null - observed >= -1e-12)
    return (count,)


CASES = (
    Case(
        ("encoding/path_sums.cu",),
        "{n_alphas} penalties, {rank} modes, {n_targets} targets",
        {"n_alphas": 20, "rank": 1000, "n_targets": 50_000},
        {"n_alphas": 20, "rank": 33, "n_targets": 65},
        _path,
        gpu_ridge.path_sums,
        _plain_path,
        lambda n_alphas, rank, n_targets: 16 * (rank + n_alphas) * n_targets,
    ),
    Case(
        ("encoding/alpha_select.cu",),
        "{n_alphas} penalties, {n_targets} targets",
        {"n_alphas": 20, "n_targets": 1_000_000},
        {"n_alphas": 20, "n_targets": 65},
        _selection,
        gpu_ridge.select,
        _plain_selection,
        lambda n_alphas, n_targets: (8 * n_alphas + 20) * n_targets,
        floor=0.0,
    ),
    Case(
        ("encoding/shrink_gather.cu",),
        "{n_alphas} penalties, {rank} modes, {n_targets} targets",
        {"n_alphas": 20, "rank": 1000, "n_targets": 100_000},
        {"n_alphas": 20, "rank": 65, "n_targets": 67},
        _shrinkage,
        _shrink,
        _plain_shrink,
        lambda n_alphas, rank, n_targets: 8 * rank * n_targets + 4 * n_targets,
        changed=("z",),
        floor=0.0,
    ),
    Case(
        ("encoding/alpha_combine.cu",),
        "{n_alphas} penalties, {n_folds} x {n_rows} held-out rows, {n_targets} targets",
        {"n_alphas": 40, "n_folds": 1, "n_rows": 500, "n_targets": 10_000},
        {"n_alphas": 40, "n_folds": 2, "n_rows": 9, "n_targets": 65},
        _mixtures,
        _mixed_squares,
        _plain_mixed_squares,
        _mixture_traffic,
    ),
    Case(
        ("encoding/alpha_combine.cu",),
        "{n_alphas} penalties, {n_folds} x {n_rows} held-out rows, {n_targets} targets",
        {"n_alphas": 40, "n_folds": 256, "n_rows": 1, "n_targets": 5000},
        {"n_alphas": 40, "n_folds": 9, "n_rows": 1, "n_targets": 65},
        _mixtures,
        _mixed_squares,
        _plain_mixed_squares,
        _mixture_traffic,
    ),
    Case(
        ("encoding/kernel_mix.cu",),
        "{n_spaces} spaces, {n_samples} samples, float64",
        {"n_spaces": 4, "n_samples": 8000},
        {"n_spaces": 4, "n_samples": 33},
        _kernels,
        _mixed_kernel,
        _plain_mixed_kernel,
        lambda n_spaces, n_samples: 8 * (n_spaces + 1) * n_samples**2,
        floor=0.0,
    ),
    Case(
        ("encoding/col_stats.cu",),
        "{n_samples} samples, {n_targets} targets",
        {"n_samples": 3000, "n_targets": 100_000},
        {"n_samples": 600, "n_targets": 33},
        _pair,
        _moments,
        _plain_moments,
        lambda n_samples, n_targets: 8 * n_samples * n_targets + 80 * n_targets,
    ),
    Case(
        ("encoding/block_perm.cu",),
        "{n_permutations} permutations of {n_blocks} blocks of {length} samples, "
        "{n_targets} targets",
        {"n_permutations": 500, "n_blocks": 150, "length": 10, "n_targets": 20_000},
        {"n_permutations": 40, "n_blocks": 6, "length": 5, "n_targets": 3},
        _blocks,
        _exceeding,
        _plain_exceeding,
        lambda n_permutations, n_blocks, length, n_targets: (
            8 * n_blocks * length * n_targets + 4 * n_targets
        ),
        # A permutation whose sum is that of the data to rounding counts or does not.
        floor=2e-3,
    ),
)

"""Inputs of the kernels of soft targets, and their definition in extended precision.

Shared by the tests that run them on the CPU and by those that run them on a GPU.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from neuromm.kernels import gpu_soft_pairs
from neuromm.kernels.arrays import host_array
from tests.kernels.cuda_cases import padded

# Rows of a panel and all columns: 1, around a warp, around the 64 rows and 32 columns
# of a block and the 256 threads of a row, primes.
SIZES = [
    (1, 1),
    (1, 33),
    (2, 257),
    (3, 256),
    (7, 255),
    (31, 31),
    (32, 33),
    (63, 64),
    (65, 67),
]
LONG = (2, 2081)  # 8 terms of each thread of a row, and some more

# Inverse temperatures of logits and targets: 1, as published, a temperature of .01.
PUBLISHED = 1 / 0.07, 1 / 0.07
SCALES = [(1.0, 1.0), (100.0, 100.0), (100.0, 2.0)]


class Panel(NamedTuple):
    products: np.ndarray
    similarity: np.ndarray
    scale: np.ndarray
    target_scale: np.ndarray


class Result(NamedTuple):
    """Of a panel that is all there is: what `add_panel` and `panel_slopes` give."""

    log_sums: np.ndarray  # of rows
    crosses: np.ndarray  # mean logit under the targets
    column_log_sums: np.ndarray
    weights: np.ndarray  # sums of targets
    of_products: np.ndarray
    of_similarity: np.ndarray
    of_scales: np.ndarray


def panel(
    n_rows: int,
    n_columns: int,
    dtype: str,
    scales: tuple[float, float],
    n_more: int = 0,
) -> Panel:
    """Products of unit rows, some repeated, one opposite to all images."""
    rng = np.random.default_rng([n_rows, n_columns])
    gene, image = rng.standard_normal((2, n_columns, 12))
    gene[n_columns // 2 :: 7] = gene[0]
    image[::5] = image[0] + 0.1 * image[::5]
    gene[n_rows // 3] = -image[0]
    gene, image = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (gene, image))
    matrices = gene @ image.T, gene @ gene.T + image @ image.T
    return Panel(
        *(padded(x[:n_rows].astype(dtype), n_more) for x in matrices),
        *(np.full(1, x, dtype=dtype) for x in scales),
    )


def result(given: Panel, factor: float) -> Result:
    """Formulas of soft_target.cu in the precision of the panel."""
    products, similarity, scale, target_scale = given
    kind = products.dtype.type
    logits, twice = scale * products, kind(2)
    target = softmax(target_scale * similarity / twice, axis=1)
    crosses = (target * logits).sum(axis=1)
    weights = target.sum(axis=0)
    columns = log_sum_exp(logits, axis=0)
    of_logits = softmax(logits, axis=1) + weights * softmax(logits, axis=0)
    of_logits -= twice * target
    excess = columns - twice * logits
    excess -= (target * excess).sum(axis=1, keepdims=True)
    of_targets = target * excess
    factor = kind(factor)
    of_scales = [
        factor * (of_logits * products).sum(axis=1),
        factor * (of_targets * similarity).sum(axis=1) / twice,
    ]
    found = Result(
        log_sum_exp(logits, axis=1),
        crosses,
        columns,
        weights,
        factor * scale * of_logits,
        factor * target_scale / twice * of_targets,
        np.stack(of_scales),
    )
    assert {one.dtype for one in found} == {products.dtype}
    return found


def computed(
    given: Panel,
    factor: float,
    n_panels: int = 1,
    move: Callable[[Any], Any] = lambda x: x,
) -> Result:
    """As `result`, by the kernels, in place; ``move`` copies arrays to a GPU."""
    n_rows, n_columns = given.products.shape
    factors = np.full(1, factor, dtype=given.products.dtype)
    products, similarity, *scales, factors = (move(x) for x in (*given, factors))
    state = gpu_soft_pairs.start_columns(n_columns, products)
    edges = np.linspace(0, n_rows, n_panels + 1).astype(int).tolist()
    panels = [
        (products[start:stop], similarity[start:stop], *scales)
        for start, stop in itertools.pairwise(edges)
    ]
    rows = [gpu_soft_pairs.add_panel(*one, state) for one in panels]
    columns = gpu_soft_pairs.columns_of(state, given.products.dtype.name)
    slopes = [
        gpu_soft_pairs.panel_slopes(*one, known, columns, factors)
        for one, known in zip(panels, rows, strict=True)
    ]
    known = np.concatenate([host_array(one) for one in rows], axis=1)
    of_products, of_similarity, of_scales = (
        [host_array(one) for one in part] for part in zip(*slopes, strict=True)
    )
    return Result(
        known[5],
        known[4],
        host_array(columns)[2],
        host_array(state)[2],
        np.concatenate(of_products),
        np.concatenate(of_similarity),
        np.concatenate(of_scales, axis=1),
    )


def widened(given: Panel) -> Panel:
    return Panel(*(one.astype(np.longdouble) for one in given))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    terms = np.exp(x - x.max(axis=axis, keepdims=True))
    return terms / terms.sum(axis=axis, keepdims=True)


def log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis=axis)
    return top + np.log(np.exp(x - np.expand_dims(top, axis)).sum(axis=axis))


def check(found: Result, given: Panel, factor: float) -> None:
    """Hold a result to the definition: no worse than twice plain arithmetic."""
    exact, plain = result(widened(given), factor), result(given, factor)
    eps = np.finfo(given.products.dtype).eps
    # One rounding of a logit, where the plain version has luck: a weight changes by as
    # much of itself.
    rounding = eps * (1 + float(given.scale[0]) + float(given.target_scale[0]))
    for name, mine, wanted, rounded in zip(
        Result._fields, found, exact, plain, strict=True
    ):
        assert np.isfinite(mine).all(), name
        floor = rounding * max(1.0, abs(wanted).max())
        error = abs(mine - wanted).max()
        assert error <= max(2 * abs(rounded - wanted).max(), floor), name


def is_right() -> bool:
    given = panel(5, 65, "float64", PUBLISHED)
    exact = result(given, 0.25)
    found = computed(given, 0.25)
    return all(
        np.allclose(one, other, rtol=1e-9, atol=1e-12)
        for one, other in zip(found, exact, strict=True)
    )

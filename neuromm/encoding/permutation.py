"""Permutation test of held-out predictions, by blocks of time.

References
----------
Phipson & Smyth (2010) Permutation p-values should never be zero.
Stat. Appl. Genet. Mol. Biol. 9:39.
Benjamini & Hochberg (1995) Controlling the false discovery rate. J. R. Stat. Soc. B
57:289-300.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.encoding.scores import correlation_score, r2_score
from neuromm.encoding.splitters import run_rows
from neuromm.kernels import column_dot, column_mean, is_constant
from neuromm.kernels.arrays import Array, as_like, host_array, is_on_gpu, namespace

__all__ = ["PermutationResult", "check_blocks", "permutation_test"]

# Working arrays of a chunk of targets stay near this many bytes. A GPU wants some
# thousands of targets at a time.
_CHUNK_BYTES = 64 * 10**6
_GPU_CHUNK_BYTES = 10**9

# Up to so many blocks in a group all pairs of blocks are multiplied once, and a
# permutation only adds their products.
_MAX_PAIRED_BLOCKS = 256


@dataclass(frozen=True, kw_only=True)
class PermutationResult:
    """Significance of predictions.

    Attributes
    ----------
    statistic : array of shape (n_targets,)
        Of the unpermuted data.
    p : array of shape (n_targets,)
        One-sided; at least 1 / (1 + n_permutations). nan for a target that is constant
        or holds nan.
    q : array of shape (n_targets,)
        Benjamini-Hochberg over the targets that have a p.
    n_permutations : int
    """

    statistic: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    n_permutations: int


@dataclass(frozen=True)
class _Group:
    """Rows of one group in blocks of equal length, and where permutations send them."""

    rows: NDArray[np.intp]  # (n_blocks, length)
    orders: NDArray[np.intp]  # (n_permutations, n_blocks)


def permutation_test(
    predictions: ArrayLike,
    responses: ArrayLike,
    *,
    rng: int | np.random.Generator,
    groups: ArrayLike | None = None,
    block: int = 10,
    n_permutations: int = 1000,
    statistic: Literal["correlation", "r2"] = "correlation",
    cross_validated: bool = False,
) -> PermutationResult:
    """Test whether predictions belong to the responses that they are paired with.

    Blocks of contiguous responses are permuted against the predictions within each
    group; the model is not fitted again. The null keeps the dependence of neighbours
    within a block, so a block must outlast the autocorrelation: with shorter ones p is
    too small. The same permutations serve all targets, and all calls with the same
    seed, groups and block.

    Parameters
    ----------
    predictions, responses : arrays of shape (n_samples, n_targets)
        Held-out predictions, and the responses; rows in order of time. Both may be
        torch tensors on a CUDA device or CuPy arrays: the null is then computed there.
    rng : int or numpy.random.Generator
    groups : array of shape (n_samples,), optional
        Run of each sample: nothing is permuted across runs.
    block : int
        Samples a block has at least.
    n_permutations : int
    statistic : {"correlation", "r2"}
        What is reported. Both have the same p: a permutation of rows changes neither
        means nor variances, so both grow with the covariance alone.
    cross_validated : bool
        The predictions of each group come from a model that was trained on the
        responses of the others. The null is then widened, see Notes.

    Returns
    -------
    result : PermutationResult
        p = (1 + #{null >= observed}) / (1 + n_permutations). Arrays of NumPy.

    Raises
    ------
    TypeError
        If one of both lies on a GPU and the other does not.
    neuromm.core.UsageError
        If no group holds two blocks, so that nothing can be permuted.

    Notes
    -----
    A group of n samples has n // block blocks of equal length; the fewer than 1 / block
    of its samples that are left over at its end stay where they are.

    In cross-validation the score of fold k is a sum over the other folds j of
    a_kj = <y_k, prediction of y_k learnt from y_j>, and a_kj and a_jk hold the same two
    responses: they are nearly equal, while permutations within a fold take them for
    independent. Without any effect Var(sum (a_kj + a_jk)) is at most twice
    sum (Var a_kj + Var a_jk), so the permuted scores are spread by sqrt(2) about their
    mean: p is then right where a_kj = a_jk, and too large otherwise. A refit for each
    permutation would be exact and cost as many fits.
    """
    yhat, y = _same_place(predictions, responses)
    if yhat.shape != y.shape or y.ndim != 2:
        raise ValueError(
            "predictions and responses must have the same shape (n_samples, "
            f"n_targets), got {tuple(yhat.shape)} and {tuple(y.shape)}"
        )
    if statistic not in ("correlation", "r2"):
        raise UsageError(f"statistic must be 'correlation' or 'r2', got {statistic!r}")
    layout = _block_layout(len(y), groups, block, n_permutations, rng)
    spread = np.sqrt(2.0) if cross_validated else 1.0
    p = _p_values(y, yhat, layout, spread)
    return PermutationResult(
        statistic=_scores(y, yhat, statistic),
        p=p,
        q=_false_discovery_rate(p),
        n_permutations=n_permutations,
    )


def check_blocks(groups: ArrayLike, block: int) -> None:
    """Raise `UsageError` unless some run holds two blocks that can change places."""
    if block < 1:
        raise UsageError(f"block must be 1 sample or more, got {block}")
    longest = max(len(rows) for rows in run_rows(groups))
    if longest // block < 2:
        raise UsageError(
            f"no run holds two blocks of {block} samples (the longest has {longest}), "
            "so nothing can be permuted within runs. Take shorter blocks, as long as "
            "they outlast the autocorrelation."
        )


def _block_layout(
    n_samples: int,
    groups: ArrayLike | None,
    block: int,
    n_permutations: int,
    rng: int | np.random.Generator,
) -> list[_Group]:
    if n_permutations < 1:
        raise UsageError(f"n_permutations must be 1 or more, got {n_permutations}")
    groups = np.zeros(n_samples) if groups is None else groups
    check_blocks(groups, block)
    members = run_rows(groups)
    generator = np.random.default_rng(rng)
    layout = []
    for rows in members:
        n_blocks = len(rows) // block
        if n_blocks < 2:
            continue
        length = len(rows) // n_blocks
        orders = np.tile(np.arange(n_blocks), (n_permutations, 1))
        layout.append(
            _Group(
                rows[: n_blocks * length].reshape(n_blocks, length),
                generator.permuted(orders, axis=1),
            )
        )
    return layout


def _p_values(
    y: Array, yhat: Array, layout: Sequence[_Group], spread: float
) -> NDArray[np.float64]:
    """Return p of each target, nan where it cannot be tested."""
    n_permutations = len(layout[0].orders)
    p = np.full(y.shape[1], np.nan)
    columns = np.flatnonzero(_testable(y, yhat))
    width = _chunk_width(layout, len(y), n_permutations)
    if not isinstance(y, np.ndarray):  # products of blocks are not kept there
        width = max(1, _GPU_CHUNK_BYTES // (8 * (2 * n_permutations + 10 * len(y))))
    for start in range(0, len(columns), width):
        chunk = columns[start : start + width]
        exceeding = _count_exceeding(
            _columns(y, chunk), _columns(yhat, chunk), layout, spread
        )
        p[chunk] = (1 + exceeding) / (1 + n_permutations)
    return p


def _chunk_width(layout: Sequence[_Group], n_samples: int, n_permutations: int) -> int:
    pairs = max(
        len(group.rows) ** 2 if _is_paired(group) else group.rows.size
        for group in layout
    )
    per_target = 8 * (3 * pairs + 2 * n_permutations + 4 * n_samples)
    return max(1, _CHUNK_BYTES // per_target)


def _is_paired(group: _Group) -> bool:
    n_blocks, length = (int(size) for size in group.rows.shape)
    n_permutations = len(group.orders)
    paired = n_blocks**2 * length + n_permutations * n_blocks
    return (
        n_blocks <= _MAX_PAIRED_BLOCKS and paired <= n_permutations * n_blocks * length
    )


def _count_exceeding(
    y: Array, yhat: Array, layout: Sequence[_Group], spread: float
) -> NDArray[np.integer]:
    """How many permutations reach the observed covariance of each target.

    Permuted covariances are moved away from their mean by the factor ``spread``.
    """
    if not isinstance(y, np.ndarray):
        from neuromm.kernels.gpu_permutation import count_exceeding

        groups = [(group.rows, group.orders, _is_paired(group)) for group in layout]
        return host_array(
            count_exceeding(_unit_columns(y), _unit_columns(yhat), groups, spread)
        )
    y, yhat = _standardised(y), _standardised(yhat)
    gain = np.zeros((len(layout[0].orders), y.shape[1]))
    for group in layout:
        if _is_paired(group):
            gain += _paired_null(y, yhat, group)
        else:
            gain += _gathered_null(y, yhat, group)
        rows = group.rows.ravel()
        gain -= np.einsum("it,it->t", y[rows], yhat[rows])
    mean = gain.mean(axis=0)
    gain = mean + spread * (gain - mean)
    # Columns have unit norm, so a tie (the identity among the permutations) shows as
    # rounding of 1.
    return np.asarray((gain >= -1e-12).sum(axis=0))


def _paired_null(
    y: NDArray[np.float64], yhat: NDArray[np.float64], group: _Group
) -> NDArray[np.float64]:
    """Sums of products of blocks: each pair of blocks is multiplied only once."""
    from scipy.sparse import csr_array

    n_blocks = len(group.rows)
    # (target, block, sample) by (target, sample, block): the product of every block of
    # responses with every block of predictions.
    moved = np.moveaxis(y[group.rows], 2, 0)
    still = np.moveaxis(yhat[group.rows], 2, 0)
    pairs = np.matmul(moved, still.transpose(0, 2, 1)).reshape(y.shape[1], -1)
    chosen = group.orders * n_blocks + np.arange(n_blocks)
    n_permutations = len(chosen)
    sums = csr_array(
        (
            np.ones(chosen.size),
            chosen.ravel(),
            np.arange(0, chosen.size + 1, n_blocks),
        ),
        shape=(n_permutations, n_blocks**2),
    )
    null: NDArray[np.float64] = sums @ np.ascontiguousarray(pairs.T)
    return null


def _gathered_null(
    y: NDArray[np.float64], yhat: NDArray[np.float64], group: _Group
) -> NDArray[np.float64]:
    """Products of permuted rows, for many short blocks."""
    still = yhat[group.rows.ravel()]
    null = np.empty((len(group.orders), y.shape[1]))
    for number, order in enumerate(group.orders):
        null[number] = np.einsum("it,it->t", y[group.rows[order].ravel()], still)
    return null


def _standardised(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns of mean 0 and norm 1, or all 0 for a constant."""
    centred = x - x.mean(axis=0, dtype=np.float64)
    norm = np.sqrt(np.einsum("it,it->t", centred, centred))
    norm[is_constant(x)] = np.inf
    scaled: NDArray[np.float64] = centred / norm
    return scaled


def _same_place(predictions: Array, responses: Array) -> tuple[Array, Array]:
    """Both on a GPU as they are, or both in NumPy."""
    on_gpu = [is_on_gpu(predictions), is_on_gpu(responses)]
    if any(on_gpu) and not all(on_gpu):
        there, here = ("predictions", "responses")[:: 1 if on_gpu[0] else -1]
        raise TypeError(
            f"{there} lie on a GPU and {here} do not: bring both to one place"
        )
    if all(on_gpu):
        return predictions, responses
    return np.asarray(predictions), np.asarray(responses)


def _columns(x: Array, chunk: NDArray[np.intp]) -> Array:
    if isinstance(x, np.ndarray):
        return x[:, chunk]
    return namespace(x).take(x, as_like(chunk, x), axis=1)


def _testable(y: Array, yhat: Array) -> NDArray[np.bool_]:
    """Tell which targets are finite and vary."""
    xp = np if isinstance(y, np.ndarray) else namespace(y, yhat)
    finite = xp.all(xp.isfinite(y), axis=0) & xp.all(xp.isfinite(yhat), axis=0)
    return np.asarray(host_array(finite & ~_constant(y)))


def _constant(x: Array) -> Array:
    if isinstance(x, np.ndarray):
        return is_constant(x)
    xp = namespace(x)
    return xp.max(x, axis=0) == xp.min(x, axis=0)


def _scores(y: Array, yhat: Array, statistic: str) -> NDArray[np.float64]:
    """Statistic of the unpermuted data, also of arrays on a GPU."""
    if isinstance(y, np.ndarray):
        score = correlation_score if statistic == "correlation" else r2_score
        return score(y, yhat).astype(np.float64)
    xp = namespace(y, yhat)
    if statistic == "correlation":
        value = column_dot(_unit_columns(y), _unit_columns(yhat))
    else:
        error, deviation = y - yhat, y - xp.astype(column_mean(y), y.dtype)
        value = 1 - column_dot(error, error) / column_dot(deviation, deviation)
    undefined = _constant(y) | ~xp.all(xp.isfinite(y), axis=0)
    undefined = undefined | xp.any(xp.isnan(yhat), axis=0)
    return host_array(xp.where(undefined, xp.nan * xp.ones_like(value), value))


def _unit_columns(x: Array) -> Array:
    """`_standardised` of arrays on a GPU."""
    xp = namespace(x)
    centred = xp.astype(x, xp.float64) - column_mean(x)
    norm = xp.sqrt(column_dot(centred, centred))
    return centred / xp.where(_constant(x), xp.inf * xp.ones_like(norm), norm)


def _false_discovery_rate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested], method="bh")
    return q

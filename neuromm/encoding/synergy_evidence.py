"""Synergy of two predictions at each target, and its significance.

References
----------
Bertschinger, Rauh, Olbrich, Jost & Ay (2014) Quantifying unique information. Entropy
16:2161-2183.
Miller (1955) Note on the bias of information estimates. Information Theory in
Psychology, 95-100.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError
from neuromm.encoding.interaction_bounds import bounded, divided
from neuromm.encoding.permutation import check_blocks
from neuromm.encoding.splitters import run_rows
from neuromm.kernels import is_constant

__all__ = ["SiteSynergy", "site_synergy"]

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

# Tables solved at a time, from as many permutations as that takes.
_TABLES_AT_A_TIME = 4096

# Bits to which the synergy of shuffled samples is known: far less than it varies.
_NULL_TOL = 1e-5

_SAMPLES_A_CELL = 5


@dataclass(frozen=True, kw_only=True)
class SiteSynergy:
    """Synergy of two predictions about the response of each target.

    Attributes
    ----------
    synergy : array of shape (n_targets,)
        In bits, less its bias by the rule of Miller and Madow, so that it can be
        negative. nan for a target that is constant or holds nan.
    lower, upper : arrays of shape (n_targets,)
        Bounds from the tables of pairs, less the same bias.
    redundancy, unique_a, unique_b : arrays of shape (n_targets,)
        In bits, as the tables have them: few samples make them too large.
    p : array of shape (n_targets,)
        One-sided: the largest of three, of the hypotheses that the response has to do
        with neither prediction, and that either prediction has to do with neither the
        response nor the other prediction.
    n_permutations : int
    """

    synergy: Floats
    lower: Floats
    upper: Floats
    redundancy: Floats
    unique_a: Floats
    unique_b: Floats
    p: Floats
    n_permutations: int


def site_synergy(
    prediction_a: ArrayLike,
    prediction_b: ArrayLike,
    response: ArrayLike,
    *,
    rng: int | np.random.Generator,
    n_bins: int = 4,
    n_permutations: int = 200,
    train: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    block: int = 10,
) -> SiteSynergy:
    """Synergy of two predictions about the response of each target.

    Predictions and response are cut at quantiles and counted; p comes from shuffled
    rows.

    Parameters
    ----------
    prediction_a, prediction_b : arrays of shape (n_samples, n_targets)
        Held-out predictions from either modality; rows in order of time.
    response : array of shape (n_samples, n_targets)
    rng : int or numpy.random.Generator
    n_bins : int
        Of each of the three. A variable with no more values than that keeps them.
    n_permutations : int
    train : array, optional
        Rows (numbers, or a mask) whose quantiles cut the bins; the others are
        counted. Without it, quantiles are of the rows that are counted.
    groups : array of shape (n_samples,), optional
        Run of each sample: nothing is shuffled across runs.
    block : int
        Samples that are shuffled as one. They must outlast the autocorrelation, as in
        `permutation_test`.

    Returns
    -------
    synergy : SiteSynergy

    Warns
    -----
    UserWarning
        If there are fewer than 5 samples a cell, n_bins^3 in all.

    Raises
    ------
    neuromm.core.UsageError
        If an argument is out of range, or no run holds two blocks.
    neuromm.core.DataError
        If shapes differ.

    Notes
    -----
    The plain estimate of I(A, B; Y) is too large by about (K_aby - K_ab - K_y + 1) /
    (2 n ln 2) bits, with K the occupied cells. What I* has of that is taken to be the
    larger of the biases of I(A; Y) and I(B; Y), so that the synergy is rather too
    small than too large. p = (1 + #{shuffled >= observed}) / (1 + n_permutations).

    Blocks of rows are shuffled in three ways: the response alone, A alone, B alone. In
    each of these worlds there is no synergy, and p is the largest of three. Shuffled
    responses alone would not do: a response that follows A and nothing else then passes
    far too often, for the bias of the synergy is larger where A is informative.

    Synergy does not make a site by itself: a sum of A and B has some, and bins leave
    out part of A that B may then supply.
    """
    a, b, y = _checked_samples(prediction_a, prediction_b, response, n_bins)
    fit, held = _rows(train, len(y))
    runs = np.zeros(len(y)) if groups is None else np.asarray(groups)
    if runs.shape != (len(y),):
        raise UsageError(f"groups must name the run of {len(y)} samples")
    if n_permutations < 1:
        raise UsageError(f"n_permutations must be 1 or more, got {n_permutations}")
    check_blocks(runs[held], block)
    _warn_of_few(len(held), n_bins)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(y)
    testable = np.flatnonzero(finite.all(axis=0) & ~is_constant(y[held]))
    a_bin, b_bin, y_bin = (
        _binned(x[:, testable], fit, held, n_bins) for x in (a, b, y)
    )
    shuffles = _shuffles(runs[held], block, n_permutations, np.random.default_rng(rng))
    found = _evidence(a_bin, b_bin, y_bin, n_bins, shuffles, n_permutations)
    columns = {}
    for name, values in found.items():
        columns[name] = np.full(y.shape[1], np.nan)
        columns[name][testable] = values
    return SiteSynergy(**columns, n_permutations=n_permutations)


def _evidence(
    a: Codes,
    b: Codes,
    y: Codes,
    n_bins: int,
    shuffles: Iterator[Codes],
    n_permutations: int,
) -> dict[str, Floats]:
    """Synergy, bounds and p of targets that vary, by their names in the result."""
    n_samples, n_targets = y.shape
    tables = _probabilities(_count(a, b, y, n_bins)[None], n_bins)
    parts, bias = divided(tables), _bias(tables, n_samples)
    bounds = bounded(tables.sum(axis=2), tables.sum(axis=1), tables.sum(axis=3))
    synergy = parts.synergy - bias
    exceeding = np.zeros((3, n_targets), dtype=np.intp)
    waiting: list[Floats] = []
    for number, rows in enumerate(shuffles, start=1):
        waiting.append(_count(a, b, y[rows], n_bins))
        waiting.append(_count(a[rows], b, y, n_bins))
        waiting.append(_count(a, b[rows], y, n_bins))
        full = len(waiting) * n_targets >= _TABLES_AT_A_TIME
        if full or number == n_permutations:
            shuffled = _probabilities(np.stack(waiting), n_bins)
            null = divided(shuffled, _NULL_TOL).synergy - _bias(shuffled, n_samples)
            null = null.reshape(len(waiting) // 3, 3, n_targets)
            exceeding += (null >= synergy - 2 * _NULL_TOL).sum(axis=0)
            waiting = []
    return {
        "synergy": synergy,
        "lower": bounds.lower - bias,
        "upper": bounds.upper - bias,
        "redundancy": parts.redundancy,
        "unique_a": parts.unique_a,
        "unique_b": parts.unique_b,
        "p": (1 + exceeding.max(axis=0)) / (1 + n_permutations),
    }


def _bias(p: Floats, n_samples: int) -> Floats:
    """Bits by which the plain estimate of synergy is too large."""

    def excess(table: Floats) -> Floats:  # of I(X; Y), by tables (table, x, y)
        occupied = [table, table.sum(axis=2), table.sum(axis=1)]
        cells, x, y = ((t > 0).sum(axis=tuple(range(1, t.ndim))) for t in occupied)
        return np.asarray(cells - x - y + 1.0)

    joint = excess(p.reshape(len(p), p.shape[1] * p.shape[2], p.shape[3]))
    single = np.maximum(excess(p.sum(axis=2)), excess(p.sum(axis=1)))
    return np.asarray((joint - single) / (2 * n_samples * np.log(2)))


def _count(a: Codes, b: Codes, y: Codes, n_bins: int) -> Floats:
    """How many samples of each target fall into each cell."""
    n_targets, cells = y.shape[1], n_bins**3
    where = (a * n_bins + b) * n_bins + y + cells * np.arange(n_targets)
    counts = np.bincount(where.ravel(), minlength=cells * n_targets)
    return counts.reshape(n_targets, cells).astype(np.float64)


def _probabilities(counts: Floats, n_bins: int) -> Floats:
    total = counts.sum(axis=-1, keepdims=True)
    tables = np.asarray(counts / total)
    n_tables = counts.size // n_bins**3
    return tables.reshape(n_tables, n_bins, n_bins, n_bins)


def _binned(x: Floats, fit: Codes, held: Codes, n_bins: int) -> Codes:
    """Bin of each held-out sample, by quantiles of other rows."""
    codes = np.empty((len(held), x.shape[1]), dtype=np.intp)
    shares = np.arange(1, n_bins) / n_bins
    for target, column in enumerate(x.T):
        values = np.unique(column[fit])
        few = len(values) <= n_bins
        edges = values[1:] if few else np.quantile(column[fit], shares)
        codes[:, target] = np.searchsorted(edges, column[held], side="right")
    return codes


def _shuffles(
    groups: NDArray[np.generic],
    block: int,
    n_permutations: int,
    rng: np.random.Generator,
) -> Iterator[Codes]:
    """Rows in an order in which blocks of each run have changed places."""
    runs = [rows for rows in run_rows(groups) if len(rows) // block >= 2]
    for _ in range(n_permutations):
        order = np.arange(len(groups))
        for rows in runs:
            n_blocks = len(rows) // block
            moved = rows[: len(rows) // n_blocks * n_blocks]
            order[moved] = rng.permutation(moved.reshape(n_blocks, -1)).ravel()
        yield order


def _checked_samples(
    prediction_a: ArrayLike, prediction_b: ArrayLike, response: ArrayLike, n_bins: int
) -> tuple[Floats, Floats, Floats]:
    a, b, y = (
        np.asarray(x, dtype=np.float64) for x in (prediction_a, prediction_b, response)
    )
    if y.ndim != 2 or not a.shape == b.shape == y.shape:
        raise DataError(
            "both predictions and the response must have the same shape (n_samples, "
            f"n_targets), got {a.shape}, {b.shape} and {y.shape}"
        )
    if n_bins < 2:
        raise UsageError(f"n_bins must be 2 or more, got {n_bins}")
    return a, b, y


def _rows(train: ArrayLike | None, n_samples: int) -> tuple[Codes, Codes]:
    """Rows of which quantiles are taken, and rows that are counted."""
    everything = np.arange(n_samples)
    if train is None:
        return everything, everything
    named = np.asarray(train)
    if named.dtype == bool and named.shape != everything.shape:
        raise UsageError(f"train must be rows, or a mask of {n_samples} samples")
    fit = np.flatnonzero(named) if named.dtype == bool else np.unique(named)
    if not np.isin(fit, everything).all():
        raise UsageError(f"train names rows outside the {n_samples} samples")
    held = np.setdiff1d(everything, fit)
    if not len(fit) or not len(held):
        raise UsageError(
            "train must leave some of the samples to count, and hold some itself, got "
            f"{len(fit)} of {n_samples}"
        )
    return fit.astype(np.intp), held


def _warn_of_few(n_samples: int, n_bins: int) -> None:
    if n_samples < _SAMPLES_A_CELL * n_bins**3:
        warnings.warn(
            f"{n_samples} samples in {n_bins}^3 cells are fewer than {_SAMPLES_A_CELL} "
            "a cell: the bias of the synergy is then larger than its correction. "
            "Take fewer bins (n_bins).",
            stacklevel=3,
        )

"""Rows in parts that folds share, and the moments of targets over them.

The training and held-out rows of all folds are unions of a few parts: with five
contiguous folds there are five, with purged ones a few more. Sums over rows are formed
once a part, each about its own mean, and added up for each fold. Held-out rows are
never subtracted from a total, so whatever they hold leaves no trace in the training
side, and means are never subtracted from large sums. A fold that names a row twice, as
a bootstrap does, counts its part twice; parts are then many and small.

References
----------
Chan, Golub & LeVeque (1983) Algorithms for computing the sample variance.
Am. Stat. 37:242-247 (the merge of moments).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, empty, namespace
from neuromm.kernels.column_statistics import column_dot, column_mean

__all__ = [
    "Counts",
    "RowParts",
    "Split",
    "TargetRows",
    "fold_sums",
    "row_parts",
    "target_rows",
]

Split = tuple[NDArray[np.intp], NDArray[np.intp]]

# How often a fold counts each part, shape (n_parts,).
Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RowParts:
    """Rows of all folds in parts.

    Attributes
    ----------
    order : integer array of shape (n_samples,)
        Row of the data at each row of the parts.
    slices : tuple of slice
        Of ``order``: one a part.
    train, test : integer arrays of shape (n_folds, n_parts)
        How often a fold counts each part, in the smallest type that holds it.
    """

    order: NDArray[np.intp]
    slices: tuple[slice, ...]
    train: Counts
    test: Counts

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Rows of each part."""
        return np.array([part.stop - part.start for part in self.slices])

    @property
    def everything(self) -> Counts:
        """Counts of a fit of all rows."""
        return np.ones(len(self.slices), dtype=np.intp)

    def in_order(self, x: Array) -> Array:
        """Rows of the data in the order of the parts; not copied if they are."""
        if (self.order == np.arange(len(self.order))).all():
            return x
        return namespace(x).take(x, as_like(self.order, x), axis=0)

    def n_rows(self, counts: Counts) -> int:
        """Rows that a fold counts."""
        return int(self.sizes @ counts)

    def places(self, counts: Counts) -> Iterator[tuple[int, slice, slice]]:
        """Part, its rows, and where they stand among the rows that a fold counts."""
        start = 0
        for part in np.flatnonzero(counts):
            rows = self.slices[part]
            for _ in range(int(counts[part])):
                end = start + rows.stop - rows.start
                yield int(part), rows, slice(start, end)
                start = end

    def index(self, counts: Counts) -> NDArray[np.intp]:
        """Rows of the parts that a fold counts, as `places` orders them."""
        return np.concatenate(
            [np.arange(rows.start, rows.stop) for _, rows, _ in self.places(counts)]
        )

    def mean(self, means: Array, counts: Counts) -> Array:
        """Mean over the rows of a fold, from the means of parts, float64.

        Taken about the mean of one of its parts: if all are equal so is the result,
        to the last bit, and a constant leaves no residual of rounding.
        """
        used = np.flatnonzero(counts)
        first = means[int(used[0])]
        weights = self.sizes[used] * counts[used]
        weights = as_like(weights / weights.sum(), means)
        steps = namespace(means).take(means, as_like(used, means), axis=0) - first
        return first + weights @ steps


def row_parts(splits: Sequence[Split], n_samples: int) -> RowParts:
    """Cut the rows into the parts of which all folds are unions.

    Parameters
    ----------
    splits : sequence of (train, test)
    n_samples : int
    """
    most = max(
        int(np.bincount(rows).max(initial=1)) for sides in splits for rows in sides
    )
    # One row a sample, in bytes: comparing these is fast, and leave-one-out has as
    # many folds as samples.
    counts = np.zeros((n_samples, 2 * len(splits)), dtype=np.min_scalar_type(most))
    for fold, sides in enumerate(splits):
        for side, rows in enumerate(sides):
            counts[:, 2 * fold + side] = np.bincount(rows, minlength=n_samples)
    as_bytes = counts.view(np.dtype((np.void, counts.itemsize * counts.shape[1])))
    _, first, label = np.unique(
        as_bytes.ravel(), return_index=True, return_inverse=True
    )
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    label = rank[label.ravel()]
    ends = np.cumsum(np.bincount(label, minlength=len(first)))
    slices = tuple(
        slice(int(start), int(end))
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )
    of_parts = counts[np.sort(first)].T
    order = np.argsort(label, kind="stable")
    return RowParts(order, slices, of_parts[::2], of_parts[1::2])


def fold_sums(values: Sequence[Array], counts: Counts) -> list[Array]:
    """Sums of what was formed of each part over the parts of each fold.

    Where every fold leaves out one part, sums of the parts before it and after it are
    shared: three additions a fold, whatever their number.

    Parameters
    ----------
    values : sequence of arrays
        One a part; a fold of a single part is given its array as it is.
    counts : integer array of shape (n_folds, n_parts)
    """
    n_folds, n_parts = counts.shape
    missing = counts == 0
    leave_one_out = (missing.sum(axis=1) < 2).all() and counts.max(initial=0) == 1
    if not leave_one_out or not 2 < n_parts <= n_folds:
        return [_sum_of(values, fold) for fold in counts]
    between = list(values)[1:-1]
    after = [values[-1]]
    for value in reversed(between):
        after.append(value + after[-1])
    before, sums = values[0], [after.pop()]
    for value in between:
        sums.append(before + after.pop())
        before = before + value
    sums += [before, before + values[-1]]
    left_out = np.where(missing.any(axis=1), missing.argmax(axis=1), n_parts)
    return [sums[int(part)] for part in left_out]


def _sum_of(values: Sequence[Array], counts: Counts) -> Array:
    first, *rest = np.flatnonzero(counts).tolist()
    if not rest and counts[first] == 1:
        return values[first]
    total = values[first] * int(counts[first])
    for part in rest:
        times = int(counts[part])
        total += values[part] if times == 1 else values[part] * times
    return total


@dataclass(frozen=True)
class TargetRows:
    """A batch of targets, by parts.

    Attributes
    ----------
    parts : RowParts
    rows : array of shape (n_samples, n_targets)
        In the order of the parts, less ``origins``; 0 for a masked target.
    origins : array of shape (n_parts, n_targets), float64
        Mean of each part, rounded to the precision of the rows.
    means, squares : arrays of shape (n_parts, n_targets), float64
        Mean of each part, and sum of squares about it.
    lowest, highest : arrays of shape (n_parts, n_targets)
        Extremes of each part, which tell a constant exactly.
    valid : boolean array of shape (n_targets,)
        Finite, and not constant over all rows.
    """

    parts: RowParts
    rows: Array
    origins: Array
    means: Array
    squares: Array
    lowest: Array
    highest: Array
    valid: Array

    def mean(self, counts: Counts) -> Array:
        """Mean over the rows of a fold, of shape (n_targets,), float64."""
        return self.parts.mean(self.means, counts)

    def squares_about(self, counts: Counts, centre: Array) -> Array:
        """Sum over the rows of a fold of (y - centre)^2, (n_targets,), float64."""
        use = as_like(counts.astype(np.float64), self.squares)
        rows = as_like((self.parts.sizes * counts).astype(np.float64), self.squares)
        return use @ self.squares + rows @ (self.means - centre) ** 2

    def rows_about(self, counts: Counts, centre: Array) -> Array:
        """Rows of a fold less ``centre``, of shape (n_rows, n_targets)."""
        xp = namespace(self.rows)
        offset = xp.astype(self.origins - centre, self.rows.dtype)
        about = empty((self.parts.n_rows(counts), self.rows.shape[1]), self.rows)
        for part, rows, place in self.parts.places(counts):
            about[place] = self.rows[rows] + offset[part]
        return about

    def moved(self, counts: Counts, centre: Array) -> Array:
        """As `rows_about`; of a single part in place, whose origin becomes the centre.

        Asked again with this centre, the part is given as it is: what a fold holds out
        is needed twice and copied never.
        """
        used = np.flatnonzero(counts)
        if len(used) != 1 or counts[used[0]] != 1:
            return self.rows_about(counts, centre)
        xp = namespace(self.rows)
        part = int(used[0])
        rows = self.rows[self.parts.slices[part]]
        offset = self.origins[part] - centre
        if bool(xp.any(offset != 0)):
            rows += xp.astype(offset, rows.dtype)
            self.origins[part] = centre
        return rows

    def is_constant(self, counts: Counts) -> Array:
        """Whether each target has one value in the rows of a fold."""
        xp = namespace(self.lowest)
        which = as_like(np.flatnonzero(counts), self.lowest)
        low = xp.min(xp.take(self.lowest, which, axis=0), axis=0)
        return low == xp.max(xp.take(self.highest, which, axis=0), axis=0)

    def constants(self) -> Array:
        """Value of a target that has only one; nan for any other."""
        xp = namespace(self.lowest)
        low, high = xp.min(self.lowest, axis=0), xp.max(self.highest, axis=0)
        alone = xp.isfinite(low) & (low == high)
        return xp.where(alone, low, xp.nan * xp.ones_like(low))


def target_rows(y: Array, parts: RowParts) -> TargetRows:
    """Centre a batch of targets by parts; ``y`` is left as it is.

    Parameters
    ----------
    y : array of shape (n_samples, n_targets)
        nan or infinity mask their target.
    parts : RowParts
    """
    xp = namespace(y)
    rows = parts.in_order(y)
    centred = empty(rows.shape, rows)
    lows, highs, averages = [], [], []
    for part in parts.slices:
        centred[part] = rows[part]
        piece = centred[part]
        lows.append(xp.min(piece, axis=0))
        highs.append(xp.max(piece, axis=0))
        with np.errstate(invalid="ignore"):  # infinities mask their target
            averages.append(column_mean(piece))
    lowest, highest, means = xp.stack(lows), xp.stack(highs), xp.stack(averages)
    low, high = xp.min(lowest, axis=0), xp.max(highest, axis=0)
    valid = xp.isfinite(low) & xp.isfinite(high) & (low != high)
    if not bool(xp.all(valid)):
        centred = xp.where(valid, centred, xp.zeros_like(centred[:1, :1]))
        means = xp.where(valid, means, xp.zeros_like(means[:1, :1]))
    # The mean of a constant rounds: a residual would look like a signal.
    alike = valid & (lowest == highest)
    means = xp.where(alike, xp.astype(lowest, xp.float64), means)
    origins = xp.astype(means, rows.dtype)
    squares = []
    for number, part in enumerate(parts.slices):
        centred[part] -= origins[number]
        squares.append(column_dot(centred[part], centred[part]))
    origins = xp.astype(origins, xp.float64)
    sizes = as_like(parts.sizes.astype(np.float64), means)[:, None]
    return TargetRows(
        parts,
        centred,
        origins,
        means,
        xp.stack(squares) - sizes * (means - origins) ** 2,
        lowest,
        highest,
        valid,
    )

"""Features of a cross-validated ridge, by parts of rows: modes of every fold.

Grams, kernels and decompositions are float64 (`neuromm.kernels.ridge_modes`); what is
multiplied with targets is cast to the precision of the data.

The unit of a fold is its largest eigenvalue: its eigenvalues, and the penalties that it
is asked for, are divided by it, and projections are scaled to match.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import (
    Array,
    as_like,
    empty,
    host_array,
    is_numpy,
    namespace,
)
from neuromm.kernels.column_statistics import column_dot, column_mean
from neuromm.kernels.ridge_modes import Form, eigenmodes
from neuromm.kernels.row_parts import Counts, RowParts, TargetRows, fold_sums

__all__ = [
    "FeatureRows",
    "HeldOut",
    "Modes",
    "at_mean",
    "to_weights",
    "uses_cross_products",
]

# Grams of parts are formed once, and added up for each fold, if parts and folds are no
# more than this: else they would take more memory than the bases.
_MOST_GRAMS = 12

# Features whose mean is a smaller share than this of their root mean square need not be
# centred before they are multiplied with centred targets.
_SMALL_MEAN = 0.7


@dataclass(frozen=True)
class Modes:
    """Rows of a fold in their eigenbasis.

    Attributes
    ----------
    unit : float
        Largest eigenvalue; 1 if all are 0.
    eigenvalues : array of shape (rank,)
        Largest first, in ``unit``.
    vectors : array of shape (n_features, rank) or (n_rows, rank), float64
        Q or U, scaled: divided by sqrt(unit) in the primal form.
    train : array of shape (n_features + n_parts, rank) or (n_rows, rank)
        Takes cross-products, with the means of targets in each part below them, or rows
        of targets to modes.
    offset : array of shape (rank,), float64, or None
        Mean of the training rows in modes, by which held-out kernels are centred.
    """

    unit: float
    eigenvalues: NDArray[np.float64]
    vectors: Array
    train: Array
    offset: Array | None = None


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of a fold in the eigenbasis of its training rows.

    Attributes
    ----------
    weights : array of shape (n_rows, rank), or (n_features, rank)
        A, or Q where held-out targets enter by their cross-products.
    shift : array of shape (rank, n_parts) or None
        Takes the means of targets in each part to modes, beside cross-products.
    square : array of shape (rank, rank), float64
        M = A'A.
    """

    weights: Array
    shift: Array | None
    square: Array


def uses_cross_products(form: Form, n_parts: int, n_folds: int) -> bool:
    """Tell whether parts are few enough that cross-products of each are cheap to add.

    Three parts a fold are what blocks with purged neighbours need.
    """
    return form == "primal" and n_parts <= 4 * n_folds + 1


def to_weights(
    factors: tuple[Array, ...], shrunken: Array, out: Array | None = None
) -> Array:
    """Weights of features from shrunken modes, (n_features, n_targets).

    Those of a target are adjacent in memory: so they are stored.

    Parameters
    ----------
    factors : tuple of arrays
        As `FeatureRows.to_features` gives them.
    shrunken : array of shape (rank, n_targets)
    out : array of shape (n_features, n_targets), optional
        Takes the weights, if it is NumPy's.
    """
    xp = namespace(shrunken)
    rows = xp.matrix_transpose(shrunken)
    last, *others = factors
    for factor in reversed(others):
        rows = rows @ xp.matrix_transpose(factor)
    if out is None or not is_numpy(out):
        return xp.matrix_transpose(rows @ xp.matrix_transpose(last))
    np.matmul(rows, last.T, out=out.T)
    return out


def at_mean(mean: Array, weights: Array) -> Array:
    """Prediction at the mean of features, (n_targets,), summed in float64.

    Parameters
    ----------
    mean : array of shape (n_features,), float64
    weights : array of shape (n_features, n_targets)
    """
    xp = namespace(weights)
    if not is_numpy(weights):
        return mean @ xp.astype(weights, xp.float64)
    # What is float64 at a time stays in the cache.
    parts = [
        mean @ weights[:, columns].astype(np.float64)
        for columns in _blocks(weights.shape[1], 64)
    ]
    return np.concatenate(parts)


def _blocks(size: int, width: int = 512) -> Iterator[slice]:
    """Slices of rows or columns: what is float64 at a time stays small."""
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


class FeatureRows:
    """Features in the order of parts.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    parts : RowParts
    form : {"primal", "dual"}
    fit_intercept : bool
        Centre every fold with the means of its training rows.
    by_cross : bool
        Targets enter by cross-products (`uses_cross_products`) rather than by rows.
    """

    def __init__(
        self,
        x: Array,
        parts: RowParts,
        form: Form,
        fit_intercept: bool,
        *,
        by_cross: bool,
    ) -> None:
        xp = namespace(x)
        self.parts = parts
        self.form = form
        self.by_cross = by_cross
        self._fit_intercept = fit_intercept
        self._rows = parts.in_order(x)
        self._means = xp.stack([_mean(self._rows[part]) for part in parts.slices])
        self._centred: list[Array] | None = None
        if by_cross:
            n_parts = len(parts.slices)
            self._centred = [self._centred_part(number) for number in range(n_parts)]
        self._grams = self._fold_grams() if by_cross else {}
        self._kernel: Array = None
        if form == "dual":
            shift = self._reference()
            # Blocks as large as the kernel: sums of kernels take time, too.
            for columns in _blocks(x.shape[1], max(x.shape[0], 512)):
                block = xp.astype(self._rows[:, columns], xp.float64)
                block -= shift[columns]
                product = block @ block.T
                if self._kernel is None:
                    self._kernel = product
                else:
                    self._kernel += product

    def _centred_part(self, number: int) -> Array:
        """Rows of a part about their mean; the rows themselves where that is small.

        Targets are centred in each part, so a mean of features leaves cross-products as
        they are but for rounding, which grows with its ratio to their spread.
        """
        xp = namespace(self._rows)
        rows, mean = self._rows[self.parts.slices[number]], self._means[number]
        size = xp.sqrt(column_dot(rows, rows) / rows.shape[0])
        if bool(xp.all(xp.abs(mean) <= _SMALL_MEAN * size)):
            return rows
        return rows - xp.astype(mean, rows.dtype)

    def mean(self, counts: Counts) -> Array:
        """Mean over the rows of a fold, (n_features,), float64; 0 without intercept."""
        if not self._fit_intercept:
            return self._means[0] * 0
        return self.parts.mean(self._means, counts)

    def cross_products(self, targets: TargetRows) -> list[Array] | None:
        """X'Y of each part about its means; None where rows are used instead.

        Returns
        -------
        crosses : list of arrays of shape (n_features + n_parts, n_targets)
            With rows of 0 below, for means of targets.
        """
        if self._centred is None:
            return None
        n_features, n_parts = self._rows.shape[1], len(self._centred)
        crosses = []
        for rows, part in zip(self._centred, self.parts.slices, strict=True):
            y = targets.rows[part]
            cross = empty((n_features + n_parts, y.shape[1]), y)
            cross[n_features:] = 0
            if is_numpy(y):
                np.matmul(rows.T, y, out=cross[:n_features])
            else:
                cross[:n_features] = rows.T @ y
            crosses.append(cross)
        return crosses

    def modes(self, counts: Counts) -> Modes:
        """Decompose the rows of a fold."""
        n_rows, n_features = self.parts.n_rows(counts), self._rows.shape[1]
        # Centred rows add up to 0.
        max_rank = min(n_rows - self._fit_intercept, n_features)
        if self.form == "dual":
            return self._dual_modes(counts, max_rank)
        mean = self.mean(counts)
        gram = self._grams.pop(_key(counts), None)
        if gram is None:
            gram = self._gram(counts, mean)
        else:
            between = self._means - mean
            between *= as_like(np.sqrt(self.parts.sizes * counts), between)[:, None]
            gram = gram + between.T @ between
        eigenvalues, vectors = eigenmodes(gram, max_rank)
        del gram
        unit = float(eigenvalues[0]) if len(eigenvalues) else 1.0
        vectors /= unit**0.5
        if self.by_cross:
            shape = (n_features + len(self.parts.slices), len(eigenvalues))
            train = empty(shape, self._rows)
            train[:n_features] = self._cast(vectors)
            train[n_features:] = self._shift(vectors, counts, mean).T
            return Modes(unit, eigenvalues / unit, vectors, train)
        train = empty((n_rows, len(eigenvalues)), self._rows)
        for place, block in self._blocks_about(counts, mean):
            train[place] = self._cast(block @ vectors)
        return Modes(unit, eigenvalues / unit, vectors, train)

    def _gram(self, counts: Counts, mean: Array) -> Array:
        """X'X of the rows of a fold about ``mean``, (n_features, n_features)."""
        n_features = self._rows.shape[1]
        gram = empty((n_features, n_features), self._means)
        gram[:] = 0
        for _, block in self._blocks_about(counts, mean):
            gram += block.T @ block
        return gram

    def _fold_grams(self) -> dict[tuple[int, ...], Array]:
        """Sums over the parts of each fold, and of all, of their Grams about means."""
        folds = np.vstack([self.parts.train, self.parts.everything])
        n_parts = len(self.parts.slices)
        if n_parts + len(folds) > _MOST_GRAMS + 1:
            return {}
        alone = np.eye(n_parts, dtype=np.intp)
        grams = [self._gram(alone[part], self._means[part]) for part in range(n_parts)]
        sums = fold_sums(grams, folds)
        return {_key(one): gram for one, gram in zip(folds, sums, strict=True)}

    def _dual_modes(self, counts: Counts, max_rank: int) -> Modes:
        kernel = self._block(counts, counts)
        # What centring takes away leaves its rounding behind.
        noise = float(np.finfo(np.float64).eps * namespace(kernel).linalg.trace(kernel))
        columns = column_mean(kernel)
        if self._fit_intercept:
            kernel -= columns[None, :]
            kernel -= column_mean(kernel.T)[:, None]
        eigenvalues, vectors = eigenmodes(kernel, max_rank, noise)
        unit = float(eigenvalues[0]) if len(eigenvalues) else 1.0
        offset = None
        if self._fit_intercept:
            xp = namespace(columns)
            offset = (columns - xp.mean(columns)) @ vectors
        return Modes(
            unit, eigenvalues / unit, vectors, self._cast(vectors), offset=offset
        )

    def held_out(
        self, modes: Modes, train: Counts, test: Counts, *, centre: bool
    ) -> HeldOut:
        """Project the held-out rows of a fold.

        Parameters
        ----------
        modes : Modes
            Of the rows ``train``.
        train, test : integer arrays of shape (n_parts,)
        centre : bool
            About the mean of the held-out rows, as a correlation needs it, rather than
            of the training rows.
        """
        n_test, rank = self.parts.n_rows(test), len(modes.eigenvalues)
        mean = self.mean(test) if centre and self._fit_intercept else self.mean(train)
        if self.form == "primal":
            rows = self._in_modes(test, mean, modes.vectors)
        else:
            kernel = self._block(test, train)
            if self._fit_intercept:
                # The modes do not see it; without it they add up smaller numbers.
                kernel -= column_mean(kernel.T)[:, None]
            rows = kernel @ modes.vectors
            if modes.offset is not None:
                rows -= modes.offset
            rows /= modes.unit
        if centre:
            rows -= column_mean(rows)
            if self._is_noise(rows, modes, train, test):
                rows *= 0
        square = rows.T @ rows
        if self.by_cross and n_test > max(rank, 1):
            shift = self._shift(modes.vectors, test, mean)
            return HeldOut(modes.train[: self._rows.shape[1]], shift, square)
        return HeldOut(self._cast(rows), None, square)

    def forget_kernel(self) -> None:
        """Give back the memory of the kernel, once every fold has its modes."""
        self._kernel = None

    def orthonormal(self, modes: Modes) -> Array:
        """Basis U of all rows, of shape (n_samples, rank), float64."""
        if self.form == "dual":
            return modes.vectors
        everything = self.parts.everything
        rows = self._in_modes(everything, self.mean(everything), modes.vectors)
        rows /= as_like(np.sqrt(modes.eigenvalues), rows)
        return rows

    def to_features(self, modes: Modes, n_targets: int) -> tuple[Array, ...]:
        """Factors whose product takes shrunken modes to weights, (n_features, rank).

        Two factors where multiplying them out costs more than applying them in turn.
        """
        if self.by_cross:
            return (modes.train[: self._rows.shape[1]],)
        if self.form == "primal":
            return (self._cast(modes.vectors),)
        xp = namespace(self._rows)
        mean = self.mean(self.parts.everything)
        scaled = self._cast(modes.vectors / modes.unit)
        multiplied = n_targets >= len(modes.eigenvalues)
        n_columns = len(modes.eigenvalues) if multiplied else self._rows.shape[0]
        first = empty((self._rows.shape[1], n_columns), self._rows)
        for columns in _blocks(self._rows.shape[1]):
            rows = xp.astype(self._rows[:, columns], xp.float64) - mean[columns]
            block = self._cast(rows).T
            first[columns] = block @ scaled if multiplied else block
        return (first,) if multiplied else (first, scaled)

    def _blocks_about(
        self, counts: Counts, mean: Array
    ) -> Iterator[tuple[slice, Array]]:
        """Rows of a fold less ``mean``, float64, in blocks, and where they stand."""
        xp = namespace(self._rows)
        index = self.parts.index(counts)
        for block in _blocks(len(index)):
            rows = xp.take(self._rows, as_like(index[block], self._rows), axis=0)
            yield block, xp.astype(rows, xp.float64) - mean

    def _in_modes(self, counts: Counts, mean: Array, vectors: Array) -> Array:
        """Rows of a fold less ``mean`` in modes, (n_rows, rank), float64."""
        rows = empty((self.parts.n_rows(counts), vectors.shape[1]), self._means)
        for place, block in self._blocks_about(counts, mean):
            rows[place] = block @ vectors
        return rows

    def _block(self, rows: Counts, columns: Counts) -> Array:
        """Block of the kernel between the rows of two folds; a copy."""
        xp = namespace(self._kernel)
        index = as_like(self.parts.index(columns), self._kernel)
        block = empty((self.parts.n_rows(rows), index.shape[0]), self._means)
        for _, source, target in self.parts.places(rows):
            block[target, :] = xp.take(self._kernel[source, :], index, axis=1)
        return block

    def _reference(self) -> Array:
        """What rows are taken about in the kernel, (n_features,), float64.

        Rounding alone knows it, since kernels are centred again for each fold. It is
        the mean of the part in the middle by length: that of all rows would let a
        held-out artefact cost the digits of all others.
        """
        if not self._fit_intercept:
            return self._means[0] * 0
        xp = namespace(self._means)
        lengths = host_array(xp.sum(self._means**2, axis=1))
        return self._means[int(np.argsort(lengths)[(len(lengths) - 1) // 2])]

    def _is_noise(self, rows: Array, modes: Modes, train: Counts, test: Counts) -> bool:
        """Whether held-out rows in modes are the rounding of a sum of 0.

        Features are constant in them, or orthogonal to those of the training rows.
        """
        xp = namespace(rows)
        if self.form == "primal":
            norms = [
                xp.max(xp.sum(block**2, axis=1))
                for _, block in self._blocks_about(test, 0 * self._means[0])
            ]
            size = max(float(one) for one in norms) / modes.unit
        else:
            squares = xp.linalg.diagonal(self._kernel)
            size = 1 / modes.unit**2
            for counts in (train, test):
                index = as_like(self.parts.index(counts), squares)
                size *= float(xp.max(xp.take(squares, index)))
        n_summands = modes.vectors.shape[0]
        rounding = 4 * float(np.finfo(np.float64).eps) * (n_summands * size) ** 0.5
        return bool(xp.all(xp.abs(rows) <= rounding))

    def _shift(self, vectors: Array, counts: Counts, mean: Array) -> Array:
        weights = as_like((self.parts.sizes * counts).astype(np.float64), self._means)
        return self._cast(vectors.T @ ((self._means - mean) * weights[:, None]).T)

    def _cast(self, values: Array) -> Array:
        return namespace(values).astype(values, self._rows.dtype, copy=False)


def _mean(rows: Array) -> Array:
    """Mean of each column, float64; of a constant, exactly its value."""
    xp = namespace(rows)
    least, most = xp.min(rows, axis=0), xp.max(rows, axis=0)
    return xp.where(least == most, xp.astype(least, xp.float64), column_mean(rows))


def _key(counts: Counts) -> tuple[int, ...]:
    return tuple(counts.tolist())

r"""Eigenmodes of several feature spaces with a weight each, without a pass over data.

Banded ridge scales the columns of feature space i by sqrt(gamma_i) before a ridge of
one penalty. What its folds need of the features is formed once:

primal   Gram matrices of the pieces of rows that folds share. Those of a candidate are
         S G S with S = diag(sqrt(gamma)).
dual     one kernel K_i for each space. That of a candidate is sum_i gamma_i K_i.

A candidate costs one decomposition a fold and passes over neither features nor
responses. Spaces with a weight of 0 are left out of it: nothing is divided by it.

Sums over rows are formed for each piece about its own mean, and added up for each side
of a fold (see `neuromm.kernels.row_parts`), so held-out rows leave no trace in the
training side. Grams, kernels and decompositions are float64.

References
----------
Dupre la Tour et al. (2022) Feature-space selection with banded ridge regression.
NeuroImage 264:119728.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, empty, namespace
from neuromm.kernels.banded_features import (
    BLOCK,
    BandedFeatures,
    BandedModes,
    HeldOutModes,
    Rows,
    Sides,
)
from neuromm.kernels.column_statistics import column_mean
from neuromm.kernels.mixed_kernel import mixed_kernel
from neuromm.kernels.ridge_modes import Form, eigenmodes
from neuromm.kernels.row_parts import Counts, RowParts, TargetRows

__all__ = ["banded_features", "n_pieces"]

_EVERY_ROW = slice(None)


def banded_features(
    form: Form,
    x: Array,
    parts: RowParts,
    spaces: Sequence[slice],
    *,
    fit_intercept: bool,
    centre_held_out: bool,
) -> BandedFeatures:
    """Features in the form that is asked for; see `BandedFeatures`."""
    kind = _Primal if form == "primal" else _Dual
    return kind(
        x,
        parts,
        spaces,
        fit_intercept=fit_intercept,
        centre_held_out=centre_held_out,
    )


def n_pieces(n_parts: int, n_folds: int) -> int:
    """How many Gram matrices the primal form holds."""
    return min(n_parts, 2 * n_folds + 1)


@dataclass(frozen=True)
class _Pieces:
    """Sets of rows of which both sides of all folds are sums.

    The parts themselves, or, where they are many, the sides.

    Attributes
    ----------
    counts : integer array of shape (n_pieces, n_parts)
    train, test : integer arrays of shape (n_folds, n_pieces)
    everything : integer array of shape (n_pieces,)
    sizes : integer array of shape (n_pieces,)
    """

    counts: Counts
    train: Counts
    test: Counts
    everything: Counts
    sizes: Counts

    @classmethod
    def of(cls, parts: RowParts) -> "_Pieces":
        n_folds, n_parts = parts.train.shape
        if n_parts == n_pieces(n_parts, n_folds):
            counts = np.eye(n_parts).astype(np.intp)
            return cls(counts, parts.train, parts.test, parts.everything, parts.sizes)
        counts = np.vstack([parts.train, parts.test, parts.everything])
        sides = np.eye(len(counts)).astype(np.intp)
        train, test = sides[:n_folds], sides[n_folds:-1]
        return cls(counts, train, test, sides[-1], counts @ parts.sizes)


class _Primal(BandedFeatures):
    """Features by features: for fewer features than training rows."""

    form: Form = "primal"

    def __init__(
        self,
        x: Array,
        parts: RowParts,
        spaces: Sequence[slice],
        *,
        fit_intercept: bool,
        centre_held_out: bool,
    ) -> None:
        super().__init__(
            x,
            parts,
            spaces,
            fit_intercept=fit_intercept,
            centre_held_out=centre_held_out,
        )
        xp = namespace(x)
        self._pieces = _Pieces.of(parts)
        self._piece_means = xp.stack([self._mean(one) for one in self._pieces.counts])
        self._grams = [
            self._gram_of_rows(counts, mean)
            for counts, mean in zip(self._pieces.counts, self._piece_means, strict=True)
        ]
        # Fewer rows than features are projected faster than their Gram matrix.
        self._held_rows = [
            self._rows_about(test, self._held_out_centre(fold))
            if parts.n_rows(test) < x.shape[1]
            else None
            for fold, test in enumerate(parts.test)
        ]

    def modes(
        self, gamma: NDArray[np.float64], fold: int
    ) -> tuple[BandedModes, HeldOutModes]:
        columns, vectors, unit, eigenvalues = self._decomposed(
            gamma,
            self._gram(self._pieces.train[fold], self._centre(self.parts.train[fold])),
            self.parts.n_rows(self.parts.train[fold]),
        )
        modes = BandedModes(unit, eigenvalues, columns, self._cast(vectors))
        rows = self._held_rows[fold]
        if rows is not None:
            rows = _take(rows, columns, 1) @ vectors
            held_out = HeldOutModes(_EVERY_ROW, self._cast(rows), False, rows.T @ rows)
            return modes, held_out
        gram = self._gram(self._pieces.test[fold], self._held_out_centre(fold))
        gram = _take(_take(gram, columns, 0), columns, 1)
        square = vectors.T @ (gram @ vectors)
        return modes, HeldOutModes(columns, modes.train, True, square)

    def all_modes(self, gamma: NDArray[np.float64]) -> BandedModes:
        gram = self._gram(self._pieces.everything, self.mean)
        columns, vectors, unit, eigenvalues = self._decomposed(
            gamma, gram, len(self.parts.order)
        )
        return BandedModes(unit, eigenvalues, columns, self._cast(vectors))

    def sides(self, targets: TargetRows) -> Sides:
        means = [targets.mean(counts) for counts in self._pieces.counts]
        crosses = [
            self._cross_of_rows(targets, counts, self._piece_means[piece], means[piece])
            for piece, counts in enumerate(self._pieces.counts)
        ]
        target_means = namespace(means[0]).stack(means)
        train, held_out = [], []
        for fold, (train_parts, test_parts) in enumerate(
            zip(self.parts.train, self.parts.test, strict=True)
        ):
            offsets = (
                self._piece_means - self._centre(train_parts),
                target_means - self.target_mean(targets, train_parts),
            )
            train.append(self._cross(crosses, self._pieces.train[fold], *offsets))
            centre = self.held_out_mean(targets, fold)
            if self._held_rows[fold] is not None:
                held_out.append(targets.rows_about(test_parts, centre))
                continue
            offsets = (
                self._piece_means - self._held_out_centre(fold),
                target_means - centre,
            )
            held_out.append(self._cross(crosses, self._pieces.test[fold], *offsets))
        offsets = (
            self._piece_means - self.mean,
            target_means - self.target_mean(targets, self.parts.everything),
        )
        everything = self._cross(crosses, self._pieces.everything, *offsets)
        return Sides(train, held_out, everything)

    def combined(self, modes: BandedModes, shrunken: Array) -> Array:
        product = modes.train @ shrunken
        if product.shape[0] == self._rows.shape[1]:
            return product
        combined = empty((self._rows.shape[1], shrunken.shape[1]), shrunken)
        combined[:] = 0
        rows = modes.rows
        combined[rows if isinstance(rows, slice) else as_like(rows, combined)] = product
        return combined

    def weights(self, combined: Array, gammas: Array) -> Array:
        return combined

    def _decomposed(
        self, gamma: NDArray[np.float64], gram: Array, n_rows: int
    ) -> tuple[Rows, Array, float, NDArray[np.float64]]:
        """Columns that count, their eigenvectors in original units, unit, spectrum."""
        columns, scale = self._scaled_columns(gamma)
        scales = as_like(scale, gram)
        gram = _take(_take(gram, columns, 0), columns, 1) * scales * scales[:, None]
        eigenvalues, vectors = eigenmodes(gram, min(n_rows, len(scale)))
        unit = float(eigenvalues[0]) if len(eigenvalues) else 1.0
        vectors = vectors * (scales / unit**0.5)[:, None]
        return columns, vectors, unit, eigenvalues / unit

    def _scaled_columns(
        self, gamma: NDArray[np.float64]
    ) -> tuple[Rows, NDArray[np.float64]]:
        """Columns of spaces with a weight above 0, and its root for each."""
        used = np.flatnonzero(gamma > 0)
        columns = [
            np.arange(self.spaces[one].start, self.spaces[one].stop) for one in used
        ]
        scale = np.concatenate(
            [
                np.full(len(of_space), np.sqrt(gamma[one]))
                for one, of_space in zip(used, columns, strict=True)
            ]
        )
        if len(used) == used[-1] - used[0] + 1:
            first, last = self.spaces[used[0]], self.spaces[used[-1]]
            return slice(first.start, last.stop), scale
        return np.concatenate(columns), scale

    def _gram_of_rows(self, counts: Counts, mean: Array) -> Array:
        n_features = self._rows.shape[1]
        gram = empty((n_features, n_features), self._means)
        gram[:] = 0
        for _, block in self._blocks_about(counts, mean):
            gram += block.T @ block
        return gram

    def _rows_about(self, counts: Counts, mean: Array) -> Array:
        shape = (self.parts.n_rows(counts), self._rows.shape[1])
        about = empty(shape, self._means)
        for place, block in self._blocks_about(counts, mean):
            about[place] = block
        return about

    def _gram(self, pieces: Counts, centre: Array) -> Array:
        """Gram matrix of a sum of pieces about ``centre``; a copy."""
        offsets = self._piece_means - centre
        weights = as_like((pieces * self._pieces.sizes).astype(np.float64), offsets)
        gram = (offsets * weights[:, None]).T @ offsets
        for piece in np.flatnonzero(pieces):
            times = int(pieces[piece])
            one = self._grams[piece]
            gram += one if times == 1 else one * times
        return gram

    def _cross_of_rows(
        self, targets: TargetRows, counts: Counts, x_mean: Array, y_mean: Array
    ) -> Array:
        """X'Y of a piece, each about its mean."""
        cross: Array = None
        for part in np.flatnonzero(counts):
            rows = self.parts.slices[part]
            x = self._rows[rows] - self._cast(x_mean)
            y = targets.rows[rows] + self._cast(targets.means[part] - y_mean)
            product = x.T @ y
            if counts[part] > 1:
                product *= int(counts[part])
            cross = product if cross is None else cross + product
        return cross

    def _cross(
        self, crosses: list[Array], pieces: Counts, x_offsets: Array, y_offsets: Array
    ) -> Array:
        """X'Y of a sum of pieces from those of each; a copy."""
        weights = as_like((pieces * self._pieces.sizes).astype(np.float64), x_offsets)
        weighted = self._cast(x_offsets * weights[:, None])
        cross = weighted.T @ self._cast(y_offsets)
        for piece in np.flatnonzero(pieces):
            times = int(pieces[piece])
            cross += crosses[piece] if times == 1 else crosses[piece] * times
        return cross


class _Dual(BandedFeatures):
    """Samples by samples: for more features than training rows."""

    form: Form = "dual"

    def __init__(
        self,
        x: Array,
        parts: RowParts,
        spaces: Sequence[slice],
        *,
        fit_intercept: bool,
        centre_held_out: bool,
    ) -> None:
        super().__init__(
            x,
            parts,
            spaces,
            fit_intercept=fit_intercept,
            centre_held_out=centre_held_out,
        )
        n_samples = self._rows.shape[0]
        shape = (len(self.spaces), n_samples, n_samples)
        self._kernels = empty(shape, self._means)
        for number, space in enumerate(self.spaces):
            self._fill_kernel_of_space(space, self._kernels[number])
        self._summed: tuple[bytes, Array] | None = None

    def modes(
        self, gamma: NDArray[np.float64], fold: int
    ) -> tuple[BandedModes, HeldOutModes]:
        train, test = self.parts.train[fold], self.parts.test[fold]
        kernel = self._kernel(gamma)
        unit, eigenvalues, vectors, offset = self._decomposed(kernel, train)
        rows = self._block(kernel, test, train)
        if self.fit_intercept:
            # The modes do not see it; without it they add up smaller numbers.
            rows -= column_mean(rows.T)[:, None]
        rows = (rows @ vectors - offset) / unit
        if self._centre_held_out:
            rows -= column_mean(rows)
        return (
            BandedModes(unit, eigenvalues, _EVERY_ROW, self._cast(vectors)),
            HeldOutModes(_EVERY_ROW, self._cast(rows), False, rows.T @ rows),
        )

    def all_modes(self, gamma: NDArray[np.float64]) -> BandedModes:
        unit, eigenvalues, vectors, _ = self._decomposed(
            self._kernel(gamma), self.parts.everything
        )
        return BandedModes(unit, eigenvalues, _EVERY_ROW, self._cast(vectors))

    def sides(self, targets: TargetRows) -> Sides:
        train = [
            targets.rows_about(counts, self.target_mean(targets, counts))
            for counts in self.parts.train
        ]
        held_out = [
            targets.rows_about(counts, self.held_out_mean(targets, fold))
            for fold, counts in enumerate(self.parts.test)
        ]
        everything = self.parts.everything
        mean = self.target_mean(targets, everything)
        return Sides(train, held_out, targets.rows_about(everything, mean))

    def combined(self, modes: BandedModes, shrunken: Array) -> Array:
        return modes.train @ (shrunken / modes.unit)

    def weights(self, combined: Array, gammas: Array) -> Array:
        xp = namespace(combined)
        weights = empty((self._rows.shape[1], combined.shape[1]), combined)
        mean = self.mean
        for space, gamma in zip(self.spaces, gammas, strict=True):
            for columns in _blocks(space):
                x = xp.astype(self._rows[:, columns], xp.float64) - mean[columns]
                weights[columns] = self._cast(x).T @ combined
            weights[space] *= self._cast(gamma)
        return weights

    def _fill_kernel_of_space(self, space: slice, kernel: Array) -> None:
        xp = namespace(self._rows)
        kernel[:] = 0
        # Rounding alone knows this mean: kernels are centred again for each fold.
        mean = self.mean
        for columns in _blocks(space):
            block = xp.astype(self._rows[:, columns], xp.float64) - mean[columns]
            kernel += block @ block.T

    def _kernel(self, gamma: NDArray[np.float64]) -> Array:
        key = gamma.tobytes()
        if self._summed is None or self._summed[0] != key:
            self._summed = None  # two of them would not fit where one does
            self._summed = key, mixed_kernel(self._kernels, gamma)
        return self._summed[1]

    def _decomposed(
        self, kernel: Array, counts: Counts
    ) -> tuple[float, NDArray[np.float64], Array, Array]:
        """Unit, spectrum, eigenvectors, and mean of the training rows in modes."""
        xp = namespace(kernel)
        block = self._block(kernel, counts, counts)
        columns = column_mean(block)
        if self.fit_intercept:
            block -= columns[None, :]
            block -= column_mean(block.T)[:, None]
        n_rows, n_features = block.shape[0], self._rows.shape[1]
        eigenvalues, vectors = eigenmodes(block, min(n_rows, n_features))
        unit = float(eigenvalues[0]) if len(eigenvalues) else 1.0
        offset = (columns - xp.mean(columns)) @ vectors
        if not self.fit_intercept:
            offset = 0 * offset
        return unit, eigenvalues / unit, vectors, offset

    def _block(self, kernel: Array, rows: Counts, columns: Counts) -> Array:
        """Block of a kernel between the rows of two folds; a copy."""
        shape = (self.parts.n_rows(rows), self.parts.n_rows(columns))
        block = empty(shape, kernel)
        for _, source, target in self.parts.places(rows):
            for _, across, place in self.parts.places(columns):
                block[target, place] = kernel[source, across]
        return block


def _blocks(columns: slice) -> Iterator[slice]:
    for start in range(columns.start, columns.stop, BLOCK):
        yield slice(start, min(start + BLOCK, columns.stop))


def _take(x: Array, where: Rows, axis: int) -> Array:
    """Rows or columns; a view where they are side by side."""
    if isinstance(where, slice):
        return x[where] if axis == 0 else x[:, where]
    return namespace(x).take(x, as_like(where, x), axis=axis)

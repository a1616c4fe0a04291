"""Several feature spaces under one cross-validation: what both forms share.

`neuromm.kernels.banded_modes` has the forms, and says how they work.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.kernels.arrays import Array, as_like, namespace
from neuromm.kernels.column_statistics import column_mean
from neuromm.kernels.ridge_modes import Form
from neuromm.kernels.row_parts import Counts, RowParts, TargetRows

__all__ = ["BLOCK", "BandedFeatures", "BandedModes", "HeldOutModes", "Rows", "Sides"]

# Rows of a matrix: side by side, or by number.
Rows = slice | NDArray[np.intp]

# Rows or columns that are float64 at a time.
BLOCK = 512


@dataclass(frozen=True)
class HeldOutModes:
    """Held-out rows of a fold in the eigenbasis of its training rows.

    Attributes
    ----------
    rows : slice or integer array
        Of a held-out side (`Sides`).
    weights : array of shape (n_rows, rank)
        Takes those rows to modes: A, or the eigenvectors where they are
        cross-products.
    by_cross : bool
        They are.
    square : array of shape (rank, rank), float64
        M = A'A.
    """

    rows: Rows
    weights: Array
    by_cross: bool
    square: Array


@dataclass(frozen=True)
class BandedModes:
    """Rows of a fold, or all, in the eigenbasis of one candidate.

    Attributes
    ----------
    unit : float
        Largest eigenvalue; 1 if all are 0. Penalties are divided by it.
    eigenvalues : array of shape (rank,), on the host
        Largest first, in ``unit``.
    rows : slice or integer array
        Of a training side (`Sides`): the features of spaces that count.
    train : array of shape (n_rows, rank)
        Takes those rows of a training side to modes, and shrunken modes to weights.
    """

    unit: float
    eigenvalues: NDArray[np.float64]
    rows: Rows
    train: Array


@dataclass(frozen=True)
class Sides:
    """A batch of targets as the modes of any candidate take it.

    Attributes
    ----------
    train, held_out : list of array of shape (n_rows, n_targets)
        One a fold: cross-products with the features, or the rows themselves.
    everything : array of shape (n_rows, n_targets)
        The training side of a fit of all samples.
    """

    train: list[Array]
    held_out: list[Array]
    everything: Array


class BandedFeatures(ABC):
    """Features of all folds.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
        Spaces side by side.
    parts : RowParts
    spaces : sequence of slice
        Columns of each space, in their order and without a gap.
    fit_intercept : bool
        Centre every fold with the means of its training rows.
    centre_held_out : bool
        Centre held-out rows about their own mean, as a correlation needs it.
    """

    form: Form

    def __init__(
        self,
        x: Array,
        parts: RowParts,
        spaces: Sequence[slice],
        *,
        fit_intercept: bool,
        centre_held_out: bool,
    ) -> None:
        xp = namespace(x)
        self.parts = parts
        self.spaces = list(spaces)
        self.fit_intercept = fit_intercept
        self._centre_held_out = centre_held_out
        self._rows = parts.in_order(x)
        self._means = xp.stack([column_mean(self._rows[part]) for part in parts.slices])

    @abstractmethod
    def modes(
        self, gamma: NDArray[np.float64], fold: int
    ) -> tuple[BandedModes, HeldOutModes]:
        """Modes of the training rows of a fold, and its held-out rows in them."""

    @abstractmethod
    def all_modes(self, gamma: NDArray[np.float64]) -> BandedModes:
        """Modes of all rows."""

    @abstractmethod
    def sides(self, targets: TargetRows) -> Sides:
        """What modes take of a batch of targets."""

    @abstractmethod
    def combined(self, modes: BandedModes, shrunken: Array) -> Array:
        """Weights of what is combined, features or samples, from shrunken modes.

        Of shape (n_features, n_targets) in the primal and (n_samples, n_targets) in
        the dual form.
        """

    @abstractmethod
    def weights(self, combined: Array, gammas: Array) -> Array:
        """Weights of the features, (n_features, n_targets).

        Parameters
        ----------
        combined : array of shape (n_features or n_samples, n_targets)
            Of each target's own candidate; may be overwritten.
        gammas : array of shape (n_spaces, n_targets)
        """

    @property
    def mean(self) -> Array:
        """Mean of the features over all rows, float64; 0 without intercept."""
        return self._centre(self.parts.everything)

    def target_mean(self, targets: TargetRows, counts: Counts) -> Array:
        """Mean of targets over training rows, float64; 0 without intercept."""
        mean = targets.mean(counts)
        return mean if self.fit_intercept else 0 * mean

    def held_out_mean(self, targets: TargetRows, fold: int) -> Array:
        """What is subtracted from held-out targets, float64."""
        if self._centre_held_out:
            return targets.mean(self.parts.test[fold])
        return self.target_mean(targets, self.parts.train[fold])

    def _centre(self, counts: Counts) -> Array:
        return self._mean(counts) if self.fit_intercept else 0 * self._means[0]

    def _held_out_centre(self, fold: int) -> Array:
        if self._centre_held_out:
            return self._mean(self.parts.test[fold])
        return self._centre(self.parts.train[fold])

    def _mean(self, counts: Counts) -> Array:
        weights = self.parts.sizes * counts
        return as_like(weights / max(weights.sum(), 1), self._means) @ self._means

    def _blocks_about(
        self, counts: Counts, mean: Array
    ) -> Iterator[tuple[slice, Array]]:
        """Rows of a fold less ``mean``, float64, in blocks, and where they stand."""
        xp = namespace(self._rows)
        for _, rows, place in self.parts.places(counts):
            for start in range(0, place.stop - place.start, BLOCK):
                end = min(start + BLOCK, place.stop - place.start)
                block = self._rows[rows.start + start : rows.start + end]
                where = slice(place.start + start, place.start + end)
                yield where, xp.astype(block, xp.float64) - mean

    def _cast(self, values: Array) -> Array:
        return namespace(values).astype(values, self._rows.dtype, copy=False)

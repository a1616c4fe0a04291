"""A batch of targets on its way through the folds of a ridge in eigenbases."""

from dataclasses import dataclass, field

from neuromm.kernels.arrays import Array, namespace
from neuromm.kernels.row_parts import Counts, TargetRows

__all__ = ["EigenBatch", "FoldSide", "FoldTargets"]


@dataclass(frozen=True)
class FoldSide:
    """A linear projection of targets on modes, over the rows of a fold.

    Attributes
    ----------
    weights : array
        Applied to cross-products, of shape (n_features, rank), or with ``shift`` below,
        (n_features + n_parts, rank); else to rows, (n_rows, rank).
    shift : array of shape (rank, n_parts) or None
        Applied to the means of parts, if it is not a part of the weights.
    counts : integer array of shape (n_parts,)
    by_cross : bool
        Targets enter by cross-products.
    """

    weights: Array
    shift: Array | None
    counts: Counts
    by_cross: bool

    def project(self, targets: TargetRows, cross: Array | None, centre: Array) -> Array:
        """Projection of targets less ``centre``, of shape (rank, n_targets).

        Parameters
        ----------
        targets : TargetRows
        cross : array of shape (n_features + n_parts, n_targets) or None
            Sum over the parts of X'Y, each about its own means, with room for means of
            targets below.
        centre : array of shape (n_targets,), float64
        """
        if not self.by_cross:
            return self.weights.T @ targets.moved(self.counts, centre)
        if cross is None:
            raise ValueError("the cross-products of this batch have been used up")
        offset = namespace(cross).astype(targets.means - centre, cross.dtype)
        n_features = cross.shape[0] - offset.shape[0]
        if self.shift is not None:
            return self.weights.T @ cross[:n_features] + self.shift @ offset
        cross[n_features:] = offset
        return self.weights.T @ cross


@dataclass(frozen=True)
class FoldTargets:
    """A batch of targets in one fold.

    Attributes
    ----------
    z : array of shape (rank, n_targets)
        Training side.
    b : array of shape (rank, n_targets) or None
        Held-out side, kept where predictions are not formed row by row.
    centre : array of shape (n_targets,)
        What is subtracted from held-out targets.
    power, deviation : arrays of shape (n_targets,)
        Their sum of squares about ``centre`` and about their own mean.
    undefined : boolean array of shape (n_targets,)
        Has no score in this fold.
    """

    z: Array
    b: Array | None
    centre: Array
    power: Array
    deviation: Array
    undefined: Array


@dataclass
class EigenBatch:
    """A batch of targets, with what has been projected of it so far.

    Attributes
    ----------
    targets : TargetRows
    train, test : list of arrays of shape (n_features + n_parts, n_targets), or of None
        X'Y of both sides of each fold, where targets enter by them. They are given up
        as folds are projected, so a batch passes through the folds once.
    everything : array of shape (n_features + n_parts, n_targets) or None
        X'Y of all rows.
    scores : array of shape (n_fractions, n_targets) or None
        Of fractions (`neuromm.kernels.ridge_fractions`).
    """

    targets: TargetRows
    train: list[Array | None]
    test: list[Array | None]
    everything: Array | None
    folds: list[FoldTargets] = field(default_factory=list)
    scores: Array | None = None

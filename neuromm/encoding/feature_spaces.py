"""Several feature spaces as one matrix: a mapping of arrays, or columns of an array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from neuromm.core import UsageError
from neuromm.encoding.estimator_checks import checked_matrix
from neuromm.kernels.arrays import Array, as_like, is_device_array, namespace

__all__ = ["SpaceLayout", "holds_spaces", "stacked_spaces"]


@dataclass(frozen=True)
class SpaceLayout:
    """Where feature spaces stand.

    Attributes
    ----------
    names : tuple of str
    slices : tuple of slice
        Columns of each space, side by side.
    order : integer array of shape (n_features,) or None
        Column of the features as they are given at each of these; None where they
        are the same.
    """

    names: tuple[str, ...]
    slices: tuple[slice, ...]
    order: NDArray[np.intp] | None = None

    @classmethod
    def of_sizes(cls, sizes: Mapping[Any, int]) -> "SpaceLayout":
        """Layout of spaces that are stacked in this order."""
        ends = np.cumsum(list(sizes.values()))
        starts = [0, *ends[:-1]]
        slices = tuple(
            slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True)
        )
        return cls(tuple(str(name) for name in sizes), slices)

    @classmethod
    def of_columns(
        cls, spaces: Mapping[Any, Any] | None, n_features: int
    ) -> "SpaceLayout":
        """Layout of columns of one matrix.

        Parameters
        ----------
        spaces : mapping from name to slice, indices or boolean mask; or None
            None is one space of all columns.
        n_features : int

        Raises
        ------
        neuromm.core.UsageError
            If a column is in no space or in two.
        """
        if spaces is None:
            return cls.of_sizes({"features": n_features})
        if not isinstance(spaces, Mapping) or not spaces:
            raise UsageError(
                "spaces must map names to columns, such as {'vision': slice(0, 512), "
                f"'language': slice(512, 812)}}, got {spaces!r}"
            )
        every = np.arange(n_features)
        columns = {name: _columns(name, which, every) for name, which in spaces.items()}
        order = np.concatenate(list(columns.values()))
        counts = np.bincount(order, minlength=n_features)
        if (counts != 1).any():
            wrong = np.flatnonzero(counts != 1)
            raise UsageError(
                f"every column of X must be in exactly one space, but {len(wrong)} of "
                f"{n_features} are not: column {wrong[0]} is in {counts[wrong[0]]}"
            )
        layout = cls.of_sizes({name: len(one) for name, one in columns.items()})
        if (order == every).all():
            return layout
        return cls(layout.names, layout.slices, order)

    @property
    def n_features(self) -> int:
        """Columns of all spaces."""
        return int(self.slices[-1].stop)

    def side_by_side(self, x: Array) -> Array:
        """Columns of a matrix in the order of spaces."""
        if self.order is None:
            return x
        return namespace(x).take(x, as_like(self.order, x), axis=1)

    def as_given(self, rows: Array) -> Array:
        """Rows, one a feature, in the order in which columns are given."""
        if self.order is None:
            return rows
        back = as_like(np.argsort(self.order), rows)
        return namespace(rows).take(rows, back, axis=0)

    def in_order(self, X: Mapping[Any, Any]) -> dict[str, Any]:
        """Arrays of a mapping in the order of these spaces.

        Raises
        ------
        neuromm.core.UsageError
            If other spaces are given.
        """
        given = {str(name): value for name, value in X.items()}
        if set(given) != set(self.names):
            raise UsageError(
                f"X must hold the feature spaces of the fit, {', '.join(self.names)}, "
                f"got {', '.join(given)}"
            )
        return {name: given[name] for name in self.names}


def holds_spaces(X: Any) -> bool:
    """Tell whether features are a mapping of spaces rather than a matrix."""
    # A sparse matrix of keys is a dictionary too.
    return isinstance(X, Mapping) and not hasattr(X, "shape")


def stacked_spaces(X: Mapping[Any, Any]) -> tuple[Array, SpaceLayout]:
    """Feature spaces side by side, in one precision.

    Parameters
    ----------
    X : mapping from name to array of shape (n_samples, n_features_of_space)
        All of one library.

    Returns
    -------
    x : array of shape (n_samples, n_features)
        A copy, unless there is one space.
    layout : SpaceLayout

    Raises
    ------
    neuromm.core.UsageError
        If there is no space.
    ValueError
        If a space is not a matrix of finite numbers, or rows differ.
    """
    if not X:
        raise UsageError("X must hold one feature space at least, got an empty mapping")
    arrays = {str(name): _matrix(str(name), value) for name, value in X.items()}
    rows = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(
            "feature spaces must have one row per sample: inconsistent numbers of "
            f"samples, got {rows}"
        )
    layout = SpaceLayout.of_sizes(
        {name: int(array.shape[1]) for name, array in arrays.items()}
    )
    stacked: Sequence[Array] = list(arrays.values())
    if len(stacked) == 1:
        return stacked[0], layout
    xp = namespace(*stacked)
    dtype = xp.result_type(*stacked)
    return xp.concat(
        [xp.astype(one, dtype, copy=False) for one in stacked], axis=1
    ), layout


def _matrix(name: str, value: Any) -> Array:
    if is_device_array(value):
        return checked_matrix(name, value)
    return check_array(
        value, dtype=[np.float64, np.float32], input_name=name, ensure_min_samples=1
    )


def _columns(name: Any, which: Any, every: NDArray[np.intp]) -> NDArray[np.intp]:
    try:
        columns = every[which if isinstance(which, slice) else np.asarray(which)]
    except IndexError as error:
        raise UsageError(
            f"space {name!r} names columns that X, with {len(every)}, does not have: "
            f"{error}"
        ) from error
    if columns.ndim != 1 or not columns.size:
        raise UsageError(f"space {name!r} must name one column at least, got {which!r}")
    return columns

"""Where the results of a fit go, batch by batch: memory, or a checkpoint on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from neuromm.encoding.fit_checkpoint import FitCheckpoint, fit_settings
from neuromm.encoding.ridge_batches import Fitted
from neuromm.encoding.ridge_engines import RidgeSettings
from neuromm.encoding.target_sources import target_source
from neuromm.kernels.arrays import (
    Array,
    empty,
    host_array,
    is_device_array,
    is_numpy,
)

__all__ = ["FitResults", "MemoryResults", "StoredResults", "stored_results"]


class FitResults(Protocol):
    """Results of batches of targets, and what each batch adds to sums over targets."""

    def place(self, columns: slice) -> Array | None:
        """Where the weights of a batch may be made, (n_features, width)."""

    def store(self, columns: slice, fitted: Fitted, sums: Sequence[float] = ()) -> None:
        """Keep a batch."""

    def arrays(self) -> dict[str, Array]:
        """All targets."""

    def sums(self) -> list[Sequence[float]]:
        """Sums of all batches, in the order of targets."""


class MemoryResults:
    """Results in memory, of the library of the targets.

    Parameters
    ----------
    settings : RidgeSettings
    y : array of shape (n_samples, n_targets), or what `target_source` takes
        Results for targets on disk, or on the host beside features of a GPU, are
        NumPy's.
    """

    def __init__(self, settings: RidgeSettings, y: Any) -> None:
        self._on_host = is_numpy(settings.x) or not is_device_array(y)
        self._arrays: dict[str, Array] = {}
        self._sums: dict[int, Sequence[float]] = {}
        self._n_targets = settings.n_targets
        if is_numpy(settings.x):
            shape = (settings.x.shape[1], self._n_targets)
            self._arrays["coef"] = _unfilled(shape, settings.x)

    def place(self, columns: slice) -> Array | None:
        """Where the weights of a batch may be made."""
        if "coef" not in self._arrays or not is_numpy(self._arrays["coef"]):
            return None
        return self._arrays["coef"][:, columns]

    def store(self, columns: slice, fitted: Fitted, sums: Sequence[float] = ()) -> None:
        """Keep a batch."""
        self._sums[columns.start] = sums
        for name, values in fitted.items():
            if self._on_host:
                values = host_array(values)
            if name not in self._arrays:
                shape = (*values.shape[:-1], self._n_targets)
                self._arrays[name] = _unfilled(shape, values)
            place = self._arrays[name][..., columns]
            if not (self._on_host and np.may_share_memory(values, place)):
                place[...] = values

    def arrays(self) -> dict[str, Array]:
        """All targets."""
        return self._arrays

    def sums(self) -> list[Sequence[float]]:
        """Sums of all batches, in the order of targets."""
        return [self._sums[start] for start in sorted(self._sums)]


class StoredResults:
    """Results in a checkpoint."""

    def __init__(self, checkpoint: FitCheckpoint) -> None:
        self._checkpoint = checkpoint

    def pending(self) -> list[slice]:
        """Batches that are still to be computed."""
        return self._checkpoint.pending()

    def place(self, columns: slice) -> None:
        """Nowhere: a batch is stored whole."""

    def store(self, columns: slice, fitted: Fitted, sums: Sequence[float] = ()) -> None:
        """Keep a batch."""
        values = {name: host_array(values) for name, values in fitted.items()}
        self._checkpoint.store(columns, values, sums)

    def arrays(self) -> dict[str, Array]:
        """All targets, read-only."""
        with self._checkpoint:
            return self._checkpoint.arrays()

    def sums(self) -> list[Sequence[float]]:
        """Sums of all batches, in the order of targets."""
        return self._checkpoint.sums()


def stored_results(
    folder: Path,
    settings: RidgeSettings,
    y: Any,
    width: int,
    *,
    described: Mapping[str, Any],
    arrays: Mapping[str, tuple[tuple[int, ...], Any]],
) -> StoredResults:
    """Results in a folder, which may hold finished batches of the same fit.

    Parameters
    ----------
    folder : Path
    settings : RidgeSettings
    y : array of shape (n_samples, n_targets), or what `target_source` takes
    width : int
        Targets of a batch.
    described : mapping
        What changes numbers beside ``settings``.
    arrays : mapping of str to (leading axes, dtype)
        Results; the targets are their last axis.

    Raises
    ------
    neuromm.core.UsageError
        If the folder holds another fit.
    """
    from neuromm import __version__

    told = fit_settings(
        host_array(settings.x),
        settings.alphas,
        settings.splits,
        target_source(host_array(y) if is_device_array(y) else y),
    )
    told |= {
        "scoring": settings.scoring,
        "fit_intercept": settings.fit_intercept,
        "neuromm": __version__,
        **described,
    }
    n_targets = settings.n_targets
    whole = {
        name: ((*leading, n_targets), dtype)
        for name, (leading, dtype) in arrays.items()
    }
    return StoredResults(FitCheckpoint(folder, told, whole, n_targets, width))


def _unfilled(shape: tuple[int, ...], like: Array) -> Array:
    """Array that takes memory as it is filled along its last axis, where it can."""
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype=like.dtype, order="F")
    return empty(shape, like)

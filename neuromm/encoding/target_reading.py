"""Batches of targets where the work is done, read ahead of it.

Targets that lie on disk, or on the host while the features lie on a GPU, are read by a
second thread while the batch before is fitted.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from neuromm.core import UsageError
from neuromm.encoding.splitters import Split
from neuromm.encoding.target_sources import target_source
from neuromm.kernels.arrays import (
    Array,
    as_like,
    host_array,
    is_device_array,
    is_numpy,
    is_on_gpu,
    namespace,
)
from neuromm.kernels.ridge_modes import Scoring

__all__ = ["TargetReader", "scorable_targets"]


class TargetReader:
    """Targets of any kind, in batches of the library and precision of the features.

    Parameters
    ----------
    y : array of shape (n_samples, n_targets) or `TargetSource`
    x : array of shape (n_samples, n_features)

    Attributes
    ----------
    shape : (int, int)
    chunk : int
        Columns that are stored together.
    """

    def __init__(self, y: Any, x: Array) -> None:
        self._x = x
        self._in_memory = is_device_array(y) or (
            isinstance(y, np.ndarray) and not isinstance(y, np.memmap)
        )
        self._y: Any = y if self._in_memory else target_source(y)
        self.shape: tuple[int, int] = (int(y.shape[0]), int(y.shape[1]))
        self.chunk = 1 if self._in_memory else self._y.chunk

    @property
    def reads_ahead(self) -> bool:
        """Whether one more batch is in memory than is fitted."""
        return not self._in_memory or (is_numpy(self._y) and not is_numpy(self._x))

    def batches(self, columns: Sequence[slice]) -> Iterator[tuple[slice, Array]]:
        """Batches of adjacent columns, of shape (n_samples, width)."""
        if not self.reads_ahead:
            for one in columns:
                yield one, self._read(one)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for one, following in zip(columns, [*columns[1:], None], strict=True):
                part = self._read(one) if ahead is None else ahead.result()
                ahead = None
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield one, part

    def _read(self, columns: slice) -> Array:
        x = self._x
        part = self._y[:, columns] if self._in_memory else self._y.read(columns)
        if is_numpy(part) and not is_numpy(x):
            part = _sent(part, x)
        elif is_numpy(x):
            part = host_array(part)
        return namespace(part).astype(part, x.dtype, copy=False)


def scorable_targets(
    y: Any, x: Array, splits: Sequence[Split], scoring: Scoring
) -> TargetReader:
    """Targets of a cross-validation that can score them.

    Parameters
    ----------
    y : array of shape (n_samples, n_targets), or what `target_source` takes
    x : array of shape (n_samples, n_features)
    splits : sequence of (train, test)
    scoring : {"r2", "correlation", "mse"}

    Raises
    ------
    neuromm.core.UsageError
        If there is no target, or no fold holds out enough samples for the score.
    """
    if scoring != "mse" and max(len(test) for _, test in splits) < 2:
        raise UsageError(
            f"scoring={scoring!r} needs folds with at least 2 held-out samples. Leave "
            "out blocks, or take scoring='mse'."
        )
    targets = TargetReader(y, x)
    if targets.shape[1] < 1:
        raise UsageError(f"y has no targets: its shape is {targets.shape}")
    return targets


def _sent(part: Array, x: Array) -> Array:
    """Copy a batch of the host to the device of ``x``, through pinned memory."""
    dtype = np.float64 if x.dtype == namespace(x).float64 else np.float32
    part = np.ascontiguousarray(part, dtype=dtype)
    if not is_on_gpu(x):
        return as_like(part, x)
    # A stream of its own lets the copy run beside the work on the batch before; it has
    # ended when the batch is handed over.
    if hasattr(x, "is_cuda"):
        import torch

        pinned = torch.from_numpy(part).pin_memory()
        stream = torch.cuda.Stream(x.device)
        with torch.cuda.stream(stream):
            sent = pinned.to(x.device, non_blocking=True)
        stream.synchronize()
        sent.record_stream(torch.cuda.default_stream(x.device))
        return sent
    import cupy
    import cupyx

    pinned = cupyx.empty_pinned(part.shape, dtype=dtype)
    pinned[...] = part
    with x.device, cupy.cuda.Stream(non_blocking=True) as stream:
        sent = cupy.asarray(pinned)
        stream.synchronize()
    return sent

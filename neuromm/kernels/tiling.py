"""Slices whose products are made, used and dropped one after the other."""

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["full_precision", "panels", "tiles"]

_TILE_ROWS, _TILE_COLUMNS = 512, 2048  # 4 MB in float32
# A panel that stays in the cache of a core is passed over several times at its speed.
_PANEL_BYTES = 2**20
_MIN_ROWS = 16  # fewer would starve the products


def tiles(
    n_rows: int, n_columns: int, shape: tuple[int, int] | None = None
) -> Iterator[tuple[slice, slice]]:
    """Slices of rows and columns, one row of tiles after the other.

    Parameters
    ----------
    n_rows, n_columns : int
    shape : tuple of two ints, optional
        Of a tile, smaller than the default where many are held at a time.
    """
    height, width = shape or (_TILE_ROWS, _TILE_COLUMNS)
    for rows in _slices(n_rows, height):
        for columns in _slices(n_columns, width):
            yield rows, columns


def panels(
    n_rows: int, n_columns: int, itemsize: int, n_bytes: int | None = None
) -> Iterator[slice]:
    """Slices of rows, of which a panel of rows by all columns takes some bytes.

    Parameters
    ----------
    n_rows, n_columns : int
    itemsize : int
        Bytes of a number.
    n_bytes : int, optional
        Of a panel; by default what stays in the cache of a core.
    """
    allowed = _PANEL_BYTES if n_bytes is None else n_bytes
    return _slices(n_rows, max(_MIN_ROWS, allowed // max(1, n_columns * itemsize)))


def full_precision(device: torch.device) -> Any:
    """Context without autocast, which would round logits to half precision."""
    return torch.autocast(device_type=device.type, enabled=False)


def _slices(n_rows: int, height: int) -> Iterator[slice]:
    for start in range(0, n_rows, height):
        yield slice(start, min(start + height, n_rows))

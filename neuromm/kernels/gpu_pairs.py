"""CUDA kernels of pairs of rows: `pair_stats.cu`, `pair_grad.cu` and `small_pairs.cu`.

They take tiles of products, which a library of matrices makes, and give log-sum-exp of
rows and columns, sums over positives, and the slopes of the products. Arrays are torch
tensors on a CUDA device or CuPy arrays; results are of the same library, on its current
stream. No number comes back to the host. What the tiles add up to, and gradients, are
in `neuromm.kernels.gpu_pair_tiles`; the definition is in `neuromm.kernels.pair_tiles`.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from neuromm.kernels.arrays import Array
from neuromm.kernels.gpu_launch import (
    Launch,
    beside,
    dtype_name,
    empty,
    launch,
    leading_dimension,
    require_gpu,
    row_major,
)

__all__ = [
    "COUNTS",
    "LOG_SUMS",
    "POSITIVES",
    "SHIFT",
    "SUM",
    "PairTotals",
    "Pairs",
    "Side",
    "Upstream",
    "pair_grad_launch",
    "pair_merge_launch",
    "pair_slopes",
    "pair_stats_launch",
    "small_pair_sums",
    "small_pairs_launch",
]

# Of pairs.cuh: rows of results, and of the parts that pair_stats writes.
SHIFT, SUM, POSITIVES, COUNTS, LOG_SUMS = range(5)
RESULTS, PARTS = 5, 4
# Of a block: rows and columns in pair_stats.cu and pair_grad.cu; lines, which are rows
# or columns, in small_pairs.cu.
WARP, WARPS, ROWS, COLUMNS, LINES = 32, 8, 64, 128, 32
_MERGE_THREADS = 128
_MATCHINGS = {"none": 0, "place": 1, "label": 2}
_GRAD_KERNELS = {
    "float32": "pair_grad_f32",
    "bfloat16": "pair_grad_bf16",
    "float16": "pair_grad_f16",
}


@dataclass(frozen=True)
class Side:
    """What is known of the rows of one side, n of them.

    Attributes
    ----------
    inverse_lengths : array of shape (n,), optional
        By which products are multiplied to be cosines; by default they are cosines.
    labels : array of int of shape (n,), optional
    present : array of bool of shape (n,), optional
        Rows that are there: pairs of others are not counted, and not read.
    """

    inverse_lengths: Array | None = None
    labels: Array | None = None
    present: Array | None = None


@dataclass(frozen=True)
class Pairs:
    """Logits are ``scale`` times cosines; which pairs are there and belong together.

    Attributes
    ----------
    scale : array of shape (), float32
        On the device.
    left, right : Side
    matching : {"none", "place", "label"}
        Whether row i and column i are positives, or those of equal labels.
    """

    scale: Array
    left: Side = field(default_factory=Side)
    right: Side = field(default_factory=Side)
    matching: str = "none"

    def __post_init__(self) -> None:
        if self.matching not in _MATCHINGS:
            raise ValueError(
                f"matching must be one of {sorted(_MATCHINGS)}, got {self.matching!r}"
            )
        labelled = self.left.labels is not None and self.right.labels is not None
        if self.matching == "label" and not labelled:
            raise ValueError("positives by label need the labels of both sides")

    def arguments(self, like: Array) -> list[Array | None]:
        """Inverse lengths, labels and presence of both sides, as kernels take them."""
        dtypes = {"inverse_lengths": "float32", "labels": "int64", "present": "bool"}
        return [
            _vector(getattr(side, name), like, dtype)
            for name, dtype in dtypes.items()
            for side in (self.left, self.right)
        ]

    @property
    def code(self) -> np.uint32:
        """``matching`` as the kernels number it."""
        return np.uint32(_MATCHINGS[self.matching])


class Upstream(NamedTuple):
    """Gradients for what the sums gave, of each row and of each column.

    ``grad`` is of log_sums, ``share`` of the sums of positives, None where there are
    none.
    """

    grad_left: Array
    grad_right: Array
    share_left: Array | None = None
    share_right: Array | None = None


def pair_stats_launch(n_rows: int, n_columns: int) -> Launch:
    """Launch of pair_stats over a tile; sizes are 1 or more."""
    return _tile_launch("pair_stats", "pair_stats", n_rows, n_columns)


def pair_grad_launch(n_rows: int, n_columns: int, dtype: str) -> Launch:
    """Launch of pair_grad over a tile, whose slopes are of a dtype."""
    return _tile_launch("pair_grad", _GRAD_KERNELS[dtype], n_rows, n_columns)


def pair_merge_launch(n_rows: int, n_columns: int) -> Launch:
    """Launch of pair_merge after a tile."""
    return Launch(
        "contrastive/pair_stats.cu",
        "pair_merge",
        (-(-(n_rows + n_columns) // _MERGE_THREADS), 1, 1),
        (_MERGE_THREADS, 1, 1),
    )


def small_pairs_launch(n_left: int, n_right: int) -> Launch:
    """Launch of small_pairs over a whole matrix."""
    return Launch(
        "contrastive/small_pairs.cu",
        "small_pairs",
        (-(-n_left // LINES) + -(-n_right // LINES), 1, 1),
        (WARP, LINES, 1),
    )


def small_pair_sums(products: Array, pairs: Pairs) -> tuple[Array, Array]:
    """Results of all rows and columns of a matrix, in one launch.

    Parameters
    ----------
    products : array of shape (n_left, n_right), float32
    pairs : Pairs

    Returns
    -------
    rows : array of shape (5, n_left), float32
        Line LOG_SUMS holds log sum_j exp(logit), -inf where no pair is counted, SHIFT
        and SUM what it is made of. POSITIVES and COUNTS hold the sum of the cosines of
        the positives and their number, if pairs match at all.
    columns : array of shape (5, n_right), float32

    Raises
    ------
    TypeError
        If the products are not float32 or do not lie on a GPU.
    """
    products = _checked(products)
    n_left, n_right = products.shape
    rows = empty((RESULTS, n_left), "float32", products)
    columns = empty((RESULTS, n_right), "float32", products)
    launch(
        small_pairs_launch(n_left, n_right),
        [
            products,
            leading_dimension(products),
            pairs.scale,
            *pairs.arguments(products),
            rows,
            columns,
            np.uint64(n_left),
            np.uint64(n_right),
            pairs.code,
        ],
        products,
    )
    return rows, columns


class PairTotals:
    """Results of rows and columns of a matrix whose products come tile by tile.

    Tiles come one row of tiles after the other, and each once. Their order is that of
    the sums, so that results are the same to the last bit.

    Parameters
    ----------
    n_left, n_right : int
        Rows and columns of the matrix.
    pairs : Pairs
    bound : array of shape (), float32
        On the device; no logit is larger in size. Up to 60, a logit needs one
        exponential, beyond it two.
    """

    def __init__(self, n_left: int, n_right: int, pairs: Pairs, bound: Array) -> None:
        self.pairs, self.bound = pairs, bound
        like = pairs.scale
        self._rows = empty((PARTS, n_left), "float64", like)
        self._columns = empty((PARTS, n_right), "float64", like)
        self.rows = empty((RESULTS, n_left), "float32", like)
        self.columns = empty((RESULTS, n_right), "float32", like)
        self._known = pairs.arguments(like)

    def add(self, products: Array, first_row: int, first_column: int) -> None:
        """Count a tile, of float32, that starts at a row and a column."""
        products = _checked(products)
        n_rows, n_columns = products.shape
        geometry = pair_stats_launch(n_rows, n_columns)
        n_row_parts, n_column_parts = geometry.grid[:2]
        of_rows = empty((n_row_parts, PARTS, n_rows), "float32", products)
        of_columns = empty((n_column_parts, PARTS, n_columns), "float32", products)
        places = [np.uint64(first_row), np.uint64(first_column)]
        sizes = [np.uint64(n_rows), np.uint64(n_columns)]
        launch(
            geometry,
            [
                products,
                leading_dimension(products),
                self.pairs.scale,
                self.bound,
                *self._known,
                of_rows,
                of_columns,
                *places,
                *sizes,
                self.pairs.code,
            ],
            products,
        )
        sides = (
            (of_rows, self._rows, self.rows, first_row, first_column),
            (of_columns, self._columns, self.columns, first_column, first_row),
        )
        arguments: list[Any] = []
        for parts, state, results, first, others in sides:
            arguments += [parts, state, results, np.uint64(parts.shape[0])]
            arguments += [np.uint64(first), np.uint64(parts.shape[2])]
            arguments += [np.uint64(state.shape[1]), np.uint32(others == 0)]
        arguments.append(self.pairs.code)
        launch(pair_merge_launch(n_rows, n_columns), arguments, products)


def pair_slopes(
    products: Array,
    pairs: Pairs,
    bound: Array,
    results: tuple[Array, Array],
    upstream: Upstream,
    first: tuple[int, int] = (0, 0),
    out: Array | None = None,
    out_dtype: str = "float32",
    gain: Array | None = None,
) -> Array:
    """Slopes of a tile of products: its gradient, in place or beside.

    Parameters
    ----------
    products : array of shape (n_rows, n_columns), float32
    pairs : Pairs
    bound : array of shape (), float32
        As it was for the sums; infinite after `small_pair_sums`.
    results : tuple of two arrays
        Rows and columns, of the whole matrix.
    upstream : Upstream
    first : tuple of two ints
        Row and column of the matrix at which the tile starts.
    out : array of shape (n_rows, n_columns), optional
        Where slopes go; the products, in place, by default.
    out_dtype : {"float32", "bfloat16", "float16"}
        How they are rounded. ``out`` is an array of int16 for half precision, which
        not every library has.
    gain : array of shape (), optional
        Slopes are multiplied by it, against underflow in half precision.

    Returns
    -------
    out : array
    """
    products = _checked(products)
    out = products if out is None else out
    held = "float32" if out_dtype == "float32" else "int16"
    if dtype_name(out) != held or tuple(out.shape) != tuple(products.shape):
        raise TypeError(
            f"slopes of {out_dtype} go to an array of {held} and of shape "
            f"{tuple(products.shape)}, got {dtype_name(out)} and {tuple(out.shape)}"
        )
    n_rows, n_columns = products.shape
    rows, columns = results
    launch(
        pair_grad_launch(n_rows, n_columns, out_dtype),
        [
            products,
            leading_dimension(products),
            out,
            leading_dimension(out),
            pairs.scale,
            bound,
            gain,
            rows,
            columns,
            *(_vector(one, products, "float32") for one in upstream),
            *pairs.arguments(products),
            np.uint64(first[0]),
            np.uint64(first[1]),
            np.uint64(n_rows),
            np.uint64(n_columns),
            np.uint64(rows.shape[1]),
            np.uint64(columns.shape[1]),
            pairs.code,
        ],
        products,
    )
    return out


def _tile_launch(source: str, kernel: str, n_rows: int, n_columns: int) -> Launch:
    return Launch(
        f"contrastive/{source}.cu",
        kernel,
        (-(-n_columns // COLUMNS), -(-n_rows // ROWS), 1),
        (WARP, WARPS, 1),
    )


def _checked(products: Array) -> Array:
    require_gpu(products)
    if dtype_name(products) != "float32" or products.ndim != 2:
        raise TypeError(
            "products must be a matrix of float32, got "
            f"{dtype_name(products)} of shape {tuple(products.shape)}"
        )
    return row_major(products)


def _vector(values: Array | None, like: Array, dtype: str) -> Array | None:
    return None if values is None else beside(values, like, dtype)

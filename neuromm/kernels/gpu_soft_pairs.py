"""CUDA kernels of soft targets: `cuda/contrastive/soft_target.cu`, from Python.

Arrays are torch tensors on a CUDA device or CuPy arrays; results are of the same
library, on its current stream. `neuromm.kernels.soft_pairs` has the definition and
puts the pieces together: `add_panel` for each panel of whole rows of the products;
then, from what `columns_of` makes of the state, `panel_slopes`.
"""

import numpy as np

from neuromm.kernels.arrays import Array, namespace
from neuromm.kernels.gpu_launch import (
    Launch,
    dtype_name,
    empty,
    launch,
    leading_dimension,
    require_gpu,
)

__all__ = [
    "add_panel",
    "columns_launch",
    "columns_of",
    "merge_launch",
    "panel_rows",
    "panel_slopes",
    "rows_launch",
    "slopes_launch",
    "start_columns",
]

_SOURCE = "contrastive/soft_target.cu"
_SUFFIX = {"float32": "f32", "float64": "f64"}

# Of soft_target.cu: threads of a row; columns, threads that share one and rows of a
# block of columns; numbers that are known of a row and of a column.
THREADS, COLUMNS, SPLITS, ROWS = 256, 32, 8, 64
ROW_STATS, COLUMN_STATS = 6, 3
_MERGE_THREADS = 128

PANEL = 2**23  # products: 33 MB in float32
_MIN_ROWS = 128  # fewer would starve a matrix product


def panel_rows(n_columns: int) -> int:
    """Rows of a panel, by the size alone, so that results never change."""
    return max(_MIN_ROWS, PANEL // max(1, n_columns))


def rows_launch(n_rows: int, dtype: str) -> Launch:
    """Launch of soft_target_rows; sizes are 1 or more."""
    name = f"soft_target_rows_{_SUFFIX[dtype]}"
    return Launch(_SOURCE, name, (n_rows, 1, 1), (THREADS, 1, 1))


def columns_launch(n_rows: int, n_columns: int, dtype: str) -> Launch:
    """Launch of soft_target_columns."""
    name = f"soft_target_columns_{_SUFFIX[dtype]}"
    grid = -(-n_columns // COLUMNS), -(-n_rows // ROWS), 1
    return Launch(_SOURCE, name, grid, (COLUMNS, SPLITS, 1))


def merge_launch(n_columns: int) -> Launch:
    """Launch of soft_target_merge."""
    grid = -(-n_columns // _MERGE_THREADS), 1, 1
    return Launch(_SOURCE, "soft_target_merge", grid, (_MERGE_THREADS, 1, 1))


def slopes_launch(n_rows: int, dtype: str) -> Launch:
    """Launch of soft_target_slopes."""
    name = f"soft_target_slopes_{_SUFFIX[dtype]}"
    return Launch(_SOURCE, name, (n_rows, 1, 1), (THREADS, 1, 1))


def start_columns(n_columns: int, like: Array) -> Array:
    """State of the columns before the first panel: shape (3, n_columns), float64."""
    state = empty((COLUMN_STATS, n_columns), "float64", like)
    state[0] = -np.inf
    state[1:] = 0.0
    return state


def add_panel(
    products: Array, similarity: Array, scale: Array, target_scale: Array, state: Array
) -> Array:
    """Statistics of the rows of a panel, and its share in those of the columns.

    Parameters
    ----------
    products : array of shape (n_rows, n_columns)
        Of gene with image, float32 or float64, columns next to each other.
    similarity : array of the same shape, precision and strides
        Products of image with image plus those of gene with gene.
    scale, target_scale : arrays of shape () or (1,)
        In the precision of ``products``: logits are scale * products, those of targets
        target_scale * similarity / 2.
    state : array of shape (3, n_columns), float64
        Highest logit, sum of exp(logit - highest) and sum of targets of each column:
        of `start_columns`; this panel is added.

    Returns
    -------
    rows : array of shape (6, n_rows), float64
        Highest logit, 1 / sum of exp(logit - highest), both again for targets, mean
        logit under the targets, log-sum-exp of logits.

    Raises
    ------
    TypeError
        If the arrays do not lie on one GPU, or not in one precision.
    ValueError
        If shapes or strides differ.
    """
    dtype = _checked(products, similarity, scale, target_scale)
    n_rows, n_columns = products.shape
    sizes = [np.uint64(n_rows), np.uint64(n_columns)]
    rows = empty((ROW_STATS, n_rows), "float64", products)
    given = [products, similarity, leading_dimension(products), scale, target_scale]
    launch(rows_launch(n_rows, dtype), [*given, rows, *sizes], products)
    geometry = columns_launch(n_rows, n_columns, dtype)
    n_parts = geometry.grid[1]
    parts = empty((n_parts, COLUMN_STATS, n_columns), "float64", products)
    launch(geometry, [*given, rows, parts, *sizes], products)
    arguments = [parts, state, np.uint64(n_columns), np.uint64(n_parts)]
    launch(merge_launch(n_columns), arguments, products)
    return rows


def columns_of(state: Array, dtype: str) -> Array:
    """What slopes need of the columns, once all panels are in their state.

    Returns
    -------
    columns : array of shape (3, n_columns)
        Highest logit, sum of targets over sum of exp(logit - highest), log-sum-exp.
    """
    xp = namespace(state)
    top, total, weight = state[0], state[1], state[2]
    columns = xp.stack([top, weight / total, top + xp.log(total)])
    return xp.astype(columns, getattr(xp, dtype))


def panel_slopes(
    products: Array,
    similarity: Array,
    scale: Array,
    target_scale: Array,
    rows: Array,
    columns: Array,
    factor: Array,
    *,
    attached: bool = True,
    in_place: bool = True,
) -> tuple[Array, Array, Array]:
    """Gradients of ``factor`` times the sum of both cross-entropies by the products.

    Parameters
    ----------
    products, similarity, scale, target_scale
        As for `add_panel`.
    rows, columns
        Of `add_panel` and `columns_of`.
    factor : array of shape () or (1,)
        In the precision of ``products``.
    attached : bool
        Whether targets have gradients.
    in_place : bool
        Whether results take the place of products and similarity.

    Returns
    -------
    of_products, of_similarity : arrays of shape (n_rows, n_columns)
        The second is similarity itself, unchanged, unless ``attached``.
    of_scales : array of shape (2, n_rows), float64
        Gradients by scale and target_scale, row by row.
    """
    dtype = _checked(products, similarity, scale, target_scale, factor, columns)
    n_rows, n_columns = products.shape
    of_products, of_similarity = products, similarity
    if not in_place:
        of_products = empty((n_rows, n_columns), dtype, products)
        if attached:
            of_similarity = empty((n_rows, n_columns), dtype, products)
    if leading_dimension(of_products) != leading_dimension(products):
        raise ValueError(
            "results that are not in place need products without gaps between rows"
        )
    of_scales = empty((2, n_rows), "float64", products)
    arguments = [products, similarity, of_products, of_similarity if attached else None]
    arguments += [leading_dimension(products), scale, target_scale, factor, rows]
    arguments += [columns, of_scales, np.uint64(n_rows), np.uint64(n_columns)]
    launch(slopes_launch(n_rows, dtype), arguments, products)
    return of_products, of_similarity, of_scales


def _checked(products: Array, similarity: Array, *others: Array) -> str:
    """Precision of a panel whose arrays fit each other."""
    require_gpu(products, similarity, *others)
    dtype = dtype_name(products)
    found = [dtype, *(dtype_name(one) for one in (similarity, *others))]
    if dtype not in _SUFFIX or set(found) != {dtype}:
        raise TypeError(
            "products, similarity and scales must all be float32 or all be float64, "
            f"got {', '.join(found)}"
        )
    shapes = tuple(products.shape), tuple(similarity.shape)
    if shapes[0] != shapes[1] or not all(shapes[0]):
        raise ValueError(
            "products and similarity must have one shape (n_rows, n_columns) without a "
            f"0, got {shapes[0]} and {shapes[1]}"
        )
    if leading_dimension(products) != leading_dimension(similarity):
        raise ValueError(
            "rows of products and similarity must be equally far apart in memory, got "
            f"{leading_dimension(products)} and {leading_dimension(similarity)} numbers"
        )
    return dtype

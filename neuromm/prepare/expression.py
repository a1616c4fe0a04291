"""Counts of genes at spots become expression: a panel, library size, logarithm.

References
----------
Gene-DML and TRIPLEX restrict to a panel first and normalise by what is left, with
log10(x + 1) or ln(x + 1): errors differ by factors of 2.3 (MAE) and 5.3 (MSE), and
correlations do not. So the base is a part of the result.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.core.spot_grid import GridKind

__all__ = ["expression", "neighbours", "smoothed"]

LogBase = Literal["e", "2", "10"]
_LOGARITHMS = {"e": 1.0, "2": np.log(2.0), "10": np.log(10.0)}

# Steps to neighbours on the array, in rows and columns.
_STEPS = {
    "st": [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)],
    "visium": [(0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1)],
}


def expression(
    adata: Any,
    genes: Sequence[str] | None = None,
    *,
    library: Literal["panel", "all"] = "panel",
    target_sum: float = 1e4,
    log_base: LogBase = "e",
) -> Any:
    """Normalise counts by the library size of each spot, and take the logarithm.

    Parameters
    ----------
    adata : anndata.AnnData
        Raw counts; not changed. A backed one is read for the genes that are wanted.
    genes : sequence of str, optional
        The panel, in the order wanted; all genes if not given.
    library : {"panel", "all"}
        What a spot's counts are summed over: the panel, as published for Gene-DML and
        TRIPLEX, or all genes.
    target_sum : float
        Counts that each spot is brought to.
    log_base : {"e", "2", "10"}
        Of log(1 + x).

    Returns
    -------
    normalised : anndata.AnnData
        Dense float32 ``X`` of shape (n_spots, n_genes), 0 for a spot without counts;
        ``obs``, ``obsm`` and ``uns`` as given; ``uns["neuromm"]["expression"]`` says
        how it was made.

    Raises
    ------
    UsageError
        If a gene is not there or comes twice; the message names it.
    DataError
        If counts are not whole numbers of 0 or above.
    """
    import anndata

    if log_base not in _LOGARITHMS:
        raise UsageError(f"log_base must be 'e', '2' or '10', got {log_base!r}")
    if not target_sum > 0:
        raise UsageError(f"target_sum must be above 0, got {target_sum}")
    names = list(adata.var_names if genes is None else genes)
    counts = _dense(adata[:, _positions(adata, names)])
    _check_counts(counts)
    sums = counts.sum(axis=1, keepdims=True)
    if library == "all" and genes is not None:
        everything = adata.to_memory() if adata.isbacked else adata
        sums = np.asarray(everything.X.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    elif library not in ("panel", "all"):
        raise UsageError(f"library must be 'panel' or 'all', got {library!r}")
    scaled = counts * (target_sum / np.where(sums > 0, sums, 1.0))
    values = np.log1p(scaled) / _LOGARITHMS[log_base]
    made = anndata.AnnData(
        values.astype(np.float32),
        obs=adata.obs.copy(),
        var=adata.var.loc[names].copy(),
        obsm={name: np.array(value) for name, value in adata.obsm.items()},
        uns=dict(adata.uns),
    )
    made.uns["neuromm"] = dict(made.uns.get("neuromm", {})) | {
        "expression": {
            "library": library,
            "target_sum": float(target_sum),
            "log_base": log_base,
            "smoothed": False,
        }
    }
    return made


def neighbours(
    array_row: Sequence[int] | NDArray[Any],
    array_col: Sequence[int] | NDArray[Any],
    kind: GridKind,
) -> Any:
    """Which spots touch on the array.

    Parameters
    ----------
    array_row, array_col : integer arrays of shape (n_spots,)
    kind : {"visium", "st"}
        Hexagonal: six neighbours, two columns along a row or one up or down. Square:
        the eight others of a block of 3 x 3.

    Returns
    -------
    touching : scipy.sparse.csr_array of shape (n_spots, n_spots)
        1 for neighbours; the diagonal is 0.

    Raises
    ------
    DataError
        If two spots have one place.
    """
    from scipy.sparse import csr_array

    if kind not in _STEPS:
        raise UsageError(f"kind must be one of {', '.join(_STEPS)}, got {kind!r}")
    rows, columns = np.asarray(array_row, int), np.asarray(array_col, int)
    places = {
        place: number
        for number, place in enumerate(
            zip(rows.tolist(), columns.tolist(), strict=True)
        )
    }
    if len(places) < len(rows):
        raise DataError(
            f"{len(rows) - len(places)} spots share their place on the array with "
            "another one. Are several sections in one table?"
        )
    pairs = [
        (number, places[row + down, column + across])
        for (row, column), number in places.items()
        for down, across in _STEPS[kind]
        if (row + down, column + across) in places
    ]
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    shape = (len(rows), len(rows))
    return csr_array((np.ones(len(pairs)), (first, second)), shape=shape)


def smoothed(adata: Any, kind: GridKind) -> Any:
    """Mean of each spot with its neighbours on the array.

    Published evaluations smooth targets, those of the test too, without saying so:
    correlations rise. Smooth what a model is trained on, if you like; judge it on
    targets as they are.

    Parameters
    ----------
    adata : anndata.AnnData
        As `expression` gives it, with ``array_row`` and ``array_col``; not changed.
    kind : {"visium", "st"}
        See `neighbours`.

    Returns
    -------
    smooth : anndata.AnnData
        ``uns["neuromm"]["expression"]["smoothed"]`` is True.
    """
    from scipy.sparse import eye_array

    touching = neighbours(adata.obs["array_row"], adata.obs["array_col"], kind)
    block = touching + eye_array(touching.shape[0])
    made = adata.copy()
    values = block @ np.asarray(adata.X, dtype=np.float64)
    made.X = (values / block.sum(axis=1)[:, None]).astype(np.float32)
    record = dict(made.uns.get("neuromm", {}))
    record["expression"] = dict(record.get("expression", {})) | {"smoothed": True}
    made.uns["neuromm"] = record
    return made


def _positions(adata: Any, names: Sequence[str]) -> NDArray[np.intp]:
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise UsageError(f"genes come twice in the panel: {', '.join(twice[:5])}")
    found = adata.var_names.get_indexer(list(names))
    lacking = [name for name, place in zip(names, found, strict=True) if place < 0]
    if lacking:
        raise UsageError(
            f"{len(lacking)} of {len(names)} genes of the panel were not measured: "
            f"{', '.join(lacking[:5])}. Are names symbols in one and identifiers in "
            "the other?"
        )
    positions: NDArray[np.intp] = found
    return positions


def _dense(adata: Any) -> NDArray[np.float64]:
    values = (adata.to_memory() if adata.isbacked else adata).X
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values, dtype=np.float64)


def _check_counts(counts: NDArray[np.float64]) -> None:
    if np.isfinite(counts).all() and (counts >= 0).all() and not (counts % 1).any():
        return
    raise DataError(
        "counts must be whole numbers of 0 or above. These have been normalised "
        "already, or are damaged: look for raw counts in adata.raw or adata.layers"
    )

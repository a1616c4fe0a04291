"""Which row of a file belongs to which spot: by names, or by places, never by order."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError

__all__ = ["array_places", "pixel_places", "spot_rows"]

# Corners of patches are cut to whole pixels.
_ROUNDING_PX = 2.0
# Fewer places are moved onto each other by some shift, whatever they are.
_FEWEST_TO_SHIFT = 3


def array_places(adata: Any, section: str) -> NDArray[np.int64]:
    """Row and column of each spot in its array.

    Raises
    ------
    DataError
        If there are no spots, or they have no whole row and column.
    """
    lacking = [name for name in ("array_row", "array_col") if name not in adata.obs]
    if lacking or not adata.n_obs:
        _refuse(section, [f'obs["{name}"]' for name in lacking])
    stated = adata.obs[["array_row", "array_col"]].to_numpy(np.float64)
    if not np.isfinite(stated).all() or (stated != np.rint(stated)).any():
        raise DataError(f"{section}: array_row and array_col must be whole numbers")
    places: NDArray[np.int64] = stated.astype(np.int64)
    return places


def pixel_places(adata: Any, section: str) -> NDArray[np.float64]:
    """Centre of each spot, x first, in pixels of the full-resolution picture.

    Raises
    ------
    DataError
        If there are no spots, or they have no places.
    """
    if "spatial" not in adata.obsm or not adata.n_obs:
        _refuse(section, ['obsm["spatial"]'] if adata.n_obs else [])
    places = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    if places.shape != (adata.n_obs, 2) or not np.isfinite(places).all():
        raise DataError(f"{section}: obsm['spatial'] must be finite, x and y a spot")
    return places


def spot_rows(
    adata: Any,
    path: Path,
    *,
    section: str,
    names: NDArray[np.str_] | None,
    coords: NDArray[np.float64] | None,
) -> NDArray[np.intp]:
    """Row of a file for each spot of a section.

    Parameters
    ----------
    adata : anndata.AnnData
    path : Path
        For messages.
    section : str
    names : array of shape (n_rows,), optional
        Those of spots. They decide; ``coords`` must then agree, up to one shift.
    coords : array of shape (n_rows, 2), optional
        x and y in pixels of the full-resolution picture: of centres, or of one corner
        of all patches.

    Returns
    -------
    rows : int array of shape (n_spots,)

    Raises
    ------
    DataError
        If a spot has no row or two, a row has no spot, or nothing tells.
    """
    if names is not None:
        rows = _rows_by_name(np.asarray(adata.obs_names, dtype=str), names, path)
        if coords is not None and "spatial" in adata.obsm:
            _check_agreement(coords[rows], pixel_places(adata, section), path)
        return rows
    if coords is None:
        raise DataError(
            "has neither names (barcode) nor coords: which row belongs to which spot "
            "cannot be known from the order. Store the names of spots beside the "
            "vectors",
            path,
        )
    return _rows_by_place(adata, section, coords, path)


def _rows_by_name(
    spots: NDArray[np.str_], names: NDArray[np.str_], path: Path
) -> NDArray[np.intp]:
    row_of = {name: row for row, name in enumerate(names.tolist())}
    if len(row_of) != len(names):
        once, counts = np.unique(names, return_counts=True)
        raise DataError(f"holds the spot {once[counts > 1][0]} twice", path)
    wanted = spots.tolist()
    lacking = [name for name in wanted if name not in row_of]
    present = set(wanted)
    extra = [name for name in row_of if name not in present]
    _check_complete(lacking, extra, len(wanted), path)
    return np.array([row_of[name] for name in wanted], dtype=np.intp)


def _rows_by_place(
    adata: Any, section: str, coords: NDArray[np.float64], path: Path
) -> NDArray[np.intp]:
    places = pixel_places(adata, section)
    tolerance = _half_pitch(places)
    spot_of, is_near = _nearest(coords, places, tolerance)
    if len(coords) == len(places) >= _FEWEST_TO_SHIFT and not _is_pairing(
        spot_of, is_near
    ):
        # Two sets of places lie on each other by one shift at most.
        shift = coords.mean(axis=0) - places.mean(axis=0)
        shifted = _nearest(coords - shift, places, min(tolerance, _ROUNDING_PX))
        if _is_pairing(*shifted):
            spot_of, is_near = shifted
    spots = np.asarray(adata.obs_names, dtype=str)
    extra = [f"{x:g} {y:g}" for x, y in coords[~is_near].tolist()]
    counts = np.bincount(spot_of[is_near], minlength=len(places))
    lacking = spots[counts == 0].tolist()
    _check_complete(lacking, extra, len(spots), path, f" within {tolerance:.4g} pixels")
    if (counts > 1).any():
        raise DataError(
            f"holds two rows within {tolerance:.4g} pixels of the spot "
            f"{spots[counts > 1][0]}: keep one row a spot",
            path,
        )
    return np.argsort(spot_of)


def _check_complete(
    lacking: list[str], extra: list[str], n_spots: int, path: Path, near: str = ""
) -> None:
    if not lacking and not extra:
        return
    found = []
    if lacking:
        found.append(f"{len(lacking)} of {n_spots} spots, such as {lacking[0]}, have "
                     f"no row{near}")  # fmt: skip
    if extra:
        found.append(f"{len(extra)} rows, such as {extra[0]}, have no spot{near}")
    raise DataError(
        f"{' and '.join(found)}: is it of this section? Where spots were left out when "
        "the file was made, or since, leave out the same: adata[kept].copy()",
        path,
    )


def _check_agreement(
    coords: NDArray[np.float64], places: NDArray[np.float64], path: Path
) -> None:
    """Names that are the same on every chip, as barcodes are, need not be proof."""
    offset = coords - places
    far = np.hypot(*(offset - np.median(offset, axis=0)).T).max()
    tolerance = _half_pitch(places)
    if far >= tolerance:
        raise DataError(
            f"names and coords contradict each other: beside one shift of all, a row "
            f"lies {far:.4g} pixels from the spot of its name, expected less than "
            f"{tolerance:.4g}. Is it of another section, or in pixels of a smaller "
            "picture?",
            path,
        )


def _nearest(
    coords: NDArray[np.float64], places: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Nearest spot of each row, and whether it is nearer than ``tolerance``."""
    from scipy.spatial import KDTree

    distance, spot = KDTree(places).query(coords)
    return spot.astype(np.intp), distance < tolerance


def _is_pairing(spot_of: NDArray[np.intp], is_near: NDArray[np.bool_]) -> bool:
    return bool(is_near.all() and len(np.unique(spot_of)) == len(spot_of))


def _half_pitch(places: NDArray[np.float64]) -> float:
    """Half of the smallest distance between spots: nearer, a place is of one alone."""
    from scipy.spatial import KDTree

    if len(places) < 2:
        return _ROUNDING_PX
    return float(KDTree(places).query(places, k=2)[0][:, 1].min()) / 2


def _refuse(section: str, lacking: list[str]) -> None:
    raise DataError(
        f"{section}: has {'no ' + ', '.join(lacking) if lacking else 'no spots'}. "
        "Load the section with neuromm.io.spatial.load"
    )

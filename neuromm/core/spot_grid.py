"""Arrays of spots: where they lie on their chip, in micrometres, and on the picture.

The pitch of a chip is known from how it is made, so the positions of spots in pixels
tell how large a pixel is, and whether rows and columns have been swapped.

References
----------
Stahl et al. (2016) Visualization and analysis of gene expression in tissue sections by
spatial transcriptomics. Science 353:78-82 (spots 200 um apart on a square grid).
10x Genomics, Visium spatial gene expression (100 um apart, hexagonal; the columns of a
row are numbered by twos).
Umeyama (1991) Least-squares estimation of transformation parameters between two point
patterns. IEEE Trans. Pattern Anal. Mach. Intell. 13:376-380.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core.errors import UsageError

__all__ = [
    "SPOT_DIAMETER_UM",
    "GridFit",
    "GridKind",
    "chip_positions",
    "fitted_grid",
    "microns_per_pixel",
]

GridKind = Literal["visium", "st"]

# Micrometres of a column and of a row.
_STEPS_UM = {"visium": (50.0, 50.0 * np.sqrt(3)), "st": (200.0, 200.0)}

SPOT_DIAMETER_UM = {"visium": 55.0, "st": 100.0}


@dataclass(frozen=True)
class GridFit:
    """A similarity that takes pixels to micrometres on the chip.

    Attributes
    ----------
    microns_per_pixel : float
    rotation_deg : float
        From the x axis of the picture to that of the chip.
    is_mirrored : bool
        The picture shows the chip from behind, or x and y of the spots are swapped.
    residual_um : array of shape (n_spots,)
        Distance of each spot from its place on the chip.
    """

    microns_per_pixel: float
    rotation_deg: float
    is_mirrored: bool
    residual_um: NDArray[np.float64]


def chip_positions(
    array_row: ArrayLike, array_col: ArrayLike, kind: GridKind
) -> NDArray[np.float64]:
    """Places of spots on their chip.

    Parameters
    ----------
    array_row, array_col : integer arrays of shape (n_spots,)
    kind : {"visium", "st"}

    Returns
    -------
    positions : array of shape (n_spots, 2)
        x (along a row) and y, in micrometres.
    """
    if kind not in _STEPS_UM:
        raise UsageError(f"kind must be one of {', '.join(_STEPS_UM)}, got {kind!r}")
    across, down = _STEPS_UM[kind]
    return np.column_stack(
        [
            across * np.asarray(array_col, dtype=np.float64),
            down * np.asarray(array_row, dtype=np.float64),
        ]
    )


def fitted_grid(
    array_row: ArrayLike, array_col: ArrayLike, spatial: ArrayLike, kind: GridKind
) -> GridFit:
    """Fit the places of spots in pixels to those on their chip.

    Parameters
    ----------
    array_row, array_col : integer arrays of shape (n_spots,)
    spatial : array of shape (n_spots, 2)
        x and y in pixels.
    kind : {"visium", "st"}

    Returns
    -------
    fit : GridFit

    Raises
    ------
    neuromm.core.UsageError
        If there are fewer than three spots, or all lie on one line.
    """
    chip = chip_positions(array_row, array_col, kind)
    pixels = np.asarray(spatial, dtype=np.float64)
    chip, pixels = chip - chip.mean(axis=0), pixels - pixels.mean(axis=0)
    u, s, vt = np.linalg.svd(pixels.T @ chip)
    if len(chip) < 3 or s[1] <= 1e-9 * s[0]:
        raise UsageError(
            "the scale of a picture takes at least three spots that are not on one "
            f"line, got {len(chip)}"
        )
    turn = u @ vt
    scale = float(s.sum() / (pixels**2).sum())
    return GridFit(
        microns_per_pixel=scale,
        rotation_deg=float(np.rad2deg(np.arctan2(turn[0, 1], turn[0, 0]))),
        is_mirrored=bool(np.linalg.det(turn) < 0),
        residual_um=np.hypot(*(scale * pixels @ turn - chip).T),
    )


def microns_per_pixel(adata: Any) -> float:
    """Size of a pixel of the full-resolution picture, in micrometres.

    Parameters
    ----------
    adata : anndata.AnnData
        As `neuromm.io.spatial.load` gives it, with one library.

    Raises
    ------
    UsageError
        If it does not say so.
    """
    libraries = adata.uns.get("spatial", {})
    sizes = {
        float(library["scalefactors"]["microns_per_pixel"])
        for library in libraries.values()
        if "microns_per_pixel" in library.get("scalefactors", {})
    }
    if len(sizes) != 1:
        raise UsageError(
            "the size of a pixel is not known: expected one "
            'uns["spatial"][name]["scalefactors"]["microns_per_pixel"], got '
            f"{sorted(sizes) or 'none'}. Load the section with neuromm.io.spatial.load"
        )
    return sizes.pop()

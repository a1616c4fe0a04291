"""Places on a slide that has no spots: a square grid over its tissue."""

from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, UsageError
from neuromm.core.picture import Picture
from neuromm.prepare.tissue import TissueMask

__all__ = ["dense_grid"]

_MOST_PLACES = 200_000


def dense_grid(
    slide: Picture, tissue: TissueMask, *, pitch_um: float = 100.0, name: str = "slide"
) -> Any:
    """Lay a square grid over the tissue of a slide.

    Parameters
    ----------
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it.
    tissue : TissueMask
        Of the slide.
    pitch_um : float
        Between neighbours along rows and columns.
    name : str
        Of the library in ``uns["spatial"]``.

    Returns
    -------
    places : anndata.AnnData
        Without genes; ``obsm["spatial"]``, ``obs["array_row"]`` and
        ``obs["array_col"]`` as `neuromm.io.spatial.load` has them, rows down and
        columns across, the centre of the slide between the middle ones.

    Raises
    ------
    UsageError
        If the pitch is not above 0, or there would be more than 200,000 places.
    DataError
        If no place lies on tissue.
    """
    import anndata

    if not pitch_um > 0:
        raise UsageError(f"pitch_um must be above 0, got {pitch_um}")
    step = pitch_um / slide.microns_per_pixel
    n_across, n_down = (
        max(int(side // step), 1) for side in (slide.width, slide.height)
    )
    if n_across * n_down > _MOST_PLACES:
        raise UsageError(
            f"a grid of {pitch_um:g} um has {n_across} x {n_down} places, more than "
            f"{_MOST_PLACES:,}: take a wider one"
        )
    x = slide.width / 2 + (np.arange(n_across) - (n_across - 1) / 2) * step
    y = slide.height / 2 + (np.arange(n_down) - (n_down - 1) / 2) * step
    rows, columns = (axis.ravel() for axis in np.mgrid[:n_down, :n_across])
    places = np.column_stack([x[columns], y[rows]])
    kept = tissue.holds(places)
    if not kept.any():
        raise DataError(
            f"{name}: no place of a grid of {pitch_um:g} um lies on tissue. Is the "
            "slide stained, and is the size of its pixels right?"
        )
    rows, columns, places = rows[kept], columns[kept], places[kept]
    made = anndata.AnnData(
        obs=pd.DataFrame(
            {"array_row": rows, "array_col": columns, "in_tissue": 1},
            index=[f"{c}x{r}" for r, c in zip(rows, columns, strict=True)],
        )
    )
    made.obsm["spatial"] = places
    made.uns["spatial"] = {
        name: {
            "images": {},
            "scalefactors": {
                "microns_per_pixel": float(slide.microns_per_pixel),
                "spot_diameter_fullres": float(step),
            },
            "metadata": {},
        }
    }
    return made

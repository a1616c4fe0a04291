"""Volume maps: on the glass brain in MNI space, as slices in any other space."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.report.figures.canvas import (
    BAR_PLACE,
    Picture,
    canvas,
    colour_bar,
    colour_map,
    png,
    said,
    style,
)

__all__ = ["glass_brain", "mosaic"]

_N_SLICES = 12


def glass_brain(
    image: Any,
    limits: tuple[float, float],
    *,
    name: str,
    note: str = "",
    measure: str = "r",
) -> Picture:
    """Highest score along each line of sight, in the outlines of the MNI brain.

    Parameters
    ----------
    image : nibabel image, 3-D, in MNI space
        Scores; nan is not shown.
    limits : (float, float)
        Ends of the colour bar; a negative lower end draws signed values.
    name : str
        What is shown, such as ``"vision"``.
    note : str
        Ends the caption: what was masked.
    measure : str
        What the values are; "r" is Pearson's.
    """
    import nibabel as nib
    from nilearn import plotting

    signed = limits[0] < 0
    values = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    if not signed:
        values = np.maximum(values, 0)
    cmap = colour_map(signed=signed)
    with style():
        figure = canvas(9.6, 2.5, constrained=False)
        with warnings.catch_warnings():
            # A map without any score is drawn as an empty brain, which is meant.
            warnings.filterwarnings("ignore", "empty mask")
            plotting.plot_glass_brain(
                nib.Nifti1Image(values, image.affine),
                figure=figure,
                axes=(0.0, 0.0, 0.9, 1.0),
                display_mode="lyrz",
                plot_abs=False,
                vmin=limits[0],
                vmax=limits[1],
                cmap=cmap,
                threshold=1e-6,  # 0 is background
                colorbar=False,
            )
        colour_bar(figure, limits, said(measure), place=BAR_PLACE, cmap=cmap)
        return Picture(
            png(figure),
            f"Glass brain from the left, behind, the right and above: {measure} of "
            f"{name}, highest {_number(values.max())}.",
            f"{name}: highest {measure} along the line of sight. {note}".strip(),
        )


def mosaic(
    image: Any,
    limits: tuple[float, float],
    *,
    name: str,
    note: str = "",
    measure: str = "r",
) -> Picture:
    """Axial slices on the grid of the image, from its bottom to its top.

    For images outside of MNI space: no template is drawn under them.

    Parameters
    ----------
    image : nibabel image, 3-D
        Scores; nan is grey where the slice holds values, and white elsewhere.
    limits, name, note, measure
        As for `glass_brain`.
    """
    import nibabel as nib

    canonical = nib.as_closest_canonical(image)
    values = np.asarray(canonical.dataobj, dtype=np.float32)
    heights, slices = _slices(values, canonical.affine)
    n_columns = min(6, len(slices))
    n_rows = -(-len(slices) // n_columns)
    cmap = colour_map(signed=limits[0] < 0)
    with style():
        figure = canvas(9.6, 1.75 * n_rows + 0.1)
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        zooms = canonical.header.get_zooms()
        for axes in grid.ravel():
            axes.set_axis_off()
        for axes, height, plane in zip(grid.ravel(), heights, slices, strict=False):
            axes.imshow(
                plane.T,
                origin="lower",
                cmap=cmap,
                vmin=limits[0],
                vmax=limits[1],
                interpolation="nearest",
                aspect=zooms[1] / zooms[0],
            )
            axes.set_title(f"z = {height:.0f} mm", fontsize=8, pad=2)
        for text, x, align in (("L", 0.02, "left"), ("R", 0.98, "right")):
            grid[0, 0].text(
                x, 0.98, text, transform=grid[0, 0].transAxes, va="top", ha=align
            )
        colour_bar(figure, limits, said(measure), axes=grid, cmap=cmap)
        return Picture(
            png(figure),
            f"{len(slices)} axial slices of {measure} of {name}, highest "
            f"{_number(float(np.nanmax(values, initial=0)))}.",
            f"{name}: axial slices in the subject's own space, left is left. "
            f"{note}".strip(),
        )


def _slices(
    values: NDArray[np.float32], affine: NDArray[np.floating]
) -> tuple[list[float], list[NDArray[np.float32]]]:
    """Evenly spaced axial slices that hold values, cropped to them."""
    filled = np.isfinite(values) & (values != 0)
    if not filled.any():
        filled = np.ones_like(filled)
    spans = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(filled.any(axis=others))
        spans.append(slice(where[0], where[-1] + 1))
    indices = np.arange(spans[2].start, spans[2].stop)
    # The outermost slices hold next to nothing.
    places = np.linspace(0.06, 0.94, _N_SLICES) * (len(indices) - 1)
    chosen = indices[np.unique(places.round().astype(int))]
    cropped = values[spans[0], spans[1]]
    heights = [float(affine[2, 2] * k + affine[2, 3]) for k in chosen]
    return heights, [cropped[:, :, k] for k in chosen]


def _number(value: float) -> str:
    return f"{float(value):.2f}"

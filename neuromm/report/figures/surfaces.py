"""Maps on the inflated fsaverage5 surface, which nilearn ships."""

from collections.abc import Mapping
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

__all__ = ["N_VERTICES", "surface_map", "volume_on_surface"]

N_VERTICES = 10_242  # of fsaverage5, a hemisphere
_SIDES = {"L": "left", "R": "right"}
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # from white matter to pia
_VIEWS = (("L", "lateral"), ("L", "medial"), ("R", "medial"), ("R", "lateral"))


def surface_map(
    values: Mapping[str, NDArray[np.floating]],
    limits: tuple[float, float],
    *,
    name: str,
    note: str = "",
    measure: str = "r",
) -> Picture:
    """Both hemispheres from outside and inside.

    Parameters
    ----------
    values : mapping of "L" and "R" to array of shape (10242,)
        Scores on fsaverage5; nan and, unless signed, values up to 0 show the folds.
    limits : (float, float)
        Ends of the colour bar; a negative lower end draws signed values.
    name, note : str
        What is shown, and the end of the caption.
    measure : str
        What the values are; "r" is Pearson's.
    """
    from nilearn import plotting

    signed = limits[0] < 0
    cmap = colour_map(signed=signed)
    mesh = _fsaverage5()
    with style():
        figure = canvas(9.6, 2.0, constrained=False)
        for i, (side, view) in enumerate(_VIEWS):
            axes = figure.add_axes((0.225 * i, -0.08, 0.23, 1.1), projection="3d")
            shown = np.asarray(values[side], dtype=float)
            if not signed:
                shown = np.where(shown > 0, shown, np.nan)
            plotting.plot_surf(
                mesh[f"infl_{_SIDES[side]}"],
                np.clip(shown, *limits),
                bg_map=_folds(mesh[f"sulc_{_SIDES[side]}"]),
                hemi=_SIDES[side],
                view=view,
                engine="matplotlib",
                cmap=cmap,
                vmin=limits[0],
                vmax=limits[1],
                alpha=1.0,
                bg_on_data=False,
                colorbar=False,
                axes=axes,
                figure=figure,
            )
            axes.set_box_aspect(None, zoom=1.35)
            axes.set_title(f"{_SIDES[side]}, {view}", y=0.9, fontsize=8)
        colour_bar(figure, limits, said(measure), place=BAR_PLACE, cmap=cmap)
        highest = np.nanmax([np.nanmax(v, initial=0) for v in values.values()])
        return Picture(
            png(figure),
            f"Inflated cortex, left and right, from outside and inside: {measure} of "
            f"{name}, highest {highest:.2f}.",
            f"{name}, on the inflated surface of fsaverage5. {note}".strip(),
        )


def volume_on_surface(image: Any) -> dict[str, NDArray[np.floating]]:
    """Scores of a volume in MNI space, averaged across the depth of cortex.

    Each vertex of fsaverage5 takes the mean over the voxels on the way from the white
    to the pial surface. fsaverage is MNI305, some mm off MNI152: a picture, no measure.

    Parameters
    ----------
    image : nibabel image, 3-D
        nan is left out of the mean.

    Returns
    -------
    values : dict of "L" and "R" to array of shape (10242,)
        nan where no voxel on the way has a value.
    """
    from nilearn.surface import load_surf_mesh

    volume = np.asarray(image.dataobj, dtype=np.float32)
    mesh = _fsaverage5()
    values = {}
    for side, name in _SIDES.items():
        white = load_surf_mesh(mesh[f"white_{name}"]).coordinates
        pial = load_surf_mesh(mesh[f"pial_{name}"]).coordinates
        depths = [white + depth * (pial - white) for depth in _DEPTHS]
        found = np.stack([_nearest(volume, image.affine, xyz) for xyz in depths])
        n_found = np.isfinite(found).sum(axis=0)
        total = np.nansum(found, axis=0)
        values[side] = np.where(n_found, total / np.maximum(n_found, 1), np.nan)
    return values


def _folds(sulc: str) -> NDArray[np.floating]:
    """Depth of the folds in pale greys, which leave dark to the scores."""
    from nilearn.surface import load_surf_data

    depth = load_surf_data(sulc)
    low, high = depth.min(), depth.max()
    return np.asarray(0.1 + 0.3 * (depth - low) / (high - low))


def _nearest(
    volume: NDArray[np.float32],
    affine: NDArray[np.floating],
    xyz: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Value of the voxel at each place (mm), nan outside of the grid."""
    inverse = np.linalg.inv(affine)
    voxels = np.rint(xyz @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((voxels >= 0) & (voxels < volume.shape)).all(axis=1)
    values = np.full(len(xyz), np.nan)
    values[inside] = volume[tuple(voxels[inside].T)]
    return values


def _fsaverage5() -> Any:
    from nilearn.datasets import fetch_surf_fsaverage

    return fetch_surf_fsaverage("fsaverage5")  # lies in nilearn: no download

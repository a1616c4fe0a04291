"""Contacts and vertices on the inflated fsaverage5 surface, which nilearn ships."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.report.figures.surfaces import N_VERTICES

__all__ = ["VIEWS", "Cortex", "cortex", "draw_surface", "nearest_vertices", "shown_in"]

_SIDES = {"L": "left", "R": "right"}

# Hemisphere, view, and which way along x it is seen from.
VIEWS = (
    ("L", "lateral", -1.0),
    ("L", "medial", 1.0),
    ("R", "medial", -1.0),
    ("R", "lateral", 1.0),
)


class Cortex:
    """Meshes of one hemisphere of fsaverage5, 10,242 vertices.

    Attributes
    ----------
    inflated, middle : arrays of shape (10242, 3)
        Places in mm; ``middle`` lies half way between white matter and pia.
    normals : array of shape (10242, 3)
        Unit vectors out of the inflated surface.
    folds : array of shape (10242,)
        Depth of the folds as pale greys, which leave dark to the data.
    mesh : str
        File of the inflated surface.
    """

    def __init__(self, side: str) -> None:
        from nilearn.datasets import fetch_surf_fsaverage
        from nilearn.surface import load_surf_data, load_surf_mesh

        files = fetch_surf_fsaverage("fsaverage5")  # lies in nilearn: no download
        name = _SIDES[side]
        self.mesh = files[f"infl_{name}"]
        inflated = load_surf_mesh(self.mesh)
        self.inflated = np.asarray(inflated.coordinates, dtype=float)
        self.middle = (
            np.asarray(load_surf_mesh(files[f"white_{name}"]).coordinates, dtype=float)
            + load_surf_mesh(files[f"pial_{name}"]).coordinates
        ) / 2
        self.normals = _normals(self.inflated, np.asarray(inflated.faces))
        depth = load_surf_data(files[f"sulc_{name}"])
        self.folds = 0.1 + 0.3 * (depth - depth.min()) / (depth.max() - depth.min())


@lru_cache(maxsize=2)
def cortex(side: str) -> Cortex:
    """Meshes of the hemisphere ``"L"`` or ``"R"``."""
    return Cortex(side)


def nearest_vertices(xyz: NDArray[np.floating]) -> pd.DataFrame:
    """Nearest vertex of cortex to each place.

    Parameters
    ----------
    xyz : array of shape (n_points, 3)
        mm in MNI space. fsaverage is MNI305, some mm off MNI152: a picture, no measure.

    Returns
    -------
    nearest : DataFrame
        ``hemi``, ``vertex`` and ``distance_mm``, from the middle of cortex.
    """
    from scipy.spatial import KDTree

    found = {side: KDTree(cortex(side).middle).query(xyz) for side in _SIDES}
    distances = np.stack([found[side][0] for side in _SIDES])
    vertices = np.stack([found[side][1] for side in _SIDES])
    nearer = distances.argmin(axis=0)
    each = np.arange(len(nearer))
    return pd.DataFrame(
        {
            "hemi": np.array(list(_SIDES), dtype=object)[nearer],
            "vertex": vertices[nearer, each],
            "distance_mm": distances[nearer, each],
        }
    )


def draw_surface(
    figure: Any,
    place: tuple[float, float, float, float],
    values: Mapping[str, NDArray[np.floating]] | None = None,
    *,
    cmap: Any = None,
    limits: tuple[float, float] = (0.0, 1.0),
    categories: bool = False,
) -> list[Any]:
    """Draw both hemispheres from outside and inside.

    Parameters
    ----------
    figure : Figure
    place : (left, bottom, width, height)
        In parts of the figure.
    values : mapping of "L" and "R" to array of shape (10242,), optional
        nan shows the folds; so does everything if not given.
    cmap, limits
        Colours of the values, and the ends of the scale.
    categories : bool
        Whether values are numbers of categories, which have no mean.

    Returns
    -------
    axes : list of Axes3D
        In the order of `VIEWS`; what is drawn over the surface needs a zorder above 1.
    """
    from nilearn import plotting

    left, bottom, width, height = place
    drawn = []
    for number, (side, view, _) in enumerate(VIEWS):
        axes = figure.add_axes(
            (left + number * width / 4, bottom, width / 4, height), projection="3d"
        )
        axes.computed_zorder = False
        plotting.plot_surf(
            cortex(side).mesh,
            # Without a map nilearn lights the mesh, which hides the folds.
            _nothing() if values is None else values[side],
            bg_map=cortex(side).folds,
            hemi=_SIDES[side],
            view=view,
            engine="matplotlib",
            cmap=cmap,
            vmin=limits[0],
            vmax=limits[1],
            avg_method="median" if categories else None,
            alpha=1.0,
            bg_on_data=False,
            colorbar=False,
            axes=axes,
            figure=figure,
        )
        axes.set_box_aspect(None, zoom=1.5)
        axes.set_title(f"{_SIDES[side]}, {view}", y=0.92, fontsize=8)
        for faces in axes.collections:
            faces.set_rasterized(True)  # 20,480 polygons make an SVG that none opens
        drawn.append(axes)
    return drawn


def shown_in(
    side: str, towards: float, vertices: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Whether vertices face a viewer who looks along x.

    Parameters
    ----------
    side : {"L", "R"}
    towards : float
        The side of x on which the viewer is, -1 or 1.
    vertices : integer array of shape (n_points,)
    """
    return np.asarray(cortex(side).normals[vertices, 0] * towards > 0)


def _nothing() -> NDArray[np.float64]:
    return np.full(N_VERTICES, np.nan)


def _normals(
    xyz: NDArray[np.floating], faces: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Unit vectors out of a closed surface at its vertices."""
    corners = xyz[faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(xyz)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], areas)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.asarray(normals / np.maximum(length, 1e-12))

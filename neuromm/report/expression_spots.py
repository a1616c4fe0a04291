"""The spots of one section as a report needs them: places, prediction, measurement."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.core.spot_grid import microns_per_pixel
from neuromm.report.expression_scores import ExpressionSectionScores
from neuromm.report.expression_settings import ExpressionSettings
from neuromm.report.figures.expression_maps import SpotPlaces

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["SectionSpots", "check_scores", "check_thumbnail"]

_UM_PER_MM = 1000.0


@dataclass(frozen=True, eq=False)
class SectionSpots:
    """The spots of one section, with their expression.

    Attributes
    ----------
    section : str
    settings : ExpressionSettings
    places : SpotPlaces
    pixel_mm : float
        Size of a pixel of full resolution.
    predicted : DataFrame of n_spots rows
        A column a gene.
    measured : DataFrame or None
        The same genes, where they were measured.
    """

    section: str
    settings: ExpressionSettings
    places: SpotPlaces
    pixel_mm: float
    predicted: pd.DataFrame
    measured: pd.DataFrame | None

    @classmethod
    def of(cls, section: str, adata: "AnnData") -> "SectionSpots":
        """Take the spots of one section, as `write_expression_page` describes them."""
        told = adata.uns.get("neuromm", {}).get("express")
        if told is None:
            raise UsageError(
                'uns["neuromm"]["express"] is not there: are these predictions of '
                "neuromm express?"
            )
        if "predicted" not in adata.layers or "spatial" not in adata.obsm:
            raise UsageError(
                'predictions need layers["predicted"] and obsm["spatial"], got layers '
                f"{sorted(adata.layers)} and obsm {sorted(adata.obsm)}"
            )
        own = np.ones(adata.n_obs, dtype=bool)
        if "section" in adata.obs:
            own = (adata.obs["section"].astype(str) == section).to_numpy()
        if not own.any():
            raise UsageError(
                f"there are no spots of the section {section}: obs tells "
                f"{', '.join(sorted(set(adata.obs.get('section', ['none'])))[:5])}"
            )
        library = _library(adata, section)
        pixel_mm = microns_per_pixel(library) / _UM_PER_MM
        x, y = np.asarray(adata.obsm["spatial"], dtype=float)[own, :2].T * pixel_mm
        names = np.asarray(adata.obs_names)[own]
        return cls(
            section=section,
            settings=ExpressionSettings.of(_smoothing(adata) | dict(told)),
            places=SpotPlaces(names, x, y, _diameter_px(library) * pixel_mm),
            pixel_mm=pixel_mm,
            predicted=_layer(adata, "predicted", own),
            measured=_layer(adata, "observed", own)
            if "observed" in adata.layers
            else None,
        )


def _smoothing(adata: "AnnData") -> dict[str, bool]:
    """Whether what was measured was smoothed, as `prepare.expression` tells it."""
    prepared = adata.uns["neuromm"].get("expression", {})
    return {"smoothed": True} if bool(prepared.get("smoothed", False)) else {}


def _library(adata: "AnnData", section: str) -> SimpleNamespace:
    """Scale factors of the section, where several sections have theirs."""
    libraries = adata.uns.get("spatial", {})
    if section in libraries:
        libraries = {section: libraries[section]}
    return SimpleNamespace(uns={"spatial": libraries})


def _diameter_px(library: SimpleNamespace) -> float:
    sizes = {
        float(one["scalefactors"]["spot_diameter_fullres"])
        for one in library.uns["spatial"].values()
        if "spot_diameter_fullres" in one.get("scalefactors", {})
    }
    if len(sizes) != 1 or not min(sizes) > 0:
        raise UsageError(
            "the size of a spot is not known: expected one "
            'uns["spatial"][name]["scalefactors"]["spot_diameter_fullres"], got '
            f"{sorted(sizes) or 'none'}"
        )
    return sizes.pop()


def _layer(adata: "AnnData", name: str, own: NDArray[np.bool_]) -> pd.DataFrame:
    values = adata.layers[name]
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    values = values[own].astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{name} expression holds nan or infinity")
    names = [str(gene) for gene in adata.var_names]
    if len(set(names)) < len(names):
        raise DataError("genes come twice in var_names: make them unique first")
    return pd.DataFrame(values, columns=names)


def check_scores(scores: ExpressionSectionScores | None, spots: SectionSpots) -> None:
    """Scores must be of this model and these genes, and something was measured.

    Raises
    ------
    UsageError
        If not.
    """
    if scores is None:
        return
    if spots.measured is None:
        raise UsageError('scores need layers["observed"], what they were computed with')
    if spots.settings.model not in scores.models:
        raise UsageError(
            f"scores must hold the model of the predictions, {spots.settings.model}, "
            f"got {', '.join(scores.models)}"
        )
    ours, theirs = set(spots.predicted), set(scores.genes["gene"].astype(str))
    if ours != theirs:
        raise UsageError(
            f"scores must be of the genes that were predicted; {len(ours - theirs)} "
            f"lack a score, {len(theirs - ours)} are not predicted, such as "
            f"{', '.join(sorted(map(str, ours ^ theirs))[:3])}"
        )


def check_thumbnail(
    thumbnail: NDArray[np.uint8] | None, scale: float, spots: SectionSpots
) -> None:
    """A picture must be RGB, and most spots lie in it.

    Raises
    ------
    UsageError
        If not.
    """
    if thumbnail is None:
        return
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise UsageError(
            "thumbnail must be uint8 of shape (height, width, 3), got "
            f"{thumbnail.dtype} of {thumbnail.shape}"
        )
    if not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"thumbnail_scale must be above 0, got {scale}")
    height, width = thumbnail.shape[:2]
    pixel_mm = spots.pixel_mm / scale
    x, y = spots.places.x_mm / pixel_mm, spots.places.y_mm / pixel_mm
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    if outside.mean() > 0.5:
        raise UsageError(
            f"{int(outside.sum())} of {len(x)} spots lie outside of the thumbnail of "
            f"{width} x {height} pixels: is thumbnail_scale {scale:g} its pixels a "
            "pixel of full resolution, and is it the picture of this section?"
        )

"""From a slide and its spots to the vectors that a model reads.

References
----------
Chung et al. (2024) TRIPLEX. CVPR (a vector of each tile of a 5 x 5 square).
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.core.files import file_digest
from neuromm.core.picture import Picture
from neuromm.core.spot_features import SpotFeatures
from neuromm.features.backbones import Backbone
from neuromm.features.feature_cache import FeatureCache, computed_in_parts
from neuromm.features.spot_places import array_places, pixel_places
from neuromm.prepare.patches import neighbourhood
from neuromm.prepare.stain import StainNormalised

__all__ = ["spot_features"]


def spot_features(
    adata: Any,
    slide: Picture,
    backbone: Backbone,
    *,
    section: str,
    patch_um: float = 112.0,
    patch_px: int = 224,
    n_tiles: int = 5,
    patch_tokens: bool = False,
    cache: FeatureCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SpotFeatures:
    """Encode the patch of each spot and the tiles around it.

    Parameters
    ----------
    adata : anndata.AnnData
        As `neuromm.io.spatial.load` gives it: ``obsm["spatial"]``, x first, in pixels
        of the full-resolution picture, ``obs["array_row"]`` and ``obs["array_col"]``.
    slide : Picture
        As `neuromm.io.slides.open_slide` gives it; read patch by patch.
    backbone : Backbone
        Of images. One of kind "stand-in" or "random twin" makes features that say so.
    section : str
        Name for tables and messages.
    patch_um : float
        Side of a patch, and of a tile, on the tissue.
    patch_px : int
        Side of the picture that the backbone is given.
    n_tiles : int
        Tiles along a side of the neighbourhood, an odd number.
    patch_tokens : bool
        Keep all tokens of a spot's own patch, not its one vector.
    cache : FeatureCache, optional
        Vectors that were computed before are read, a killed run goes on. The slide must
        then be a file.
    progress : callable of (done, total), optional
        Told how many spots are encoded.

    Returns
    -------
    features : SpotFeatures
        ``overview`` is the vector of each spot's own patch.

    Raises
    ------
    UsageError
        If the backbone is not of images, or the slide to be cached is no file.
    DataError
        If ``adata`` has no places, or a spot lies outside of the slide.

    Notes
    -----
    A vector of each tile is held, and the pictures of one spot at a time: 4 n_spots
    n_tiles ** 2 dim bytes.
    """
    if backbone.modality != "image":
        raise UsageError(
            f"spots need a backbone of images, got {backbone.name} of "
            f"{backbone.modality}"
        )
    places, grid = pixel_places(adata, section), array_places(adata, section)
    stimuli = [f"{x:.3f} {y:.3f}" for x, y in places.tolist()]
    where = dict(zip(stimuli, places, strict=True))
    done = 0

    def compute(wanted: Sequence[object]) -> dict[str, NDArray[np.float32]]:
        nonlocal done
        rows = []
        for one in wanted:
            rows.append(
                _spot(
                    slide, where[str(one)], backbone, patch_um, patch_px, n_tiles,
                    patch_tokens,
                )
            )  # fmt: skip
            done += 1
            if progress is not None:
                progress(done, len(stimuli))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    if cache is None:
        found = computed_in_parts(stimuli, compute)
    else:
        settings = {
            **backbone.attrs,
            **_slide_settings(slide),
            "microns_per_pixel": slide.microns_per_pixel,
            # One file may be opened as a picture of another size.
            "width_px": slide.width,
            "height_px": slide.height,
            "patch_um": patch_um,
            "patch_px": patch_px,
            "n_tiles": n_tiles,
            "patch_tokens": int(patch_tokens),
        }
        found = cache.computed(settings, stimuli, compute)
    mask = found["mask"].astype(bool)
    middle = n_tiles**2 // 2
    outside = np.flatnonzero(~mask[:, middle])
    if len(outside):
        raise DataError(
            f"{section}: {len(outside)} spots lie outside of the slide, such as "
            f"{adata.obs_names[outside[0]]}: is it the picture of this section, at the "
            "scale that its places are in?"
        )
    own = found["tiles"][:, middle]
    return SpotFeatures(
        section=section,
        spots=np.asarray(adata.obs_names, dtype=str),
        target=found["tokens"] if patch_tokens else own[:, None],
        neighbors=found["tiles"],
        neighbor_mask=mask,
        overview=own,
        grid=grid,
        encoder=backbone.name,
        is_stand_in=backbone.attrs["kind"] != "trained",
    )


def _spot(
    slide: Picture,
    place: NDArray[np.float64],
    backbone: Backbone,
    patch_um: float,
    patch_px: int,
    n_tiles: int,
    patch_tokens: bool,
) -> dict[str, NDArray[np.float32]]:
    """Vectors of the tiles around one spot; those outside of the slide are 0."""
    # A spot at a time: on a CPU the tiles of ten spots together took as long, or up to
    # twice as long (HER2ST A1), and none is shared by two spots at 112 um.
    pictures, inside = neighbourhood(
        slide, place, size_um=patch_um, size_px=patch_px, n_tiles=n_tiles
    )
    vectors = np.zeros((len(pictures), backbone.dim), dtype=np.float32)
    if inside.any():
        vectors[inside] = backbone.embed(list(pictures[inside]))
    row = {"tiles": vectors, "mask": inside.astype(np.float32)}
    if patch_tokens:
        row["tokens"] = backbone.tokens([pictures[len(pictures) // 2]])[0].values
    return row


def _slide_settings(slide: Picture) -> dict[str, str]:
    """What tells one slide, in the colours it is shown in, from another."""
    if isinstance(slide, StainNormalised):
        stains = np.concatenate(
            [
                [*fit.vectors.flat, *fit.strongest]
                for fit in (slide.source, slide.target)
            ]
        )
        digest = hashlib.sha256(stains.tobytes()).hexdigest()
        return {**_slide_settings(slide.slide), "stains_sha256": digest}
    path = getattr(slide, "path", None)
    if path is None:
        raise UsageError("a cache needs a slide that is a file: it is known by that")
    return {"slide_sha256": file_digest(path)}

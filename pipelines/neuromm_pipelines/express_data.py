"""Sections of ``neuromm express``: counts, features and what is amiss with them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.io.tissue_sections import TissueSection, grid_kind, open_sections
from neuromm_pipelines.express_settings import FeatureSource

if TYPE_CHECKING:
    from neuromm.features import Backbone

__all__ = [
    "Encoder",
    "Tissue",
    "chosen_source",
    "read_spots",
    "read_tissue",
    "sections_of",
    "stains_of",
    "vector_files",
    "vectors_source",
]

logger = logging.getLogger(__name__)

_STAIN_PX = 1024  # of the longer side of the picture in which stains are found
_SMALL_PICTURES = ("tissue_hires_image.png", "tissue_lowres_image.png")


@dataclass(frozen=True, eq=False)
class Tissue:
    """One section, or some spots of it, with what a network saw there.

    Attributes
    ----------
    section : TissueSection
    adata : anndata.AnnData
        Raw counts, in the order of the spots of ``features``.
    features : SpotFeatures
    findings : tuple of str
        What a reader of a result should look at.
    """

    section: TissueSection
    adata: Any
    features: SpotFeatures
    findings: tuple[str, ...] = ()

    def part(self, rows: NDArray[np.intp]) -> "Tissue":
        """Some of the spots, as a section of their own."""
        return replace(self, adata=self.adata[rows], features=self.features.part(rows))


@dataclass(frozen=True, eq=False)
class Encoder:
    """Where features come from, ready to be asked.

    Attributes
    ----------
    source : FeatureSource
    backbone : Backbone or None
        None where vectors are read.
    cache : FeatureCache or None
    """

    source: FeatureSource
    backbone: "Backbone | None"
    cache: Any

    @classmethod
    def of(
        cls, source: FeatureSource, *, cache: Path | None, device: str | None
    ) -> "Encoder":
        """Load the backbone of a source, and open the cache."""
        from neuromm.features import FeatureCache, load_backbone

        if not source.backbone:
            return cls(source, None, None)
        backbone = load_backbone(source.backbone, device=device or "cpu")
        if backbone.modality != "image":
            raise UsageError(
                f"--backbone {source.backbone}: spots need a backbone of images, this "
                f"one is of {backbone.modality}"
            )
        return cls(source, backbone, FeatureCache(cache))

    @property
    def weights_sha256(self) -> str:
        """Of the backbone; empty where vectors are read."""
        if self.backbone is None:
            return ""
        return str(self.backbone.attrs.get("weights_sha256", ""))

    def __call__(
        self,
        section: TissueSection,
        adata: Any,
        slide: Any,
        progress: Callable[[int, int], None] | None = None,
    ) -> SpotFeatures:
        """Features of a section."""
        from neuromm.features import (
            obsm_spot_features,
            patch_file_features,
            spot_features,
            stored_spot_features,
        )

        source = self.source
        if source.kind == "obsm":
            return obsm_spot_features(adata, source.place, section=section.name)
        if source.kind == "stored":
            place = section.features or Path(source.place)
            own = place / f"{section.name}.h5"
            return stored_spot_features(
                adata,
                own if own.is_file() else place,
                section=section.name,
                encoder=source.encoder or None,
            )
        if self.backbone is None:
            raise UsageError(f"{section.name}: no backbone was loaded")
        if source.kind == "patches":
            if section.patches is None:
                raise InputMissingError(f"{section.name}: has no pictures of spots")
            return patch_file_features(
                adata,
                section.patches,
                self.backbone,
                section=section.name,
                patch_tokens=source.patch_tokens,
                cache=self.cache,
                progress=progress,
            )
        return spot_features(
            adata,
            slide,
            self.backbone,
            section=section.name,
            patch_um=source.patch_um,
            patch_px=source.patch_px,
            n_tiles=source.n_tiles,
            patch_tokens=source.patch_tokens,
            cache=self.cache,
            progress=progress,
        )


def sections_of(config: Any) -> list[TissueSection]:
    """Sections that the command line names, and which belong to one patient."""
    found = open_sections(
        config.data,
        slide=config.slide,
        microns_per_pixel=config.microns_per_pixel,
        scale=config.slide_scale,
        names=config.section_label,
    )
    unknown = [section.name for section in found if not section.knows_patient]
    if unknown and len(found) > 1:
        logger.warning(
            "the patient of %d sections is not known (%s%s), and each counts as a "
            "patient of its own: two sections of one patient may then be on both sides "
            "of a split. Name patients in a table with the columns section, spots, "
            "slide, patient",
            len(unknown),
            ", ".join(unknown[:5]),
            ", …" if len(unknown) > 5 else "",
        )
    return found


def chosen_source(
    config: Any, sections: Sequence[TissueSection], *, default_backbone: str
) -> FeatureSource:
    """Where the features of all sections come from, by flags and by what is there."""
    if config.features is not None:
        if config.backbone is not None:
            raise UsageError(
                "--features are vectors that somebody has computed, --backbone "
                "computes them: give one of the two"
            )
        return vectors_source(config.features, config.encoder)
    named = [section for section in sections if section.features is not None]
    if named and len(named) < len(sections):
        lacking = next(s.name for s in sections if s.features is None)
        raise DataError(
            f"{len(named)} of {len(sections)} sections name a file of features, and "
            f"{lacking} does not: name one for each, or none",
            config.data,
        )
    if named:
        return FeatureSource(kind="stored", encoder=config.encoder or "")
    backbone = config.backbone or default_backbone
    own = {
        "patch_um": config.patch_um,
        "n_tiles": config.tiles,
        "patch_tokens": config.patch_tokens,
    }
    without = [section.name for section in sections if section.slide is None]
    if not without:
        return FeatureSource(kind="slide", backbone=backbone, **own)
    if all(section.patches is not None for section in sections):
        return FeatureSource(
            kind="patches",
            backbone=backbone,
            n_tiles=1,
            patch_tokens=config.patch_tokens,
        )
    raise InputMissingError(
        f"{config.data}: {len(without)} of {len(sections)} sections have no picture "
        f"({', '.join(without[:5])}{', …' if len(without) > 5 else ''}). Name them in "
        "a table with the columns section, spots, slide; keep to others with "
        "--section-label; or give vectors with --features"
    )


def vectors_source(features: str, encoder: str | None) -> FeatureSource:
    """What ``--features`` and ``--encoder`` name.

    Raises
    ------
    InputMissingError
        If there is no such file or folder.
    """
    if features.startswith("obsm:"):
        return FeatureSource(kind="obsm", place=features[5:], n_tiles=1)
    place = Path(features)
    if not place.exists():
        raise InputMissingError(f"--features {place}: no such file or folder")
    return FeatureSource(kind="stored", place=str(place), encoder=encoder or "")


def vector_files(section: TissueSection, source: FeatureSource) -> list[Path]:
    """Files of vectors of a section that ``--features`` names, for its provenance."""
    place = Path(source.place)
    if source.kind != "stored" or section.features is not None:
        return []
    if place.is_file():
        return [place]
    return sorted(place.rglob(f"{section.name}.h5"))


def read_spots(section: TissueSection, *, grid_um: float | None = None) -> Any:
    """Counts and places of a section, or a grid over a slide that has none.

    Parameters
    ----------
    section : TissueSection
    grid_um : float, optional
        Pitch of the grid over a slide without spots.

    Returns
    -------
    adata : anndata.AnnData
        In memory; spots that a file says to be off the tissue are left out.

    Raises
    ------
    neuromm.core.NeurommError
        If a file is missing or damaged, the slide has no spots and no grid is wanted,
        or it has spots and one is.
    """
    from neuromm.prepare.dense_grid import dense_grid
    from neuromm.prepare.tissue import tissue_mask

    if section.spots is None:
        if grid_um is None:
            raise UsageError(
                f"{section.name} is a slide without spots. Lay a grid over it: "
                "--grid-um 100"
            )
        slide = section.open_slide()
        return dense_grid(
            slide, tissue_mask(slide), pitch_um=grid_um, name=section.name
        )
    if grid_um is not None:
        raise UsageError(f"{section.name} has spots: --grid-um is for slides without")
    adata = section.load().data
    # A view of what lies on disk gives no further views.
    adata = adata.to_memory() if adata.isbacked else adata
    if "in_tissue" not in adata.obs:
        return adata
    kept = adata.obs["in_tissue"].to_numpy().astype(bool)
    return adata if kept.all() else adata[kept].copy()


def read_tissue(
    section: TissueSection,
    adata: Any,
    encoder: Encoder,
    progress: Callable[[int, int], None] | None = None,
) -> Tissue:
    """Features of a section whose spots were read, and what is amiss with it.

    Parameters
    ----------
    section : TissueSection
    adata : anndata.AnnData
        As `read_spots` gives it.
    encoder : Encoder
    progress : callable of (done, total), optional
        Told how many spots are encoded.

    Raises
    ------
    neuromm.core.NeurommError
        If the picture or vectors are missing, damaged, or of another section.
    """
    slide, findings = None, []
    if encoder.source.kind == "slide":
        slide = section.open_slide(adata)
        if section.spots is not None:
            findings = _findings(section, adata, slide)
        if encoder.source.stains:
            slide = _stained(slide, encoder.source.stains)
    for text in findings:
        logger.warning("%s: %s", section.name, text)
    features = encoder(section, adata, slide, progress)
    return Tissue(section, adata, features, tuple(findings))


def stains_of(slide: Any) -> tuple[float, ...]:
    """Stains of the tissue of a slide, as `FeatureSource` holds them.

    Raises
    ------
    DataError
        If two stains are not to be told apart.
    """
    from neuromm.prepare.stain import stain_fit
    from neuromm.prepare.tissue import tissue_mask

    picture = slide.thumbnail(_STAIN_PX)
    height, width = picture.shape[:2]
    step = slide.width / width
    rows, columns = np.mgrid[:height, :width]
    places = (np.column_stack([columns.ravel(), rows.ravel()]) + 0.5) * step
    tissue = tissue_mask(slide).holds(places)
    try:
        fit = stain_fit(picture.reshape(-1, 3)[tissue])
    except DataError as error:
        raise DataError(f"its stains cannot be found: {error}", slide.path) from error
    return (*fit.vectors.ravel().tolist(), *fit.strongest.tolist())


def _stained(slide: Any, wanted: tuple[float, ...]) -> Any:
    from neuromm.prepare.stain import StainFit, StainNormalised

    def fit(numbers: tuple[float, ...]) -> StainFit:
        return StainFit(np.reshape(numbers[:6], (2, 3)), np.array(numbers[6:]))

    return StainNormalised(slide, fit(stains_of(slide)), fit(wanted))


def _findings(section: TissueSection, adata: Any, slide: Any) -> list[str]:
    """What does not fit between spots and picture."""
    from neuromm.prepare.spot_quality import check_spots
    from neuromm.prepare.tissue import tissue_mask

    kind = grid_kind(adata)
    # A square array in an .h5ad may have any pitch.
    is_any = kind == "st" and str(section.spots).endswith(".h5ad")
    found = [
        one.message
        for one in check_spots(adata, tissue_mask(slide), kind)
        if not (is_any and one.kind == "wrong_scale")
    ]
    if slide.path.name in _SMALL_PICTURES:
        found.append(
            f"patches are cut from {slide.path.name}, the small picture of Space "
            "Ranger: name the full-resolution slide with --slide, or in a table"
        )
    return found

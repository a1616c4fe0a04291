"""Where the planted brain answers to vision, to language, and to both.

Positions are in mm of MNI space. They follow where the literature places the functions
(centres rounded, extents chosen): occipital and ventral visual cortex (Grill-Spector &
Weiner 2014, Nat. Rev. Neurosci. 15:536-548), the fronto-temporal language network
(Fedorenko et al. 2010, J. Neurophysiol. 104:1177-1194), and the temporo-parietal
junction, where multimodal models predict best (Subramaniam et al. 2024, ICML). Sites of
integration, where they are asked for, lie in the angular gyri, a zone of convergence
(Binder & Desai 2011, Trends Cogn. Sci. 15:527-536).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "FRAME",
    "INTERACTIVE_REGIONS",
    "REGIONS",
    "Region",
    "brain_mask",
    "depth_contacts",
    "planted_kind",
    "planted_regions",
]

FRAME = "MNI152NLin2009cAsym"


class Region(NamedTuple):
    """A ball that answers to one kind of content.

    Attributes
    ----------
    name : str
    kind : {"vision", "language", "both", "interactive"}
    centre : tuple of float
        mm, MNI.
    radius_mm : float
    """

    name: str
    kind: str
    centre: tuple[float, float, float]
    radius_mm: float


REGIONS = (
    Region("left early visual", "vision", (-10, -92, 2), 17),
    Region("right early visual", "vision", (12, -92, 2), 17),
    Region("left lateral occipital", "vision", (-40, -76, -4), 17),
    Region("right lateral occipital", "vision", (42, -74, -4), 17),
    Region("left fusiform", "vision", (-34, -52, -18), 15),
    Region("right fusiform", "vision", (36, -50, -18), 15),
    Region("left superior temporal", "language", (-56, -20, -2), 18),
    Region("right superior temporal", "language", (56, -16, -2), 15),
    Region("left temporal pole", "language", (-50, 10, -22), 16),
    Region("left inferior frontal", "language", (-48, 22, 14), 17),
    Region("left temporo-parietal junction", "both", (-52, -50, 18), 18),
    Region("right temporo-parietal junction", "both", (54, -48, 18), 18),
)

# Driven by products of vision and language, of which no linear sum of them knows.
INTERACTIVE_REGIONS = (
    Region("left angular gyrus", "interactive", (-44, -68, 38), 17),
    Region("right angular gyrus", "interactive", (46, -66, 38), 17),
)

# Lateral end of each shaft; it runs towards the midline, as orthogonal SEEG does.
_SHAFT_ENTRIES = {
    "LO": (-51.0, -72.0, -4.0),
    "LT": (-63.0, -20.0, -2.0),
    "LP": (-61.0, -50.0, 18.0),
}
_INTERACTIVE_ENTRIES = {"LA": (-55.0, -68.0, 38.0)}
_CONTACT_SPACING_MM = 4.5


def planted_regions(*, interactive: bool) -> tuple[Region, ...]:
    """`REGIONS`, and where it is asked for `INTERACTIVE_REGIONS` behind them."""
    return REGIONS + (INTERACTIVE_REGIONS if interactive else ())


def brain_mask(spacing_mm: int) -> Any:
    """Brain mask of the MNI152 template that nilearn ships, on a coarse grid.

    Parameters
    ----------
    spacing_mm : int

    Returns
    -------
    mask_img : nibabel.Nifti1Image, uint8
    """
    import nibabel
    from nilearn.datasets import load_mni152_brain_mask

    mask = load_mni152_brain_mask(resolution=spacing_mm)
    image = nibabel.Nifti1Image((mask.get_fdata() > 0).astype(np.uint8), mask.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(mask.affine, "mni")
    image.set_qform(mask.affine, "mni")
    return image


def planted_kind(
    points: NDArray[np.floating],
    shift: NDArray[np.floating],
    regions: Sequence[Region] = REGIONS,
) -> tuple[NDArray[np.object_], NDArray[np.intp], NDArray[np.floating]]:
    """What each point of a brain answers to.

    Parameters
    ----------
    points : array of shape (n_points, 3)
        mm, MNI.
    shift : array of shape (n_regions, 3)
        How far each region of this subject lies from ``regions``, in mm.
    regions : sequence of Region

    Returns
    -------
    kind : array of shape (n_points,)
        That of the region, or ``"none"``.
    region : array of shape (n_points,)
        Number of the region, -1 for none.
    depth : array of shape (n_points,)
        1 at the centre of the region, 0 at its rim and outside.
    """
    centres = np.array([region.centre for region in regions]) + shift
    radii = np.array([region.radius_mm for region in regions])
    distance = np.linalg.norm(points[:, None] - centres, axis=2) / radii
    nearest = distance.argmin(axis=1)
    depth = np.clip(1 - distance.min(axis=1), 0, 1)
    region = np.where(depth > 0, nearest, -1)
    kinds = np.array([one.kind for one in regions] + ["none"], dtype=object)
    return kinds[region], region, depth


def depth_contacts(
    rng: np.random.Generator,
    n_contacts: int = 10,
    scatter_mm: float = 1.5,
    *,
    interactive: bool = False,
) -> pd.DataFrame:
    """Contacts of three depth electrodes: occipital, temporal and temporo-parietal.

    Parameters
    ----------
    rng : Generator
    n_contacts : int
        Contacts a shaft, 4.5 mm apart, number 1 the most lateral.
    scatter_mm : float
        Standard deviation of the entry points.
    interactive : bool
        A fourth electrode, through the left angular gyrus.

    Returns
    -------
    contacts : DataFrame
        ``name`` (``"LO1"``), ``x``, ``y``, ``z`` (mm, MNI), ``group`` (the shaft).
    """
    rows = []
    entries = _SHAFT_ENTRIES | (_INTERACTIVE_ENTRIES if interactive else {})
    for shaft, entry in entries.items():
        start = np.array(entry) + scatter_mm * rng.standard_normal(3)
        for number in range(n_contacts):
            step = np.array([_CONTACT_SPACING_MM * number, 0, 0])
            x, y, z = np.round(start + step, 2)
            rows.append((f"{shaft}{number + 1}", x, y, z, shaft))
    return pd.DataFrame(rows, columns=["name", "x", "y", "z", "group"])

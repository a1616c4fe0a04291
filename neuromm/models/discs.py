"""Discs of a mask as numbered regions, with centres and volumes in the patient's space.

Numbers run from below: the lowest disc that was found gets the first one, the next disc
above it the second. So do those of SPIDER, whose 201 is the disc on the sacrum (L5/S1)
and whose `first_label` is 201. Masks of IVDM3Seg hold a single label, and its seven
discs are told apart in the same way. A number is a rank, not an anatomical level: where
the lowest disc in the image is another one than L5/S1, or a disc was missed, numbers
above it name other levels.

References
----------
Zheng et al. (2017) Evaluation and comparison of 3D intervertebral disc localization
and segmentation methods for 3D T2 MR data: A grand challenge. Medical Image Analysis
35:327-344.
van der Graaf et al. (2024) Lumbar spine segmentation in MR images: a dataset and a
public benchmark. Scientific Data 11:264 (SPIDER).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.prepare import SagittalOrder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SMALLEST_MM3", "DiscRegions", "disc_regions"]

SMALLEST_MM3 = 300.0
"""Pieces below this volume are dropped: about a tenth of a small lumbar disc."""

_COLUMNS = (
    "label",
    "centre_x",
    "centre_y",
    "centre_z",
    "volume_mm3",
    "n_voxels",
    "probability",
    "uncertainty",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscRegions:
    """The discs of one volume, numbered from below.

    Attributes
    ----------
    labels : array of int32 of shape (n_i, n_j, n_k)
        Number of the disc at each voxel of the mask's grid, 0 elsewhere.
    table : DataFrame
        A row a disc, from below: ``label``; ``centre_x``, ``centre_y``, ``centre_z``,
        its centre of mass, RAS in mm; ``volume_mm3``; ``n_voxels``; ``probability``
        and ``uncertainty``, means over its voxels, nan where they were not given.
    affine : array of shape (4, 4)
        Voxel indices to RAS, mm.
    smallest_mm3 : float
        Smaller pieces were dropped.
    n_dropped : int
        How many these were.
    gap_slices : int
        Sagittal slices that might be empty between two parts of one disc.
    """

    labels: NDArray[np.int32]
    table: "pd.DataFrame"
    affine: NDArray[np.float64]
    smallest_mm3: float
    n_dropped: int
    gap_slices: int

    @property
    def centres(self) -> dict[int, NDArray[np.float64]]:
        """Centre of each disc in RAS mm by its number, as `neuromm.metrics` take it."""
        rows = self.table[["centre_x", "centre_y", "centre_z"]].to_numpy(dtype=float)
        return dict(zip((int(n) for n in self.table["label"]), rows, strict=True))


def disc_regions(
    mask: ArrayLike,
    affine: ArrayLike,
    *,
    class_index: int | None = None,
    probabilities: ArrayLike | None = None,
    uncertainty: ArrayLike | None = None,
    smallest_mm3: float = SMALLEST_MM3,
    gap_slices: int = 1,
    first_label: int = 1,
) -> DiscRegions:
    """Tell the discs of a mask apart, number them from below and measure them.

    Parameters
    ----------
    mask : array of bool or int of shape (n_i, n_j, n_k)
        Where there is disc, all discs alike; or the class of each voxel.
    affine : array of shape (4, 4)
        From voxel indices to RAS in mm, as of a NIfTI image; voxels may be anisotropic
        and the volume oblique.
    class_index : int, optional
        Class of the discs in a mask of several; needed if it holds more than one.
    probabilities : array of shape (n_i, n_j, n_k), optional
        Probability of the class at each voxel, such as ``probabilities[class_index]``
        of `predict_volume`.
    uncertainty : array of shape (n_i, n_j, n_k), optional
        Such as that of `predict_with_uncertainty`.
    smallest_mm3 : float
        Smaller pieces are dropped; 0 keeps all.
    gap_slices : int
        Sagittal slices that may be empty between two parts of one disc: a network of
        slices can miss a disc in one of them.
    first_label : int
        Number of the lowest disc.

    Returns
    -------
    regions : DiscRegions
        May be empty.

    Raises
    ------
    UsageError
        If an array has another shape, the mask holds no labels or several classes and
        none is chosen, or the affine or a number is none.

    Notes
    -----
    A disc is a set of voxels that are connected by faces (6 neighbours): pieces that
    touch at an edge or a corner alone are two, since a merged pair of discs shifts the
    numbers of all above it. Parts that face each other from left to right across no
    more than ``gap_slices`` are one; the gap is no part of it. "Below" is along the
    inferior-superior axis of the patient, the third of RAS, whatever the order of the
    voxels.

    Examples
    --------
    >>> mask = np.zeros((4, 4, 9), dtype=bool)
    >>> mask[..., 1:3] = mask[..., 6:8] = True
    >>> regions = disc_regions(mask, np.diag([2.0, 2.0, 2.0, 1.0]), smallest_mm3=0)
    >>> regions.table[["label", "centre_z", "volume_mm3"]].to_numpy().tolist()
    [[1.0, 3.0, 256.0], [2.0, 13.0, 256.0]]
    """
    from scipy import ndimage

    inside = _inside(mask, class_index)
    matrix = _checked_affine(affine)
    _check_numbers(smallest_mm3, gap_slices, first_label)
    means = {
        name: _means_of(name, values, inside.shape)
        for name, values in (
            ("probabilities", probabilities),
            ("uncertainty", uncertainty),
        )
    }
    faces = ndimage.generate_binary_structure(3, 1)
    bridged = _bridged(inside, matrix, gap_slices)
    pieces, n_pieces = ndimage.label(bridged, faces, output=np.int32)
    pieces[~inside] = 0
    voxels = np.nonzero(pieces)
    which = pieces[voxels]
    counts = np.bincount(which, minlength=n_pieces + 1)
    places = np.stack([_mean(which, axis, counts) for axis in voxels], axis=1)
    centres = places @ matrix[:3, :3].T + matrix[:3, 3]
    # Not by a determinant, which rounds also where the axes are those of the patient.
    voxel_mm3 = abs(float(np.cross(*matrix[:3, :2].T) @ matrix[:3, 2]))
    # Rounding must not drop a piece of exactly the smallest volume.
    kept = np.flatnonzero(counts * voxel_mm3 >= smallest_mm3 * (1 - 1e-9))
    kept = kept[kept > 0]
    kept = kept[np.argsort(centres[kept, 2], kind="stable")]
    numbers = np.arange(first_label, first_label + len(kept))
    renumbered = np.zeros(n_pieces + 1, dtype=np.int32)
    renumbered[kept] = numbers
    table = _table(
        numbers,
        centres[kept],
        counts[kept],
        voxel_mm3,
        *(
            np.full(len(kept), np.nan)
            if values is None
            else _mean(which, values[voxels], counts)[kept]
            for values in means.values()
        ),
    )
    return DiscRegions(
        labels=renumbered[pieces],
        table=table,
        affine=matrix,
        smallest_mm3=float(smallest_mm3),
        n_dropped=n_pieces - len(kept),
        gap_slices=gap_slices,
    )


def _inside(mask: ArrayLike, class_index: int | None) -> NDArray[np.bool_]:
    values = np.asarray(mask)
    if values.ndim != 3 or values.dtype.kind not in "biu":
        raise UsageError(
            f"mask must be a volume of labels (integers or booleans), got "
            f"{values.dtype} of shape {values.shape}. Of probabilities take the most "
            "probable class before"
        )
    if class_index is not None:
        if class_index < 1:
            raise UsageError(
                f"class_index must be 1 or more (0 is background), got {class_index}"
            )
        chosen: NDArray[np.bool_] = values == class_index
        return chosen
    if values.dtype.kind != "b":
        classes = np.unique(values)
        classes = classes[classes != 0]
        if len(classes) > 1:
            raise UsageError(
                f"the mask holds {len(classes)} classes "
                f"({', '.join(str(c) for c in classes[:8])}): say which are the discs "
                "by class_index, or give mask > 0 if all of them are"
            )
    disc: NDArray[np.bool_] = values != 0
    return disc


def _checked_affine(affine: ArrayLike) -> NDArray[np.float64]:
    if affine is None:
        raise UsageError(
            "affine is None, as of a picture: without the place of its voxels in the "
            "patient there are no millimetres"
        )
    matrix = np.array(affine, dtype=np.float64)
    if (
        matrix.shape != (4, 4)
        or not np.isfinite(matrix).all()
        or abs(np.linalg.det(matrix[:3, :3])) == 0
    ):
        raise UsageError(
            f"affine must be a finite, invertible 4 x 4 matrix, got {matrix.tolist()}"
        )
    return matrix


def _bridged(
    inside: NDArray[np.bool_], affine: NDArray[np.float64], gap_slices: int
) -> NDArray[np.bool_]:
    """Mask with its short gaps from left to right filled in."""
    from scipy import ndimage

    if not gap_slices:
        return inside
    shape = [1, 1, 1]
    shape[SagittalOrder(affine).axes[0]] = gap_slices + 1
    filled = ndimage.binary_closing(inside, np.ones(shape, dtype=bool))
    bridged: NDArray[np.bool_] = inside | filled
    return bridged


def _check_numbers(smallest_mm3: float, gap_slices: int, first_label: int) -> None:
    if gap_slices < 0:
        raise UsageError(f"gap_slices must be 0 or more, got {gap_slices}")
    if not 0 <= smallest_mm3 < np.inf:
        raise UsageError(f"smallest_mm3 must be 0 mm3 or more, got {smallest_mm3}")
    if first_label < 1:
        raise UsageError(f"first_label must be 1 or more, got {first_label}")


def _means_of(
    name: str, values: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[Any] | None:
    if values is None:
        return None
    volume = np.asarray(values)
    if volume.shape != shape:
        raise UsageError(
            f"{name} must have the shape of the mask {shape}, got {volume.shape}. Of "
            "several classes give one: probabilities[class_index]"
        )
    return volume


def _mean(
    which: NDArray[np.int32], values: NDArray[Any], counts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Mean of each piece; nan of the background, which holds no voxel here."""
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = (
            np.bincount(which, values, minlength=len(counts)) / counts
        )
    return mean


def _table(
    numbers: NDArray[np.intp],
    centres: NDArray[np.float64],
    counts: NDArray[np.intp],
    voxel_mm3: float,
    probability: NDArray[np.float64],
    uncertainty: NDArray[np.float64],
) -> "pd.DataFrame":
    import pandas as pd

    columns = (
        numbers,
        *centres.T,
        counts * voxel_mm3,
        counts,
        probability,
        uncertainty,
    )
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))

"""How far the discs that were found in a volume are from those of a reference.

Distances are in mm in the patient's space, so voxels may be anisotropic and the volume
oblique.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError
from neuromm.io.mri_grid import GRID_TOLERANCE_MM
from neuromm.io.volumes import grid_shift_mm
from neuromm.metrics.calibration import expected_calibration_error, reliability_table
from neuromm.metrics.segmentation import (
    SurfaceDistances,
    detection_rate,
    dice,
    identification_rate,
    matched_centres,
    surface_distances,
)
from neuromm.models.discs import DiscRegions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DiscScores", "score_discs"]

DETECTED_MM = 2.0
NEAR_MM = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscScores:
    """Discs of one volume against a reference.

    Attributes
    ----------
    summary : mapping of str to float
        ``dice`` of all discs together; ``average_surface_distance_mm``,
        ``hausdorff_mm`` and ``hausdorff95_mm`` between their surfaces;
        ``mean_localisation_distance_mm`` and ``sd_localisation_distance_mm`` of the
        centres that were matched; ``detection_rate``, the part of the true centres
        that were found within 2 mm; ``identification_rate``, the part with the right
        number (see `neuromm.metrics.identification_rate`); ``n_true``, ``n_found``;
        and ``expected_calibration_error``, nan without probabilities. A measure of
        nothing is nan.
    table : DataFrame
        A row a true disc, from below: ``label``, its number; ``centre_x``,
        ``centre_y``, ``centre_z``, RAS in mm; ``found_label``, the number of the disc
        that was matched to it, 0 if none; ``distance_mm`` between their centres;
        ``dice`` of the two; ``volume_mm3`` and ``found_volume_mm3``.
    reliability : DataFrame or None
        Of `neuromm.metrics.reliability_table`, of the probability of disc.
    """

    summary: Mapping[str, float]
    table: "pd.DataFrame"
    reliability: "pd.DataFrame | None"


def score_discs(
    found: DiscRegions,
    reference: DiscRegions,
    *,
    probabilities: ArrayLike | None = None,
    n_bins: int = 15,
) -> DiscScores:
    """Compare discs with those of a reference on the same grid.

    Parameters
    ----------
    found : DiscRegions
    reference : DiscRegions
        `disc_regions` of the reference mask; give it ``smallest_mm3=0`` to keep every
        voxel that was labelled.
    probabilities : array of shape (n_i, n_j, n_k), optional
        Of disc, for the calibration.
    n_bins : int
        Of the calibration.

    Returns
    -------
    scores : DiscScores

    Raises
    ------
    DataError
        If the two lie on different grids.
    UsageError
        If probabilities have another shape.

    Notes
    -----
    Calibration is of the voxels within 10 mm of a disc of either: nearly all of a
    volume is far from any disc, trivial, and would make every network look calibrated.
    """
    _check_grids(found, reference)
    is_found, is_true = found.labels > 0, reference.labels > 0
    spacing = np.linalg.norm(found.affine[:3, :3], axis=0)
    surface = _surface(is_found, is_true, spacing)
    table = _by_disc(found, reference)
    distances = table["distance_mm"].dropna()
    reliability, error = None, float("nan")
    if probabilities is not None:
        stated = np.asarray(probabilities)
        if stated.shape != is_true.shape:
            raise UsageError(
                f"probabilities must have the shape of the masks {is_true.shape}, got "
                f"{stated.shape}: give those of the disc alone"
            )
        near = _near(is_found | is_true, spacing)
        if near.any():
            pair = stated[near].astype(np.float64).clip(0, 1), is_true[near]
            reliability = reliability_table(*pair, n_bins)
            error = expected_calibration_error(*pair, n_bins)
    return DiscScores(
        summary={
            "dice": float(dice(is_found, is_true, labels=[1])[0]),
            "average_surface_distance_mm": surface.average_mm,
            "hausdorff_mm": surface.hausdorff_mm,
            "hausdorff95_mm": surface.hausdorff95_mm,
            "mean_localisation_distance_mm": float(distances.mean()),
            "sd_localisation_distance_mm": float(distances.std(ddof=1)),
            "detection_rate": detection_rate(
                _rows(found), _rows(reference), radius_mm=DETECTED_MM
            ),
            "identification_rate": identification_rate(
                found.centres, reference.centres
            ),
            "n_true": len(reference.table),
            "n_found": len(found.table),
            "expected_calibration_error": error,
        },
        table=table,
        reliability=reliability,
    )


def _check_grids(found: DiscRegions, reference: DiscRegions) -> None:
    shape = found.labels.shape
    if shape != reference.labels.shape:
        raise DataError(
            f"the discs lie on a grid of {shape} voxels and the reference on "
            f"{reference.labels.shape}: bring it to the grid of the images before "
            "(neuromm.io.mri.load_labels)"
        )
    moved = grid_shift_mm(found.affine, reference.affine, shape)
    if moved > GRID_TOLERANCE_MM:
        raise DataError(
            f"the grids of discs and reference have one shape, but lie {moved:.3g} mm "
            "apart at a corner: compare their affines"
        )


def _surface(
    found: NDArray[np.bool_], true: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> SurfaceDistances:
    """Distances of the surfaces, of the part of the grid that holds the two masks."""
    where = [np.flatnonzero((found | true).any(axis=_others(a))) for a in range(3)]
    if not all(len(one) for one in where):
        return SurfaceDistances(float("nan"), float("nan"), float("nan"))
    box = tuple(slice(one[0], one[-1] + 1) for one in where)
    # A mask that fills its box has no voxel beside it, and so no surface there.
    a, b = (np.pad(mask[box], 1) for mask in (found, true))
    return surface_distances(a, b, spacing_mm=spacing.tolist())


def _near(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    from scipy import ndimage

    if not mask.any():
        return mask
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    near: NDArray[np.bool_] = distance <= NEAR_MM
    return near


def _by_disc(found: DiscRegions, reference: DiscRegions) -> "pd.DataFrame":
    table = reference.table[
        ["label", "centre_x", "centre_y", "centre_z", "volume_mm3"]
    ].copy()
    true_places, found_places = _rows(reference), _rows(found)
    matches = matched_centres(found_places, true_places)
    numbers = np.append(found.table["label"].to_numpy(dtype=int), 0)
    volumes = np.append(found.table["volume_mm3"].to_numpy(dtype=float), np.nan)
    places = np.append(found_places, np.full((1, 3), np.nan), axis=0)
    overlap = [
        _dice_of(found.labels == mine, reference.labels == true) if mine else np.nan
        for mine, true in zip(numbers[matches], table["label"], strict=True)
    ]
    table.insert(4, "found_label", numbers[matches])
    table.insert(
        5, "distance_mm", np.linalg.norm(places[matches] - true_places, axis=1)
    )
    table.insert(6, "dice", np.array(overlap, dtype=float))
    table["found_volume_mm3"] = volumes[matches]
    return table


def _dice_of(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(dice(found, true, labels=[1])[0])


def _rows(regions: DiscRegions) -> NDArray[np.float64]:
    rows: NDArray[np.float64] = regions.table[
        ["centre_x", "centre_y", "centre_z"]
    ].to_numpy(dtype=float)
    return rows


def _others(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)

"""How well a segmentation overlaps the truth, and how far off its parts are in mm.

References
----------
Glocker et al. (2012) Automatic localization and identification of vertebrae in
arbitrary field-of-view CT scans. MICCAI (identification rate).
Zheng et al. (2017) Evaluation and comparison of 3D intervertebral disc localization
and segmentation methods for 3D T2 MR data: A grand challenge. Medical Image Analysis
35:327-344 (localisation distance, detection at 2 mm).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError

__all__ = [
    "SurfaceDistances",
    "detection_rate",
    "dice",
    "identification_rate",
    "label_centres",
    "localisation_error",
    "matched_centres",
    "surface_distances",
]

Centre = NDArray[np.float64]


class SurfaceDistances(NamedTuple):
    """Distances between two surfaces, in mm; nan if one of the two is empty.

    Attributes
    ----------
    average_mm : float
        Mean over the voxels of both surfaces, each to the nearest of the other one.
    hausdorff_mm : float
        The largest of these distances.
    hausdorff95_mm : float
        The larger of the two surfaces' 95th percentiles.
    """

    average_mm: float
    hausdorff_mm: float
    hausdorff95_mm: float


def dice(
    prediction: ArrayLike, truth: ArrayLike, labels: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Overlap of each label: twice the common voxels over the voxels of both.

    Parameters
    ----------
    prediction, truth : arrays of int or bool of the same shape
        Label of each voxel of a whole volume, all discs of it together.
    labels : sequence of int, optional
        Those in either of the two but 0, in order, by default.

    Returns
    -------
    overlap : array of shape (n_labels,)
        In [0, 1]; nan for a label that is in neither.

    Examples
    --------
    >>> dice([0, 1, 1, 2], [0, 1, 2, 2])
    array([0.66666667, 0.66666667])
    """
    found, true = _label_pair(prediction, truth)
    if labels is None:
        labels = [int(label) for label in np.union1d(found, true) if label != 0]
    result = np.full(len(labels), np.nan)
    for index, label in enumerate(labels):
        inside, wanted = found == label, true == label
        total = np.count_nonzero(inside) + np.count_nonzero(wanted)
        if total:
            result[index] = 2 * np.count_nonzero(inside & wanted) / total
    return result


def label_centres(labels: ArrayLike, affine: ArrayLike) -> dict[int, Centre]:
    """Centre of mass of each label in mm.

    Parameters
    ----------
    labels : array of int or bool of shape (nx, ny, nz)
        0 is background.
    affine : array of shape (4, 4)
        From voxel indices to RAS in mm, as of a NIfTI image; it may be oblique.

    Returns
    -------
    centres : dict of int to array of shape (3,)
        RAS in mm.
    """
    volume, matrix = np.asarray(labels), np.asarray(affine, dtype=np.float64)
    if volume.ndim != 3 or volume.dtype.kind not in "biu":
        raise UsageError(
            f"labels must be a volume of integers, got {volume.dtype} of shape "
            f"{volume.shape}"
        )
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise UsageError(f"affine must be a finite 4 x 4 matrix, got {matrix}")
    centres = {}
    for label in np.unique(volume):
        if label != 0:
            voxels = np.argwhere(volume == label).mean(axis=0)
            centres[int(label)] = matrix[:3, :3] @ voxels + matrix[:3, 3]
    return centres


def localisation_error(predicted: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Distance of each true centre to the predicted one that is matched to it.

    Parameters
    ----------
    predicted : array of shape (n_predicted, 3)
        Centres in mm.
    truth : array of shape (n_true, 3)
        Centres in mm.

    Returns
    -------
    error : array of shape (n_true,)
        In mm; nan where no prediction is left. Its nanmean is the mean localisation
        distance, which says nothing of what was missed: report `detection_rate` too.

    Notes
    -----
    Matched one to one with the least sum of distances (Hungarian method). Surplus
    predictions are left over.
    """
    found, true = _points("predicted", predicted), _points("truth", truth)
    errors = np.full(len(true), np.nan)
    matches = matched_centres(found, true)
    hit = matches >= 0
    errors[hit] = np.linalg.norm(true[hit] - found[matches[hit]], axis=1)
    return errors


def matched_centres(predicted: ArrayLike, truth: ArrayLike) -> NDArray[np.intp]:
    """Which predicted centre each true one is matched to by `localisation_error`.

    Parameters
    ----------
    predicted : array of shape (n_predicted, 3)
        Centres in mm.
    truth : array of shape (n_true, 3)
        Centres in mm.

    Returns
    -------
    matches : array of int of shape (n_true,)
        Row of the predicted centre; -1 where none is left.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    found, true = _points("predicted", predicted), _points("truth", truth)
    matches = np.full(len(true), -1, dtype=np.intp)
    rows, columns = linear_sum_assignment(cdist(true, found))
    matches[rows] = columns
    return matches


def detection_rate(
    predicted: ArrayLike, truth: ArrayLike, radius_mm: float = 2.0
) -> float:
    """Part of the true centres whose match lies within a radius.

    Parameters
    ----------
    predicted, truth : arrays of shape (n, 3)
        As in `localisation_error`.
    radius_mm : float
        2 mm in the challenges on discs.

    Returns
    -------
    rate : float
        In [0, 1]; a missed centre counts as not detected. nan without true centres.
    """
    errors = localisation_error(predicted, truth)
    return float(np.mean(errors <= radius_mm)) if len(errors) else float("nan")


def identification_rate(
    predicted: Mapping[int, ArrayLike],
    truth: Mapping[int, ArrayLike],
    radius_mm: float = 20.0,
) -> float:
    """Part of the true labels that were found at their own place.

    A label counts if its predicted centre lies within the radius of the true one, and
    no other true centre is nearer to it.

    Parameters
    ----------
    predicted, truth : mappings of label to centre (3,)
        In mm, as of `label_centres`.
    radius_mm : float
        20 mm in Glocker et al. (2012).

    Returns
    -------
    rate : float
        In [0, 1]; nan without true labels.
    """
    if not truth:
        return float("nan")
    labels = list(truth)
    centres = _points("truth", np.array([truth[label] for label in labels]))
    right = 0
    for index, label in enumerate(labels):
        if label in predicted:
            point = _points("predicted", np.atleast_2d(predicted[label]))[0]
            distances = np.linalg.norm(centres - point, axis=1)
            nearest = distances[index] == distances.min()
            right += bool(nearest and distances[index] <= radius_mm)
    return right / len(labels)


def surface_distances(
    prediction: ArrayLike, truth: ArrayLike, spacing_mm: Sequence[float]
) -> SurfaceDistances:
    """Distances between the surfaces of two masks, through MONAI.

    Parameters
    ----------
    prediction, truth : arrays of bool of the same shape, 2-D or 3-D
    spacing_mm : sequence of float
        Between voxels along each axis.

    Returns
    -------
    distances : SurfaceDistances

    Notes
    -----
    Surfaces are voxels of a mask with a face outside of it, and distances run between
    centres of voxels: an error within a voxel is not seen.
    """
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
    )

    found, true = (part.astype(bool) for part in _label_pair(prediction, truth))
    if found.ndim not in (2, 3) or len(spacing_mm) != found.ndim:
        raise UsageError(
            f"masks must have 2 or 3 axes and spacing_mm one number an axis, got "
            f"{found.shape} and {tuple(spacing_mm)}"
        )
    if not all(np.isfinite(step) and step > 0 for step in spacing_mm):
        raise UsageError(f"spacing_mm must be positive, got {tuple(spacing_mm)}")
    if not found.any() or not true.any():
        return SurfaceDistances(float("nan"), float("nan"), float("nan"))
    masks = [torch.from_numpy(part)[None, None].float() for part in (found, true)]
    spacing = [float(step) for step in spacing_mm]
    settings: dict[str, Any] = {"include_background": True, "spacing": spacing}
    average = compute_average_surface_distance(*masks, symmetric=True, **settings)
    largest = compute_hausdorff_distance(*masks, **settings)
    most = compute_hausdorff_distance(*masks, percentile=95, **settings)
    return SurfaceDistances(float(average), float(largest), float(most))


def _label_pair(
    prediction: ArrayLike, truth: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    found, true = np.asarray(prediction), np.asarray(truth)
    if found.shape != true.shape:
        raise DataError(
            f"prediction and truth must lie on one grid, got {found.shape} and "
            f"{true.shape}: bring one to the other's before"
        )
    for name, part in (("prediction", found), ("truth", true)):
        if part.dtype.kind not in "biu":
            raise UsageError(
                f"{name} must hold labels (integers or booleans), got {part.dtype}: "
                "take the most probable class of probabilities first"
            )
    return found, true


def _points(name: str, points: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(points, dtype=np.float64)
    if rows.size == 0:
        return np.empty((0, 3))
    if rows.ndim != 2 or rows.shape[1] != 3 or not np.isfinite(rows).all():
        raise UsageError(
            f"{name} must be finite centres of shape (n, 3) in mm, got shape "
            f"{rows.shape}"
        )
    return rows

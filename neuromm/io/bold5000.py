"""BOLD5000: four people, 5000 pictures, voxels of ten visual regions.

What lies on disk, after unpacking ROIs.zip of the first release:

    ROIs/CSI1/mat/CSI1_ROIs_TR1.mat … TR5.mat, TR34.mat
    ROIs/stim_lists/CSI01_stim_lists.txt

A ``.mat`` file is of one volume after the picture (TR = 2 s; ``TR34`` is the mean of
the third and fourth). It holds a matrix (pictures, voxels) for each region: ``LHPPA``,
``LHLOC``, ``LHEarlyVis``, ``LHOPA``, ``LHRSC`` and their right halves. A line of the
list names the picture of a row; ``rep_`` is put before pictures that are shown more
than once.

Certain, by the readme of the second release (37 pictures a run, 10 s apart) and by much
code that reads these files (the rest of the above). Taken from that code and not said
anywhere: that rows are in the order in which pictures were shown, on which the labels
``run`` and ``onset`` rest.

References
----------
Chang N et al. (2019) BOLD5000, a public fMRI dataset while viewing 5000 visual images.
Sci. Data 6:49.
Oota SR et al. (2022) Visio-linguistic brain encoding. COLING 2022, 116-133.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError, response_matrix
from neuromm.io.content import require_content
from neuromm.io.mat_variables import read_variables

__all__ = ["ROIS", "VOLUMES", "open_bold5000"]

ROIS = tuple(
    f"{side}{name}"
    for name in ("PPA", "LOC", "EarlyVis", "OPA", "RSC")
    for side in ("LH", "RH")
)
"""Regions, as the files name them."""

VOLUMES = ("TR1", "TR2", "TR3", "TR4", "TR5", "TR34")
"""Volumes after the picture, as the files name them."""

_RUN_PICTURES, _PICTURE_S = 37, 10.0
_IMAGENET = re.compile(r"n\d{8}_")


def open_bold5000(
    root: str | Path,
    subject: str | int,
    *,
    volumes: Sequence[str] = VOLUMES,
    rois: Sequence[str] = ROIS,
) -> xr.DataArray:
    """Responses of one person to every picture, in the voxels of the regions.

    Parameters
    ----------
    root : path-like
        The folder ``ROIs``, or one that holds it.
    subject : str or int
        ``"CSI1"`` or ``1``, to 4.
    volumes : sequence of str
        Files whose mean is the response; `VOLUMES`, all six, as in Oota et al. (2022),
        if not given. ``("TR34",)`` is the peak alone: the mean of six counts the third
        and fourth volume one and a half times, and takes in the first, at which the
        response has hardly begun.
    rois : sequence of str
        Regions wanted, in their order.

    Returns
    -------
    responses : DataArray, dims (sample, target)
        A row a presentation, repeats kept. On ``sample``: ``stimulus`` (name of the
        picture without ``rep_``), ``presentation`` (0 for the first time that it is
        shown, 1 for the second, …), ``source`` (``"COCO"``, ``"ImageNet"`` or
        ``"Scenes"``), ``run`` and ``onset`` (nominal: 10 s times the place in the run),
        ``subject``. On ``target``: ``target`` (``LHPPA-0001``), ``roi``, ``hemi`` and
        ``voxel`` (from 0 within the region). ``attrs``: ``units`` (``"arbitrary"``) and
        ``volumes``.

    Raises
    ------
    InputMissingError
        If a file is not there.
    DataError
        If a file is damaged, lacks a region, or rows and pictures differ in number.
    UsageError
        If a volume or a region is none of the release.

    Examples
    --------
    >>> responses = open_bold5000("BOLD5000", "CSI1")  # doctest: +SKIP
    >>> ppa = responses[:, responses["roi"] == "LHPPA"]  # doctest: +SKIP
    """
    _check_known("volume", volumes, VOLUMES)
    _check_known("region", rois, ROIS)
    number = str(subject).upper().removeprefix("CSI")
    if not number.isdecimal():
        raise UsageError(f"expected a subject like CSI1 or 1, got {subject!r}")
    name = f"CSI{int(number)}"
    folder = _rois_folder(Path(root))
    pictures = _pictures(folder, int(number))
    matrices = [
        _region_matrices(
            folder / name / "mat" / f"{name}_ROIs_{volume}.mat", rois, len(pictures)
        )
        for volume in volumes
    ]
    widths = [matrices[0][roi].shape[1] for roi in rois]
    for volume, found in zip(volumes, matrices, strict=True):
        _check_widths(volume, [found[roi].shape[1] for roi in rois], widths, rois)
    values = np.hstack(
        [sum(found[roi] for found in matrices) / len(matrices) for roi in rois]
    )
    return _labelled(values, pictures, name, _targets(rois, widths), volumes)


def _check_known(what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown or not len(wanted) or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"each {what} must be one of {', '.join(known)}, once; got "
            f"{', '.join(wanted) or 'none'}"
        )


def _rois_folder(root: Path) -> Path:
    for folder in (root, root / "ROIs", root / "BOLD5000_ROIs" / "ROIs"):
        if (folder / "stim_lists").is_dir():
            return folder
    raise InputMissingError(
        f"{root}: has no folder stim_lists, nor ROIs/stim_lists. Expected ROIs.zip of "
        "BOLD5000, unpacked"
    )


def _pictures(folder: Path, number: int) -> list[str]:
    path = require_content(folder / "stim_lists" / f"CSI{number:02d}_stim_lists.txt")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text ({error.reason})", path) from error
    pictures = [line.strip() for line in lines if line.strip()]
    if not pictures:
        raise DataError("names no picture", path)
    return pictures


def _region_matrices(
    path: Path, rois: Sequence[str], n_pictures: int
) -> dict[str, NDArray[np.float64]]:
    found = read_variables(path, rois)
    matrices = {}
    for roi in rois:
        matrix = np.asarray(found[roi])
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise DataError(
                f"{roi} must be a matrix of numbers, got {matrix.dtype} of shape "
                f"{matrix.shape}",
                path,
            )
        if len(matrix) != n_pictures:
            raise DataError(
                f"{roi} has {len(matrix)} rows for {n_pictures} pictures in the list: "
                "are both of this subject?",
                path,
            )
        matrices[roi] = matrix.astype(np.float64)
    return matrices


def _check_widths(
    volume: str, widths: list[int], first: list[int], rois: Sequence[str]
) -> None:
    for roi, width, expected in zip(rois, widths, first, strict=True):
        if width != expected:
            raise DataError(
                f"{roi} has {width} voxels in the file of {volume} and {expected} in "
                "another: are all of one subject?"
            )


def _targets(rois: Sequence[str], widths: Sequence[int]) -> pd.DataFrame:
    rows = [
        (f"{roi}-{voxel + 1:04d}", roi, roi[0], voxel)
        for roi, width in zip(rois, widths, strict=True)
        for voxel in range(width)
    ]
    return pd.DataFrame(rows, columns=["target", "roi", "hemi", "voxel"])


def _labelled(
    values: NDArray[np.float64],
    pictures: Sequence[str],
    subject: str,
    targets: pd.DataFrame,
    volumes: Sequence[str],
) -> xr.DataArray:
    names = pd.Series([picture.removeprefix("rep_") for picture in pictures])
    place = np.arange(len(pictures))
    responses = response_matrix(
        values,
        onset=_PICTURE_S * (place % _RUN_PICTURES),
        run=[f"{number + 1:03d}" for number in place // _RUN_PICTURES],
        subject=subject,
        stimulus=names.tolist(),
        targets=targets,
        attrs={"units": "arbitrary", "volumes": ",".join(volumes)},
    )
    more: dict[str, Any] = {
        "presentation": ("sample", names.groupby(names).cumcount().to_numpy()),
        "source": ("sample", np.array([_source(n) for n in names], dtype=object)),
    }
    return responses.assign_coords(more)


def _source(name: str) -> str:
    if name.startswith("COCO_"):
        return "COCO"
    return "ImageNet" if _IMAGENET.match(name) else "Scenes"

"""A DICOM series as one volume: slices in the order of their place in the body.

Slices are ordered by their position along the normal of their plane, and must lie at
even distances on one line: a missing, doubled or displaced slice is an error that
names it, for a volume built over it would show a shorter or longer patient.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.io.mri_dicom import Frame, dicom_files, is_dicom, read_frames, read_values

__all__ = ["read_series", "series_volume"]

# Cosines of one plane, and spacings, as they are rounded from slice to slice.
_COSINE_TOLERANCE = 1e-4
# Positions are rounded to 0.001 mm at the worst; a hundredth of a slice is no gap.
_POSITION_TOLERANCE_MM = 0.01
_GAP_TOLERANCE = 0.01
# What may differ between frames of one place, in the order in which it is looked at.
_TELLING = ("ImageType", "FrameType", "EchoTime", "TemporalPosition",
            "AcquisitionNumber")  # fmt: skip


def read_series(
    path: str | Path,
    *,
    series: str | int | None = None,
    select: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Read one DICOM series.

    Parameters
    ----------
    path : path-like
        The folder of the series (or one above it), or one of its files: a file stands
        for the series that it belongs to, with the slices that lie beside it.
    series : str or int, optional
        Which of several: SeriesInstanceUID, SeriesDescription or SeriesNumber.
    select : mapping, optional
        Which of several images of one place: ``{"EchoTime": 4.76}`` (ms, as in the
        header), ``{"ImageType": "FAT"}`` (one of its values).

    Returns
    -------
    image : nibabel.Nifti1Image
        Axes: columns, rows, slices; float32, or float64 where 32 bits are off by more
        than 1e-6 of the largest value. Its affine leads to RAS, mm.
    about : dict
        Acquisition parameters; no field for the patient, the hospital or the day. The
        series description is free text.

    Raises
    ------
    InputMissingError
        If there is no DICOM file.
    UsageError
        If there are several series, or images of one place, and none is chosen.
    DataError
        If a file is damaged, or slices are missing, doubled or displaced.
    """
    frames = _found_frames(Path(path))
    frames = _one_series(frames, series, Path(path))
    for key, wanted in (select or {}).items():
        frames = _selected(frames, key, wanted, Path(path))
    return series_volume(frames, Path(path))


def series_volume(frames: Sequence[Frame], source: Path) -> tuple[Any, dict[str, Any]]:
    """Stack frames of one series; see `read_series`."""
    import nibabel

    _check_one_plane(frames, source)
    ordered, affine = _ordered(frames, source)
    rows, columns = ordered[0].shape
    values: NDArray[Any] = np.empty((columns, rows, len(ordered)), dtype=np.float32)
    place = {(f.path, f.index): k for k, f in enumerate(ordered)}
    for path in dict.fromkeys(f.path for f in ordered):
        own = [f for f in ordered if f.path == path]
        for frame, intensity in _values_of(own):
            if values.dtype == np.float32 and not _is_exact(intensity):
                values = values.astype(np.float64)
            values[:, :, place[path, frame.index]] = intensity.T
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    return image, _common(ordered)


def _values_of(
    frames: list[Frame],
) -> Iterator[tuple[Frame, NDArray[np.float64]]]:
    try:
        yield from read_values(frames)
    except DataError:
        raise
    except Exception as error:  # damage that only reading the pixels shows
        raise DataError(
            f"is a damaged DICOM file ({error}); copy it again", frames[0].path
        ) from error


def _is_exact(values: NDArray[np.float64]) -> bool:
    """Whether 32 bits hold the values as well as a rescale can mean them (1e-6)."""
    largest = np.abs(values).max(initial=0)
    with np.errstate(over="ignore"):
        error = np.abs(values - values.astype(np.float32)).max(initial=0)
    return bool(error <= 1e-6 * largest)


def _found_frames(path: Path) -> list[Frame]:
    if path.is_file():
        if not is_dicom(path):
            raise DataError(
                "is neither NIfTI (.nii, .nii.gz) nor MetaImage (.mha) nor DICOM (no "
                "DICM at byte 128)",
                path,
            )
        chosen = read_frames(path)
        beside = [p for p in sorted(path.parent.iterdir()) if p != path and is_dicom(p)]
        others = [f for p in beside for f in _headers_of_series(p, chosen[0].series)]
        # An enhanced file is a volume of its own.
        return chosen if len(chosen) > 1 else chosen + others
    if not path.is_dir():
        raise InputMissingError(f"{path}: no such file or folder")
    frames = [frame for file in dicom_files(path) for frame in _image_frames(file)]
    if not frames:
        raise InputMissingError(
            f"{path}: holds no DICOM image of MR, CT or PET (files with DICM at byte "
            "128)"
        )
    return frames


def _headers_of_series(path: Path, uid: str) -> list[Frame]:
    """Frames of a neighbour, if it is of the series."""
    import pydicom

    try:
        header = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"],
                                 stop_before_pixels=True)  # fmt: skip
        own = str(header.get("SeriesInstanceUID")) == uid
    except Exception as error:  # as in `read_frames`
        raise DataError(f"is a damaged DICOM file ({error})", path) from error
    return read_frames(path) if own else []


def _image_frames(path: Path) -> list[Frame]:
    """Frames of a file in a folder; reports and segmentations are passed by."""
    import pydicom

    try:
        tags = ["Modality", "Rows", "PhotometricInterpretation"]
        header = pydicom.dcmread(path, specific_tags=tags, stop_before_pixels=True)
        modality, is_image = header.get("Modality"), "Rows" in header
    except Exception as error:  # as in `read_frames`
        raise DataError(f"is a damaged DICOM file ({error})", path) from error
    if not is_image or modality in ("SR", "PR", "KO", "OT", "SEG", "RTSTRUCT"):
        return []
    return read_frames(path)


def _one_series(
    frames: list[Frame], wanted: str | int | None, source: Path
) -> list[Frame]:
    by_uid: dict[str, list[Frame]] = {}
    for frame in frames:
        by_uid.setdefault(frame.series, []).append(frame)
    if wanted is not None:
        by_uid = {
            uid: own
            for uid, own in by_uid.items()
            if str(wanted)
            in (
                uid,
                own[0].about.get("SeriesDescription"),
                str(own[0].about.get("SeriesNumber")),
            )
        } or _no_such_series(wanted, by_uid, source)
    if len(by_uid) == 1:
        return next(iter(by_uid.values()))
    raise UsageError(
        f"{source}: holds {len(by_uid)} series. Choose one by number, description or "
        f"UID, as in load(path, series={_a_number(by_uid)!r}):\n{_listed(by_uid)}"
    )


def _no_such_series(
    wanted: str | int, by_uid: Mapping[str, list[Frame]], source: Path
) -> dict[str, list[Frame]]:
    raise UsageError(f"{source}: has no series {wanted!r}. It has:\n{_listed(by_uid)}")


def _a_number(by_uid: Mapping[str, list[Frame]]) -> Any:
    uid, own = next(iter(by_uid.items()))
    return own[0].about.get("SeriesNumber", uid)


def _listed(by_uid: Mapping[str, list[Frame]]) -> str:
    lines = [
        f"  {own[0].about.get('SeriesNumber', '-')}: "
        f"{own[0].about.get('SeriesDescription', 'no description')} "
        f"({own[0].about['Modality']}, {len(own)} images) {uid}"
        for uid, own in by_uid.items()
    ]
    return "\n".join(lines)


def _selected(frames: list[Frame], key: str, wanted: Any, source: Path) -> list[Frame]:
    def has(frame: Frame) -> bool:
        found = frame.about.get(key)
        if isinstance(found, list):
            return found == wanted or wanted in found
        return bool(found == wanted)

    kept = [frame for frame in frames if has(frame)]
    if not kept:
        values = dict.fromkeys(str(frame.about.get(key)) for frame in frames)
        raise UsageError(
            f"{source}: no image has {key}={wanted!r} (found: {', '.join(values)})"
        )
    return kept


def _check_one_plane(frames: Sequence[Frame], source: Path) -> None:
    first = frames[0]
    for frame in frames[1:]:
        if frame.shape != first.shape:
            raise DataError(
                f"{first.name} has {first.shape} rows and columns, {frame.name} "
                f"{frame.shape}: these are no slices of one volume",
                source,
            )
        turned = np.abs(frame.orientation - first.orientation).max()
        stretched = np.abs(np.subtract(frame.spacing, first.spacing)).max()
        if turned > _COSINE_TOLERANCE or stretched > _COSINE_TOLERANCE:
            raise DataError(
                f"{first.name} and {frame.name} lie in planes of different orientation "
                "or spacing. A localizer shows several planes; choose another series",
                source,
            )


def _ordered(
    frames: Sequence[Frame], source: Path
) -> tuple[list[Frame], NDArray[np.float64]]:
    """Frames from one end to the other, and the affine from indices to RAS (mm)."""
    first = frames[0]
    along_columns, along_rows = first.orientation
    normal = np.cross(along_columns, along_rows)
    heights = np.array([frame.position @ normal for frame in frames])
    order = np.argsort(heights, kind="stable")
    ordered, heights = [frames[i] for i in order], heights[order]
    if len(ordered) == 1:
        if first.thickness <= 0:
            raise DataError(
                "is a single slice that states no thickness, so that its voxels have "
                "no third dimension",
                first.path,
            )
        step = normal * first.thickness
    else:
        _check_spacing(ordered, heights, source)
        ends = ordered[-1].position - ordered[0].position
        step = ends / (len(ordered) - 1)
        _check_line(ordered, step, source)
    affine = np.eye(4)
    affine[:3, 0] = along_columns * first.spacing[1]
    affine[:3, 1] = along_rows * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].position
    # DICOM counts to the left and to the back, NIfTI to the right and to the front.
    return ordered, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_spacing(
    ordered: Sequence[Frame], heights: NDArray[np.float64], source: Path
) -> None:
    gaps = np.diff(heights)
    doubled = np.flatnonzero(gaps < _POSITION_TOLERANCE_MM)
    if len(doubled):
        a, b = ordered[doubled[0]], ordered[doubled[0] + 1]
        raise _doubled(a, b, len(doubled), ordered, source)
    usual = float(np.median(gaps))
    tolerance = max(_POSITION_TOLERANCE_MM, _GAP_TOLERANCE * usual)
    uneven = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if not len(uneven):
        return
    places = [
        f"{gaps[i]:.4g} mm between {ordered[i].name} and {ordered[i + 1].name}"
        for i in uneven[:5]
    ]
    whole = np.round(gaps[uneven] / usual)
    n_missing = int((whole - 1).sum())
    missing = np.abs(gaps[uneven] - whole * usual).max() <= tolerance and n_missing > 0
    what = f"{n_missing} of its slices are missing" if missing else "gaps are uneven"
    raise DataError(
        f"{what}: slices lie {usual:.4g} mm apart, but {'; '.join(places)}. Export "
        "the series again, or resample it outside of neuromm",
        source,
    )


def _doubled(
    a: Frame, b: Frame, n_doubled: int, ordered: Sequence[Frame], source: Path
) -> DataError | UsageError:
    for key in _TELLING:
        if a.about.get(key) != b.about.get(key):
            values = dict.fromkeys(repr(frame.about.get(key)) for frame in ordered)
            return UsageError(
                f"{source}: holds several images of one place, which differ in {key} "
                f"({', '.join(values)}). Choose, as in load(path, "
                f"select={{{key!r}: …}})"
            )
    return DataError(
        f"{n_doubled} slices are there twice: {a.name} and {b.name} lie at one place. "
        "Remove the copies, or the other time points",
        source,
    )


def _check_line(
    ordered: Sequence[Frame], step: NDArray[np.float64], source: Path
) -> None:
    start = ordered[0].position
    # Unequal rounding of gaps adds up along a stack; a slice aside does not stay small.
    tolerance = max(
        _POSITION_TOLERANCE_MM, _GAP_TOLERANCE * float(np.linalg.norm(step))
    )
    for k, frame in enumerate(ordered):
        distance = float(np.linalg.norm(frame.position - (start + k * step)))
        if distance > tolerance:
            raise DataError(
                f"{frame.name} lies {distance:.3g} mm beside the line of the other "
                "slices",
                source,
            )


def _common(frames: Sequence[Frame]) -> dict[str, Any]:
    """Parameters that all slices share, in the units of BIDS, and what was done."""
    first = frames[0].about
    about = {
        key: value
        for key, value in first.items()
        if key != "NumberOfFrames" and all(f.about.get(key) == value for f in frames)
    }
    for key in ("EchoTime", "RepetitionTime"):  # DICOM: ms, BIDS: s
        if isinstance(about.get(key), int | float):
            about[key] = about[key] / 1000
    if any(f.about["PhotometricInterpretation"] == "MONOCHROME1" for f in frames):
        about["Inverted"] = "MONOCHROME1: largest stored value minus value"
    return about

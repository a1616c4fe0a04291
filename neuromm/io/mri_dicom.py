"""DICOM images as frames: where each lies, and how its numbers become intensities.

A frame is one slice: a classic file holds one, an enhanced (multi-frame) file many.
Nothing here trusts file names or instance numbers, and no field for the patient,
the hospital or the day is handed on.

References
----------
DICOM PS3.3: C.7.6.2 (Image Plane), C.7.6.16 (Multi-frame Functional Groups), C.7.6.3
(Image Pixel), C.11.1 (Modality LUT).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError

__all__ = ["Frame", "dicom_files", "is_dicom", "read_frames", "read_values"]

_MAGIC_AT = 128
# More is no series; it is an archive, or a folder that was named by mistake.
_MOST_FILES = 100_000
# A compressed file may claim any size: 1 GiB is 500 frames of 1024 x 1024, 16 bits.
_MOST_BYTES = 2**30
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MODALITIES = ("MR", "CT", "PT")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One slice of a DICOM file.

    Attributes
    ----------
    path, index : Path, int
        The file, and the number of the frame in it from 0.
    series : str
        SeriesInstanceUID.
    about : mapping
        What tells frames of one place apart (``EchoTime``, ``ImageType``, …), and the
        non-identifying acquisition parameters.
    shape : tuple of int
        Rows and columns.
    position : array of shape (3,)
        Centre of the first pixel in the patient's frame of DICOM (left, posterior,
        superior; mm).
    orientation : array of shape (2, 3)
        Directions in which the column index and the row index grow.
    spacing : tuple of float
        Between rows and between columns, mm.
    thickness : float
        Of the slice as the header states it, mm, else the distance to the next; 0 if
        neither is stated.
    slope, intercept : float
        Stored value to intensity.
    """

    path: Path
    index: int
    series: str
    about: Mapping[str, Any]
    shape: tuple[int, int]
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    slope: float
    intercept: float

    @property
    def name(self) -> str:
        """For messages: the file, and the frame where it has several."""
        if self.about["NumberOfFrames"] == 1:
            return self.path.name
        return f"{self.path.name} frame {self.index + 1}"


def is_dicom(path: Path) -> bool:
    """Whether a file has the preamble of DICOM."""
    try:
        with open(path, "rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def dicom_files(folder: Path) -> Iterator[Path]:
    """DICOM files below a folder, in order of their paths; links are not followed.

    A DICOMDIR is left out: it only points at the others.
    """
    seen = 0
    for place, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            path = Path(place, name)
            seen += 1
            if seen > _MOST_FILES:
                raise DataError(
                    f"holds more than {_MOST_FILES:,} files; name the folder of one "
                    "study or series",
                    folder,
                )
            if name != "DICOMDIR" and path.is_file() and is_dicom(path):
                yield path


def read_frames(path: Path) -> list[Frame]:
    """Read the headers of a file's frames; pixels stay on disk.

    Parameters
    ----------
    path : Path
        A file of any of the MR, CT and PET image kinds, single or enhanced.

    Raises
    ------
    DataError
        If the file is damaged, is no image of a plane in the body, is in colour, or
        is a mosaic.
    """
    import pydicom

    try:
        _refuse_deflated(path)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        return _frames(header, path)
    except (DataError, InputMissingError):
        raise
    except Exception as error:  # pydicom lets through whatever damage leads to
        raise DataError(
            f"is a damaged DICOM file, or lacks what an image must have ({error})", path
        ) from error


def read_values(frames: Sequence[Frame]) -> Iterator[tuple[Frame, NDArray[np.float64]]]:
    """Intensities of frames of one file, each (rows, columns).

    Stored bits alone count (others may hold an overlay); MONOCHROME1, which is shown
    with its lowest value as white, is inverted within the range that its bits can
    hold; then slope and intercept apply.

    Raises
    ------
    DataError
        If the pixels are cut, or compressed in a way that cannot be read.
    """
    path = frames[0].path
    dataset, pixels = _pixels(path)
    bits = int(dataset.BitsStored)
    signed = int(dataset.PixelRepresentation) == 1
    inverted = frames[0].about["PhotometricInterpretation"] == "MONOCHROME1"
    pixels = pixels.reshape(-1, *frames[0].shape)
    for frame in frames:
        stored = pixels[frame.index].astype(np.int64) & ((1 << bits) - 1)
        if signed:
            stored -= (stored >> (bits - 1)) << bits
        if inverted:
            stored = -1 - stored if signed else (1 << bits) - 1 - stored
        yield frame, stored * frame.slope + frame.intercept


def _pixels(path: Path) -> tuple[Any, NDArray[Any]]:
    import pydicom

    dataset = pydicom.dcmread(path)
    if "PixelData" not in dataset:
        raise DataError("is truncated: it holds no pixels; copy it again", path)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    sample_bytes = (int(dataset.BitsAllocated) + 7) // 8
    expected = int(dataset.Rows) * int(dataset.Columns) * n_frames * sample_bytes
    found = len(dataset.PixelData)
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if expected > (_MOST_BYTES if compressed else found):
        raise DataError(
            f"its header states {expected:,} bytes of pixels, the file holds {found:,}"
            f"{' compressed' if compressed else ''}: it is truncated or its header "
            "damaged; copy it again",
            path,
        )
    try:
        return dataset, dataset.pixel_array
    except Exception as error:  # a decoder may fail in its own ways
        syntax = dataset.file_meta.TransferSyntaxUID.name
        cure = (
            " Decompress it, for example with gdcmconv --raw, or install a decoder: "
            'pip install "pylibjpeg[all]"'
            if compressed
            else ""
        )
        raise DataError(
            f"its pixels ({syntax}) cannot be read ({error}).{cure}", path
        ) from error


def _refuse_deflated(path: Path) -> None:
    """Deflated headers unpack to any size before anything can be checked."""
    from pydicom.filereader import read_file_meta_info

    if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
        raise DataError(
            "is deflated as a whole, which is not read; rewrite it, for example with "
            "dcmconv +te",
            path,
        )


def _frames(header: Any, path: Path) -> list[Frame]:
    modality = header.get("Modality")
    if modality not in _MODALITIES:
        raise DataError(
            f"expected an image of {', '.join(_MODALITIES)}, got the modality "
            f"{modality}",
            path,
        )
    photometric = header.get("PhotometricInterpretation", "")
    if not photometric.startswith("MONOCHROME") or header.SamplesPerPixel != 1:
        raise DataError(
            f"is a picture in colour ({photometric}), such as a screen capture, and "
            "no measured image",
            path,
        )
    if "MOSAIC" in header.get("ImageType", ()):
        raise DataError(
            "is a mosaic (a whole volume tiled in one picture); convert the series to "
            "NIfTI, for example with dcm2niix",
            path,
        )
    if int(header.Rows) < 1 or int(header.Columns) < 1:
        raise DataError(f"states {header.Rows} rows, {header.Columns} columns", path)
    n_frames = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None and n_frames > 1:
        raise DataError(
            f"holds {n_frames} frames without functional groups, so that nobody knows "
            "where they lie",
            path,
        )
    if groups is not None and len(groups) != n_frames:
        raise DataError(f"describes {len(groups)} of its {n_frames} frames", path)
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    about = _about(header) | {"NumberOfFrames": n_frames}
    parts = [[header]] if groups is None else [[g, shared] for g in groups]
    return [_frame(header, part, about, path, i) for i, part in enumerate(parts)]


def _frame(
    header: Any, parts: list[Any], about: dict[str, Any], path: Path, index: int
) -> Frame:
    def value(sequence: str, keyword: str, default: Any = None) -> Any:
        """From the header of a classic file, or a functional group of an enhanced."""
        for part in parts:
            place = part if part is header else ((part or {}).get(sequence) or [{}])[0]
            found = place.get(keyword)
            if found is not None and found != "":
                return found
        return default

    position = value("PlanePositionSequence", "ImagePositionPatient")
    orientation = value("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = value("PixelMeasuresSequence", "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        raise DataError(
            "does not state where it lies (ImagePositionPatient, "
            "ImageOrientationPatient, PixelSpacing)",
            path,
        )
    thickness = value("PixelMeasuresSequence", "SliceThickness") or value(
        "PixelMeasuresSequence", "SpacingBetweenSlices", 0.0
    )
    own = {
        "EchoTime": value("MREchoSequence", "EffectiveEchoTime")
        or about.get("EchoTime"),
        "FrameType": value("MRImageFrameTypeSequence", "FrameType"),
        "TemporalPosition": value("FrameContentSequence", "TemporalPositionIndex")
        or about.get("TemporalPosition"),
    }
    numbers = np.array([*position, *orientation, *spacing], dtype=np.float64)
    directions = numbers[3:9].reshape(2, 3)
    row_mm, column_mm = float(numbers[9]), float(numbers[10])
    # Two unit vectors at a right angle, as far as 16 characters a number allow.
    skew = np.abs(directions @ directions.T - np.eye(2)).max()
    if not np.isfinite(numbers).all() or skew > 1e-3 or min(row_mm, column_mm) <= 0:
        raise DataError(
            "states a plane that cannot be: its directions are no unit vectors at a "
            "right angle, or a spacing is not positive",
            path,
        )
    rescale = "PixelValueTransformationSequence"
    return Frame(
        path=path,
        index=index,
        series=str(header.SeriesInstanceUID),
        about=about | {k: _plain(v) for k, v in own.items() if v is not None},
        shape=(int(header.Rows), int(header.Columns)),
        position=numbers[:3],
        orientation=directions,
        spacing=(row_mm, column_mm),
        thickness=abs(float(thickness)),
        slope=float(value(rescale, "RescaleSlope", 1.0)),
        intercept=float(value(rescale, "RescaleIntercept", 0.0)),
    )


_KEPT = {
    "Modality": "Modality", "SeriesDescription": "SeriesDescription",
    "SeriesNumber": "SeriesNumber", "ImageType": "ImageType", "EchoTime": "EchoTime",
    "RepetitionTime": "RepetitionTime", "FlipAngle": "FlipAngle",
    "MagneticFieldStrength": "MagneticFieldStrength", "Manufacturer": "Manufacturer",
    "SliceThickness": "SliceThickness", "RescaleType": "RescaleType",
    "AcquisitionNumber": "AcquisitionNumber",
    "PhotometricInterpretation": "PhotometricInterpretation",
    "TemporalPositionIdentifier": "TemporalPosition",
}  # fmt: skip


def _about(header: Any) -> dict[str, Any]:
    """Acquisition parameters; no field for the patient, the hospital or the day."""
    found = {ours: header.get(keyword) for keyword, ours in _KEPT.items()}
    return {k: _plain(v) for k, v in found.items() if v is not None and v != ""}


def _plain(value: Any) -> Any:
    """A DICOM value as a string, a number or a list of these."""
    if isinstance(value, str):
        return str(value).strip()
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return int(value) if float(value).is_integer() else float(value)

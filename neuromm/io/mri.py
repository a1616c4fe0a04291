"""Structural MRI: NIfTI, MetaImage and DICOM volumes, alone or several on one grid.

A volume is a nibabel image whose affine leads to RAS (mm). Several modalities of one
patient (fat, in-phase, opposed-phase and water; T1 and T2) are one sample whose
``data`` maps names to images, once their grids are known to be one.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, Sample, UsageError
from neuromm.core.files import read_json, write_json, write_text
from neuromm.io import metaimage, mri_dicom, volumes
from neuromm.io.bids_name import parse_name
from neuromm.io.content import require_content
from neuromm.io.mri_grid import (
    GRID_TOLERANCE_MM,
    Interpolation,
    check_one_grid,
    resampled,
)
from neuromm.io.mri_series import read_series
from neuromm.io.reader import Reader

__all__ = ["READER", "combine", "load", "load_labels", "stacked", "write_example"]

_DICOM_EXTENSIONS = (".dcm", ".ima")
_TO_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
# In no other unit than mm would the voxels of a scan of a patient lie in this range.
_PLAUSIBLE_MM = (0.02, 50.0)


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
    series: str | int | None = None,
    select: Mapping[str, Any] | None = None,
) -> Sample:
    """Open one volume.

    Parameters
    ----------
    path : path-like
        A ``.nii``, ``.nii.gz`` or ``.mha``, a folder of DICOM files, or one file of a
        DICOM series, which stands for the series with the slices beside it.
    entities, metadata, companions : mapping, optional
        As in `neuromm.core.Sample`; those of the file name and of the ``.json`` beside
        it if not given.
    series, select : optional
        Which of several DICOM series, and which of several images of one place; see
        `neuromm.io.mri_series.read_series`.

    Returns
    -------
    sample : Sample
        ``data`` is a 3-D nibabel image. NIfTI values are read on demand; a single
        volume that is stored as 4-D is taken as 3-D. DICOM and MetaImage values are
        in memory. Intensities have no unit, except for CT (``RescaleType`` in the
        metadata says HU).

    Raises
    ------
    InputMissingError
        If there is no such file.
    UsageError
        If a DICOM folder holds several series or images of one place; the message
        lists them.
    DataError
        If the file is damaged, is a series of volumes or a single picture, has no
        known unit of length, or slices are missing, doubled or displaced.

    Warns
    -----
    UserWarning
        If a NIfTI file states no orientation.
    """
    path = require_content(path)
    found: Mapping[str, Any]
    if path.name.lower().endswith(volumes.EXTENSIONS) and not path.is_dir():
        image, found = _nifti(path), _sidecar(path)
    elif path.name.lower().endswith(metaimage.EXTENSIONS):
        image, found = metaimage.read_metaimage(path), _sidecar(path)
    else:
        image, found = read_series(path, series=series, select=select)
    return Sample(
        data=image,
        modality="mri",
        entities=_name_entities(path) if entities is None else entities,
        source=path,
        metadata=found if metadata is None else metadata,
        companions=companions or {},
    )


def combine(
    samples: Mapping[str, Sample],
    *,
    resample_to: str | Path | None = None,
    interpolation: Interpolation = "linear",
    tolerance_mm: float = GRID_TOLERANCE_MM,
    entities: Mapping[str, str] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> Sample:
    """Make one sample of several volumes of one patient.

    Parameters
    ----------
    samples : mapping of str to Sample
        By the name of the modality, each of one volume: ``{"fat": load(…), …}``.
    resample_to : str or path-like, optional
        Bring volumes that lie on another grid to that of this modality, or of this
        NIfTI file. If not given, another grid is an error.
    interpolation : {"linear", "continuous", "nearest"}
        How to resample; see `neuromm.io.mri_grid.resampled`.
    tolerance_mm : float
        Largest distance between the corners of two grids that count as one.
    entities : mapping of str to str, optional
        Those that all samples share if not given.
    companions : mapping of str to Path, optional
        Such as ``{"labels": path}``.

    Returns
    -------
    sample : Sample
        ``data`` is ``{modality: image}`` in the order given, all on one grid.
        ``metadata["Modalities"]`` holds the metadata of each, and
        ``metadata["Resampled"]`` a record of each that was resampled.

    Raises
    ------
    DataError
        If grids differ and no resampling is asked for, or do not overlap.
    UsageError
        If there is no sample, or ``resample_to`` is neither a modality nor a file.
    """
    if not samples:
        raise UsageError("there is no volume to combine")
    joined = [n for n, sample in samples.items() if isinstance(sample.data, Mapping)]
    if joined:
        raise UsageError(
            f"{', '.join(joined)}: expected samples of one volume each, got several "
            "that are combined already"
        )
    images = {name: sample.data for name, sample in samples.items()}
    first = next(iter(samples.values()))
    records: dict[str, Any] = {}
    if resample_to is not None:
        target = _target(resample_to, images)
        for name, image in images.items():
            try:
                check_one_grid({"": target, name: image}, tolerance_mm=tolerance_mm)
            except DataError:
                images[name], records[name] = _moved(
                    samples[name], target, resample_to, interpolation
                )
    check_one_grid(
        images,
        tolerance_mm=tolerance_mm,
        source=first.source,
        cure=(
            "If they were scanned in one session and the patient lay still, resample "
            f"them: resample_to={next(iter(images))!r}. Otherwise register them first"
        ),
    )
    metadata = {
        "Modalities": {name: dict(sample.metadata) for name, sample in samples.items()}
    }
    return Sample(
        data=images,
        modality="mri",
        entities=_shared_entities(samples) if entities is None else entities,
        source=first.source,
        metadata=metadata | ({"Resampled": records} if records else {}),
        companions=companions or {},
    )


def stacked(
    sample: Sample, modalities: Sequence[str] | None = None
) -> NDArray[np.float32]:
    """Intensities of a sample as one array.

    Parameters
    ----------
    sample : Sample
        As `load` or `combine` gives it.
    modalities : sequence of str, optional
        Names and order wanted; as in the sample if not given.

    Returns
    -------
    volumes : array of shape (n_modalities, n_i, n_j, n_k)
        Along the axes of the grid, with scale factors applied.

    Raises
    ------
    InputMissingError
        If the sample lacks a modality.
    DataError
        If a value is not finite, or larger than 32-bit floats can hold.
    """
    images = sample.data if isinstance(sample.data, Mapping) else {"": sample.data}
    names = list(images) if modalities is None else list(modalities)
    lacking = [name for name in names if name not in images]
    if lacking:
        raise InputMissingError(
            f"{sample.source}: has no {', '.join(lacking)} (found: {', '.join(images)})"
        )
    shape = images[names[0]].shape
    volume = np.empty((len(names), *shape), dtype=np.float32)
    for place, name in zip(volume, names, strict=True):
        # Scaled integers overflow in their own type; nibabel scales in floats.
        with np.errstate(over="ignore"):
            place[...] = np.asanyarray(images[name].dataobj)
        if not np.isfinite(place).all():
            n_bad = int((~np.isfinite(place)).sum())
            raise DataError(
                f"{name or 'the volume'} has {n_bad} voxels that are nan, infinite or "
                "beyond 32-bit floats. Set those outside of the body to 0",
                sample.source,
            )
    return volume


def load_labels(
    sample: Sample,
    path: str | Path | None = None,
    *,
    resample: bool = False,
    tolerance_mm: float = GRID_TOLERANCE_MM,
) -> Any:
    """Read the label image that goes with a sample.

    Parameters
    ----------
    sample : Sample
        Its grid is the one that labels must be on.
    path : path-like, optional
        The label image; the companion ``labels`` of the sample if not given.
    resample : bool
        Bring labels that lie on another grid to the sample's (nearest neighbour).
    tolerance_mm : float
        Largest distance between the corners of two grids that count as one.

    Returns
    -------
    labels : nibabel.Nifti1Image of int32
        Whole numbers, 0 is background. May be empty.

    Raises
    ------
    InputMissingError
        If the sample has no labels.
    DataError
        If values are not whole numbers of 32 bits, or the grid is another one.
    """
    import nibabel

    path = path if path is not None else sample.companions.get("labels")
    if path is None:
        raise InputMissingError(f"{sample.source}: has no labels")
    path = Path(path)
    image = _picture_or_volume(path)
    values = np.asanyarray(image.dataobj)
    with np.errstate(invalid="ignore"):  # nan, which then differs
        whole = values.astype(np.int32)
    # A value out of range wraps around, so that it differs as a fraction does.
    if not np.array_equal(whole, values):
        raise DataError(
            f"expected labels (whole numbers of 32 bits), got values between "
            f"{values.min():.6g} and {values.max():.6g} that are none. Is this a "
            "probability map, or the scan itself?",
            path,
        )
    labels = nibabel.Nifti1Image(whole, image.affine)
    if image.affine is not None:
        labels.header.set_xyzt_units("mm")
    data = sample.data
    target = next(iter(data.values())) if isinstance(data, Mapping) else data
    pair = {"the images": target, "the labels": labels}
    if not resample:
        cure = (
            "Bring the labels to the images with resample=True, if their affine is the "
            "right one"
        )
        check_one_grid(pair, tolerance_mm=tolerance_mm, source=path, cure=cure)
        return labels
    try:
        check_one_grid(pair, tolerance_mm=tolerance_mm)
        return labels
    except DataError:
        return resampled(labels, target, interpolation="nearest")[0]


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write a small BIDS data set: T1w and T2w of one head, of noise, on one grid.

    Parameters
    ----------
    folder : path-like
        Root of the data set; made if it is not there.
    rng : int or Generator
        Seed of the noise.

    Returns
    -------
    path : Path
        The ``_T1w.nii.gz``; its sidecar and the T2w lie beside it.
    """
    import nibabel

    root = Path(folder)
    anat = root / "sub-01" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    description = {"Name": "Example", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_json(root / "dataset_description.json", description)
    write_text(root / "README", "Two volumes of noise, written by neuromm.\n")
    generator = np.random.default_rng(rng)
    affine = np.diag([2.0, 1.5, 1.5, 1.0])
    affine[:3, 3] = -10.0, -12.0, -9.0
    for suffix, echo_time in (("T2w", 0.1), ("T1w", 0.004)):
        noise = generator.normal(500, 50, size=(10, 16, 12)).astype(np.int16)
        image = nibabel.Nifti1Image(noise, affine)
        image.header.set_xyzt_units("mm", "sec")
        path = anat / f"sub-01_{suffix}.nii.gz"
        image.to_filename(path)
        write_json(anat / f"sub-01_{suffix}.json", {"EchoTime": echo_time})
    return path


def _nifti(path: Path) -> Any:
    """One volume in mm, from a file of one volume."""
    image = volumes.open_volume(path)
    if len(image.shape) > 3 and math.prod(image.shape[3:]) == 1:
        image = image.slicer[(slice(None),) * 3 + (0,) * (len(image.shape) - 3)]
    if len(image.shape) != 3:
        what = (
            "a series of volumes, functional or diffusion? A BOLD run is read with "
            "modality='fmri'; of another series take one volume, as with "
            f"nibabel.load({path.name!r}).slicer[..., 0]"
            if len(image.shape) > 3
            else "a single picture, or a row of numbers?"
        )
        raise DataError(
            f"expected one 3-D volume, got {len(image.shape)}-D (shape {image.shape}). "
            f"Is this {what}",
            path,
        )
    return _in_mm(image, path)


def _in_mm(image: Any, path: Path) -> Any:
    import nibabel

    try:
        unit = image.header.get_xyzt_units()[0]
    except KeyError:  # a code that the format does not know
        unit = "unknown"
    scale = _TO_MM.get(unit, 1.0)
    size = np.linalg.norm(image.affine[:3, :3], axis=0) * scale
    if not _PLAUSIBLE_MM[0] <= size.min() <= size.max() <= _PLAUSIBLE_MM[1]:
        raise DataError(
            f"its voxels measure {' x '.join(f'{s:.4g}' for s in size)} mm (unit in "
            f"the header: {unit}), which no scan of a patient has. Correct the unit "
            "with nibabel's header.set_xyzt_units, or the affine",
            path,
        )
    header = image.header
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warnings.warn(
            f"{path}: states no orientation (sform and qform codes are 0), so that "
            "left and right and places in mm are a guess. Write the affine, for "
            "example by converting the DICOM series again",
            stacklevel=4,
        )
    if scale == 1.0:
        return image
    affine = np.diag([scale, scale, scale, 1.0]) @ image.affine
    moved = nibabel.Nifti1Image(image.dataobj, affine, image.header)
    moved.header.set_xyzt_units("mm")
    return moved


def _picture_or_volume(path: Path) -> Any:
    from neuromm.io.mri_pictures import EXTENSIONS, read_picture

    if path.name.lower().endswith(EXTENSIONS):
        return read_picture(path)
    return load(path).data


def _target(resample_to: str | Path, images: Mapping[str, Any]) -> Any:
    if isinstance(resample_to, str) and resample_to in images:
        return images[resample_to]
    if not Path(resample_to).exists():
        raise UsageError(
            f"resample_to={str(resample_to)!r} is neither a modality (there are: "
            f"{', '.join(images)}) nor a file"
        )
    return load(resample_to).data


def _moved(
    sample: Sample, target: Any, name: str | Path, interpolation: Interpolation
) -> tuple[Any, dict[str, Any]]:
    if sample.data.affine is None or target.affine is None:
        raise DataError(
            "has no place in the world, so it cannot be resampled", sample.source
        )
    try:
        image, record = resampled(sample.data, target, interpolation=interpolation)
    except DataError as error:
        raise DataError(str(error), sample.source) from error
    return image, {"To": Path(name).name, **record}


def _shared_entities(samples: Mapping[str, Sample]) -> Mapping[str, str]:
    first, *others = [dict(sample.entities) for sample in samples.values()]
    shared = {
        name: label
        for name, label in first.items()
        if all(other.get(name) == label for other in others)
    }
    return MappingProxyType(shared)


def _sidecar(path: Path) -> dict[str, Any]:
    beside = path.with_name(path.name.partition(".")[0] + ".json")
    return read_json(beside) if beside.is_file() else {}


def _name_entities(path: Path) -> Mapping[str, str]:
    name = parse_name(path.name)
    return {} if name is None else name.entities


def _fits(path: Path) -> bool:
    if path.is_dir():
        return next(mri_dicom.dicom_files(path), None) is not None
    if path.name.lower().endswith(volumes.EXTENSIONS):
        shape = volumes.stated_shape(path) or ()
        return len(shape) >= 3 and math.prod(shape[3:]) == 1
    return mri_dicom.is_dicom(path)


READER = Reader(
    name="mri",
    extensions=(*volumes.EXTENSIONS, *metaimage.EXTENSIONS, *_DICOM_EXTENSIONS),
    datatype="anat",
    description="structural MRI: NIfTI, MetaImage and DICOM series (also CT)",
    load=load,
    write_example=write_example,
    suffixes=("T1w", "T2w", "T2starw", "FLAIR", "PDw", "PDT2", "inplaneT1",
              "inplaneT2", "T1map", "T2map", "MEGRE", "VFA"),
    fits=_fits,
)  # fmt: skip

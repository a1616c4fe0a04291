"""Values of targets as files on their own grid or mesh: NIfTI volumes and GIFTI."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import OutputError
from neuromm.core.files import atomic_path, write_json
from neuromm.report.naming import bids_name

__all__ = ["with_sidecars", "write_native"]

# Okabe and Ito's colours, without black.
_COLOURS = (
    (0.84, 0.37, 0.0), (0.9, 0.62, 0.0), (0.34, 0.71, 0.91), (0.0, 0.62, 0.45),
    (0.94, 0.89, 0.26), (0.0, 0.45, 0.7), (0.8, 0.47, 0.65),
)  # fmt: skip


def write_native(
    folder: Path,
    labels: Mapping[str, str],
    suffix: str,
    native: Any,
    *,
    names: Mapping[int, str] | None = None,
) -> list[Path] | None:
    """Write what ``TargetSpace.to_native`` gives; one file, or one a hemisphere.

    Parameters
    ----------
    folder : Path
    labels : mapping
        Entities of the name.
    suffix : str
    native : nibabel image, or mapping of hemisphere to GIFTI
    names : mapping of int to str, optional
        Name of each label, 0 among them: values are labels and nan is 0. Without,
        values are 32-bit floats and nan is kept.

    Returns
    -------
    paths : list of Path or None
        None if the native object is neither: for sensors and contacts the table is the
        map.
    """
    if hasattr(native, "affine") and hasattr(native, "dataobj"):
        path = folder / bids_name(labels, suffix, ".nii.gz")
        _write_volume(path, native, np.float32 if names is None else np.uint8)
        return [path]
    if isinstance(native, Mapping) and all(
        hasattr(value, "darrays") for value in native.values()
    ):
        return _write_hemispheres(folder, labels, suffix, native, names)
    return None


def with_sidecars(paths: Sequence[Path], sidecar: Mapping[str, Any]) -> list[Path]:
    """Write the same JSON beside each file; give all paths."""
    written = list(paths)
    for path in paths:
        stem = path.name.split(".", 1)[0]
        written.append(write_json(path.with_name(f"{stem}.json"), sidecar))
    return written


def _write_volume(path: Path, image: Any, dtype: Any) -> None:
    import nibabel as nib

    values = np.asarray(image.dataobj)
    if np.issubdtype(dtype, np.integer):
        values = np.rint(np.nan_to_num(values))
    header = image.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm", "sec")
    written = nib.Nifti1Image(values.astype(dtype), image.affine, header)
    with atomic_path(path) as temporary:
        # nibabel stores neither time nor name in the gzip header: equal bytes.
        nib.save(written, temporary)


def _write_hemispheres(
    folder: Path,
    labels: Mapping[str, str],
    suffix: str,
    native: Mapping[str, Any],
    names: Mapping[int, str] | None,
) -> list[Path]:
    paths = []
    for side, image in native.items():
        hemisphere = str(side)[0].upper()
        extension = ".func.gii" if names is None else ".label.gii"
        name = bids_name({**labels, "hemisphere": hemisphere}, suffix, extension)
        values = np.asarray(image.darrays[0].data)
        if names is None:
            _write_surface(folder / name, values, hemisphere)
        else:
            _write_labels(folder / name, values, hemisphere, names)
        paths.append(folder / name)
    return paths


def _write_surface(path: Path, values: np.ndarray, hemisphere: str) -> None:
    import nibabel as nib

    array = nib.gifti.GiftiDataArray(
        values.astype(np.float32),
        intent="NIFTI_INTENT_SHAPE",
        datatype="NIFTI_TYPE_FLOAT32",
    )
    _save_gifti(path, [array], None, hemisphere)


def _write_labels(
    path: Path, values: np.ndarray, hemisphere: str, names: Mapping[int, str]
) -> None:
    import nibabel as nib

    array = nib.gifti.GiftiDataArray(
        np.rint(np.nan_to_num(values)).astype(np.int32),
        intent="NIFTI_INTENT_LABEL",
        datatype="NIFTI_TYPE_INT32",
    )
    table = nib.gifti.GiftiLabelTable()
    for key, name in names.items():
        colour = _COLOURS[(key - 1) % len(_COLOURS)]
        label = nib.gifti.GiftiLabel(key, *colour, 1.0 if key else 0.0)
        label.label = name
        table.labels.append(label)
    _save_gifti(path, [array], table, hemisphere)


def _save_gifti(
    path: Path, arrays: list[Any], labeltable: Any, hemisphere: str
) -> None:
    import nibabel as nib

    cortex = {"L": "CortexLeft", "R": "CortexRight"}.get(hemisphere)
    if cortex is None:
        raise OutputError(f"{path}: a hemisphere must be L or R, got '{hemisphere}'")
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": cortex})
    image = nib.gifti.GiftiImage(darrays=arrays, labeltable=labeltable, meta=meta)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)

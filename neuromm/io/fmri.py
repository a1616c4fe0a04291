"""Functional MRI: NIfTI volumes and GIFTI surfaces, raw or from fMRIPrep."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, Sample
from neuromm.core.files import read_json, write_json, write_text
from neuromm.io import surfaces, volumes
from neuromm.io.bids_name import parse_name
from neuromm.io.confounds import load_confounds
from neuromm.io.reader import Reader
from neuromm.io.volumes import check_same_grid, load_mask

__all__ = [
    "READER",
    "check_same_grid",
    "load",
    "load_confounds",
    "load_mask",
    "repetition_time",
    "write_example",
]

_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_TOLERANCE_S = 1e-3
# No volume takes longer; larger values are milliseconds under the wrong unit.
_LONGEST_TR_S = 100.0


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> Sample:
    """Open a functional run.

    Parameters
    ----------
    path : path-like
        A 4-D ``.nii`` or ``.nii.gz``, or the ``.func.gii`` of either hemisphere; its
        sibling is found beside it.
    entities : mapping of str to str, optional
        BIDS entities; those of the file name if not given.
    metadata : mapping, optional
        Merged sidecar; the ``.json`` beside the file if not given.
    companions : mapping of str to Path, optional
        Files that go with it: ``events``, ``confounds``, ``mask``.

    Returns
    -------
    sample : Sample
        ``data`` is a nibabel image that reads on demand, or for surfaces
        ``{"left": GiftiImage, "right": GiftiImage}`` (then without the entity
        ``hemisphere``). Values are as the scanner or fMRIPrep left them; nan and
        constant voxels are dealt with in `neuromm.prepare`.

    Raises
    ------
    InputMissingError
        If the file or the other hemisphere is not there.
    DataError
        If it is damaged, or no series.
    """
    path = Path(path)
    found = dict(_name_entities(path) if entities is None else entities)
    if path.name.lower().endswith(surfaces.EXTENSIONS):
        data: Any = surfaces.open_surface_pair(path)
        found.pop("hemisphere", None)
    else:
        data = volumes.open_volume(path)
        _check_series(data.shape, path)
    return Sample(
        data=data,
        modality="fmri",
        entities=found,
        source=path,
        metadata=_sidecar(path) if metadata is None else metadata,
        companions=companions or {},
    )


def repetition_time(sample: Sample) -> float:
    """Time from one volume to the next.

    The JSON sidecar and the NIfTI header both state it, and must agree. A header whose
    time unit is unknown states nothing of its own: its number is only checked, as
    seconds or milliseconds, and 1 (what writers put that know no time) is ignored.

    Parameters
    ----------
    sample : Sample
        Of modality ``"fmri"``.

    Returns
    -------
    t_r : float
        Seconds.

    Raises
    ------
    DataError
        If header and sidecar differ by more than 1 ms, if neither states it, or if it
        is not plausible.
    """
    stated = _sidecar_t_r(sample)
    known, number = _header_t_r(sample)
    if stated is not None:
        readings = [known] if known else [number, number / 1000] if number else []
        if readings and min(abs(stated - r) for r in readings) > _TOLERANCE_S:
            raise DataError(
                f"its header states a repetition time of {readings[0]:g} s, its "
                f"sidecar {_sidecar_name(sample)} {stated:g} s. Correct the wrong one",
                sample.source,
            )
        return stated
    if known is None:
        found = f" ({number:g}, without a unit)" if number else ""
        raise DataError(
            f"neither its header{found} nor a sidecar states the repetition time: add "
            f'"RepetitionTime" in seconds to {_sidecar_name(sample)}',
            sample.source,
        )
    return _plausible(known, "its header", sample)


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write a small BIDS dataset of one run: 20 volumes of noise, 2 s apart.

    Parameters
    ----------
    folder : path-like
        Root of the dataset.
    rng : int or Generator
        Seed of the noise.

    Returns
    -------
    path : Path
        The ``_bold.nii.gz``; its sidecar and events lie beside it.
    """
    import nibabel

    root = Path(folder)
    func = root / "sub-01" / "func"
    func.mkdir(parents=True, exist_ok=True)
    description = {"Name": "Example", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_json(root / "dataset_description.json", description)
    write_text(root / "README", "One run of noise, written by neuromm.\n")
    path = func / "sub-01_task-film_bold.nii.gz"
    noise = np.random.default_rng(rng).normal(1000, 20, size=(6, 7, 5, 20))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -9.0, -9.0, -6.0
    image = nibabel.Nifti1Image(noise.astype(np.int16), affine)
    image.header.set_zooms((3.0, 3.0, 3.0, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)
    sidecar = {"TaskName": "film", "RepetitionTime": 2.0}
    write_json(func / "sub-01_task-film_bold.json", sidecar)
    events = pd.DataFrame(
        {
            "onset": np.arange(2.0, 34.0, 4.0),
            "duration": 2.0,
            "trial_type": ["face", "house"] * 4,
        }
    )
    table = events.to_csv(sep="\t", index=False, na_rep="n/a")
    write_text(func / "sub-01_task-film_events.tsv", table)
    return path


def _check_series(shape: tuple[int, ...], path: Path) -> None:
    if len(shape) != 4:
        raise DataError(
            f"expected a 4-D series, got {len(shape)}-D (shape {shape}). Is this a "
            "mask, an anatomical image or a mean image?",
            path,
        )
    if shape[3] < 2:
        raise DataError(
            f"expected a series of at least two volumes, got {shape[3]} (shape "
            f"{shape}). Is this a single-band reference or a mean image?",
            path,
        )


def _fits(path: Path) -> bool:
    shape = volumes.stated_shape(path) or ()
    return len(shape) == 4 and shape[3] > 1


def _sidecar(path: Path) -> dict[str, Any]:
    beside = _sidecar_path(path)
    return read_json(beside) if beside.is_file() else {}


def _sidecar_t_r(sample: Sample) -> float | None:
    if "RepetitionTime" not in sample.metadata:
        if "VolumeTiming" in sample.metadata:
            raise DataError(
                "volumes at irregular times (VolumeTiming) are not supported; "
                "RepetitionTime is needed",
                sample.source,
            )
        return None
    stated = sample.metadata["RepetitionTime"]
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise DataError(
            f"RepetitionTime must be a number of seconds, got {json.dumps(stated)} in "
            f"{_sidecar_name(sample)}",
            sample.source,
        )
    return _plausible(float(stated), f"its sidecar {_sidecar_name(sample)}", sample)


def _header_t_r(sample: Sample) -> tuple[float | None, float]:
    """Seconds if the header states them; and the bare number, 0 if it means nothing."""
    if isinstance(sample.data, Mapping):  # GIFTI has no field for it
        return None, 0.0
    header = sample.data.header
    number = float(header.get_zooms()[3])
    try:
        unit = header.get_xyzt_units()[1]
    except KeyError:  # a code that the format does not know
        unit = "unknown"
    if not math.isfinite(number) or number <= 0:
        return None, 0.0
    if unit in _SECONDS:
        # The header holds 32-bit floats: 0.8 s is 0.800000012.
        return round(number * _SECONDS[unit], 6), number
    return None, 0.0 if number == 1.0 else number


def _plausible(t_r: float, where: str, sample: Sample) -> float:
    if not 0 < t_r <= _LONGEST_TR_S:
        hint = " Is it in milliseconds?" if t_r > _LONGEST_TR_S else ""
        raise DataError(
            f"{where} states a repetition time of {t_r:g} s, which cannot be.{hint}",
            sample.source,
        )
    return t_r


def _sidecar_name(sample: Sample) -> str:
    """The sidecar that states RepetitionTime, by the inheritance principle of BIDS."""
    if sample.source is None:
        return "the JSON sidecar"
    entities = _name_entities(sample.source).items()
    for folder in sample.source.parents:
        for candidate in sorted(folder.glob("*bold.json")):
            inherited = _name_entities(candidate).items() <= entities
            if inherited and "RepetitionTime" in read_json(candidate):
                return str(candidate)
        if (folder / "dataset_description.json").is_file():
            break
    return str(_sidecar_path(sample.source))


def _sidecar_path(path: Path) -> Path:
    return path.with_name(path.name.partition(".")[0] + ".json")


def _name_entities(path: Path) -> Mapping[str, str]:
    name = parse_name(path.name)
    return {} if name is None else name.entities


READER = Reader(
    name="fmri",
    extensions=(*volumes.EXTENSIONS, *surfaces.EXTENSIONS),
    datatype="func",
    description="functional MRI: NIfTI volumes and GIFTI surfaces",
    load=load,
    write_example=write_example,
    suffixes=("bold",),
    fits=_fits,
)

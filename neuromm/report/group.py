"""What subjects have in common: mean maps, and mean scores of regions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.atlas import in_mni_family
from neuromm.core.files import atomic_path, write_json
from neuromm.report.naming import bids_name, contrast_label, label_of
from neuromm.report.sidecars import write_tsv
from neuromm.report.summary import channel_peaks, region_table
from neuromm.report.units import Unit, read_subjects

__all__ = [
    "GroupMap",
    "region_means",
    "same_grid",
    "write_group_maps",
    "write_region_means",
]

_FOLDER = "group"
_COLUMNS = {
    "unit": "Task and space",
    "datatype": "Folder of BIDS: func, eeg, meg or ieeg",
    "space": "Feature space; joint: all of them together",
    "region": "Label of the atlas",
    "mean_r": "Mean over subjects of each subject's mean r in the region; r at its "
    "highest over time where targets are resolved in time",
    "sem_r": "Standard error of mean_r over subjects",
    "n_subjects": "Subjects with a target in the region",
    "n_targets": "Targets of all subjects in the region",
}


@dataclass(frozen=True)
class GroupMap:
    """Mean map of one feature space.

    Attributes
    ----------
    unit : str
        Task and space.
    space : str
        Feature space.
    frame : str
    n_subjects : int
    mean : Path or mapping of "L" and "R" to Path
        A volume, or both hemispheres.
    left_out : tuple of str
        Subjects on another grid.
    """

    unit: str
    space: str
    frame: str
    n_subjects: int
    mean: Path | dict[str, Path]
    left_out: tuple[str, ...] = ()


def write_group_maps(
    output_dir: str | Path, subjects: Mapping[str, Sequence[Unit]] | None = None
) -> list[GroupMap]:
    """Write mean and standard error of r across subjects, where grids agree.

    Volumes in MNI space and fsaverage surfaces are averaged; spaces of single subjects
    are not. Sessions of a subject are averaged first.

    Parameters
    ----------
    output_dir : path-like
    subjects : mapping of str to sequence of Unit, optional
        `neuromm.report.units.read_subjects` of the folder if not given.

    Returns
    -------
    maps : list of GroupMap
        Those with two or more subjects.
    """
    folder = Path(output_dir, _FOLDER)
    subjects = read_subjects(output_dir) if subjects is None else subjects
    maps = []
    for name, members in _by_unit(subjects):
        frame = next(iter(members.values()))[0].frame
        if not in_mni_family(frame):
            continue
        spaces = [
            space for units in members.values() for u in units for space in u.spaces
        ]
        for space in dict.fromkeys(spaces):
            written = _mean_volume(folder, Path(output_dir), name, space, members)
            written = written or _mean_surface(
                folder, Path(output_dir), name, space, members
            )
            if written is not None:
                maps.append(written)
    return maps


def region_means(subjects: Mapping[str, Sequence[Unit]]) -> pd.DataFrame:
    """Mean score of each region over subjects, best first.

    Returns
    -------
    regions : DataFrame
        ``unit``, ``datatype``, ``space``, ``region``, ``mean_r``, ``sem_r`` (nan for
        one subject), ``n_subjects``, ``n_targets``.
    """
    tables = []
    for subject, units in subjects.items():
        for unit in units:
            table = region_table(channel_peaks(unit.table)).drop(
                columns="n_significant"
            )
            if table.empty:
                continue
            table["subject"] = subject
            table["unit"], table["datatype"] = _shared_name(unit), unit.datatype
            tables.append(table)
    if not tables:
        return pd.DataFrame(columns=list(_COLUMNS))
    keys = ["unit", "datatype", "space", "region"]
    every = pd.concat(tables, ignore_index=True)
    order = {space: i for i, space in enumerate(dict.fromkeys(every["space"]))}
    every["space"] = every["space"].astype(str)
    every["region"] = every["region"].astype(str)
    one = every.groupby([*keys, "subject"], as_index=False, sort=False).agg(
        mean_r=("mean_r", "mean"), n_targets=("n_targets", "sum")
    )
    means = one.groupby(keys, as_index=False, sort=False).agg(
        mean_r=("mean_r", "mean"),
        sem_r=("mean_r", "sem"),
        n_subjects=("subject", "nunique"),
        n_targets=("n_targets", "sum"),
    )
    means["_order"] = means["space"].map(order)
    means = means.sort_values(
        ["unit", "datatype", "_order", "mean_r", "region"],
        ascending=[True, True, True, False, True],
    )
    return means[list(_COLUMNS)].reset_index(drop=True)


def write_region_means(output_dir: str | Path, means: pd.DataFrame) -> list[Path]:
    """Write ``group_desc-encoding_regions.tsv`` and its sidecar."""
    path = Path(output_dir, "group_desc-encoding_regions.tsv")
    write_tsv(path, means)
    columns = {name: {"Description": text} for name, text in _COLUMNS.items()}
    sidecar = {"Description": "Scores of regions over subjects", **columns}
    return [path, write_json(path.with_suffix(".json"), sidecar)]


def _by_unit(
    subjects: Mapping[str, Sequence[Unit]],
) -> Iterator[tuple[str, dict[str, list[Unit]]]]:
    keys = {(u.datatype, _shared_name(u)) for units in subjects.values() for u in units}
    for datatype, name in sorted(keys):
        members = {
            subject: [
                unit
                for unit in units
                if (unit.datatype, _shared_name(unit)) == (datatype, name)
            ]
            for subject, units in subjects.items()
        }
        yield name, {subject: units for subject, units in members.items() if units}


def _shared_name(unit: Unit) -> str:
    label = label_of(unit.entities, without=("subject", "session"))
    return label or unit.datatype


def _mean_volume(
    folder: Path,
    root: Path,
    name: str,
    space: str,
    members: Mapping[str, Sequence[Unit]],
) -> GroupMap | None:
    import nibabel as nib

    found = {
        subject: [path for unit in units if (path := unit.volume(space))]
        for subject, units in members.items()
    }
    images = {
        subject: [nib.load(path) for path in paths]
        for subject, paths in found.items()
        if paths
    }
    if len(images) < 2:
        return None
    first = next(iter(images.values()))[0]
    kept, left_out = {}, []
    for subject, ones in images.items():
        if all(same_grid(image, first) for image in ones):
            kept[subject] = [np.asarray(image.dataobj) for image in ones]
        else:
            left_out.append(subject)
    if len(kept) < 2:
        return None
    unit = next(iter(members.values()))[0]
    sources = [path for subject in kept for path in found[subject]]
    for label, values in _mean_and_error(list(kept.values())).items():
        path = folder / _name(unit, space, label, None, ".nii.gz")
        image = nib.Nifti1Image(values.astype(np.float32), first.affine)
        image.header.set_xyzt_units("mm", "sec")
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
        _write_sidecar(path, root, unit, space, label, len(kept), sources)
    mean = folder / _name(unit, space, "mean", None, ".nii.gz")
    return GroupMap(name, space, str(unit.frame), len(kept), mean, tuple(left_out))


def _mean_surface(
    folder: Path,
    root: Path,
    name: str,
    space: str,
    members: Mapping[str, Sequence[Unit]],
) -> GroupMap | None:
    import nibabel as nib

    found = {
        subject: [paths for unit in units if (paths := unit.surface(space))]
        for subject, units in members.items()
    }
    found = {subject: pairs for subject, pairs in found.items() if pairs}
    if len(found) < 2:
        return None
    unit = next(iter(members.values()))[0]
    means = {}
    for side, structure in (("L", "CortexLeft"), ("R", "CortexRight")):
        values = [
            [np.asarray(nib.load(pair[side]).darrays[0].data) for pair in pairs]
            for pairs in found.values()
        ]
        if len({v.shape for one in values for v in one}) > 1:
            return None
        sources = [pair[side] for pairs in found.values() for pair in pairs]
        for label, mapped in _mean_and_error(values).items():
            path = folder / _name(unit, space, label, side, ".func.gii")
            array = nib.gifti.GiftiDataArray(
                mapped.astype(np.float32), intent="NIFTI_INTENT_SHAPE"
            )
            meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": structure})
            with atomic_path(path) as temporary:
                nib.save(nib.gifti.GiftiImage(darrays=[array], meta=meta), temporary)
            _write_sidecar(path, root, unit, space, label, len(found), sources)
        means[side] = folder / _name(unit, space, "mean", side, ".func.gii")
    return GroupMap(name, space, str(unit.frame), len(found), means)


def _mean_and_error(
    subjects: Sequence[Sequence[NDArray[np.floating]]],
) -> dict[str, NDArray[np.floating]]:
    """Mean and standard error over subjects; nan where fewer than two have a score."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ones = np.stack([_nanmean(np.stack(sessions)) for sessions in subjects])
        n = np.isfinite(ones).sum(axis=0)
        mean = _nanmean(ones)
        squares = np.nansum((ones - mean) ** 2, axis=0)
        error = np.sqrt(squares / (n - 1) / n)
    return {
        "mean": np.where(n >= 2, mean, np.nan),
        "sem": np.where(n >= 2, error, np.nan),
    }


def _nanmean(values: NDArray[np.floating]) -> NDArray[np.floating]:
    n = np.isfinite(values).sum(axis=0)
    total = np.nansum(values.astype(np.float64), axis=0)
    return np.asarray(np.where(n, total / np.maximum(n, 1), np.nan))


def same_grid(image: Any, other: Any) -> bool:
    """Whether two images have one shape, and affines within 1 um."""
    return image.shape == other.shape and np.allclose(
        image.affine, other.affine, atol=1e-3
    )


def _name(unit: Unit, space: str, label: str, side: str | None, extension: str) -> str:
    labels: dict[str, str | None] = {**unit.entities, "subject": None, "session": None}
    labels |= {
        "hemisphere": side,
        "contrast": contrast_label(space),
        "stat": "r",
        "description": label,
    }
    return bids_name(labels, "statmap", extension)


def _write_sidecar(
    path: Path,
    root: Path,
    unit: Unit,
    space: str,
    label: str,
    n_subjects: int,
    sources: Sequence[Path],
) -> None:
    quantity = {"mean": "Mean", "sem": "Standard error of the mean"}[label]
    sidecar = {
        "Description": f"{quantity} of held-out Pearson's r across subjects; feature "
        f"space: {space}",
        "Sources": [f"bids::{p.relative_to(root).as_posix()}" for p in sources],
        "SpatialReference": unit.sidecar.get("SpatialReference", "n/a"),
        "NumberOfSubjects": n_subjects,
    }
    write_json(path.with_name(path.name.split(".", 1)[0] + ".json"), sidecar)

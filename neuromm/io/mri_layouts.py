"""Published and BIDS folders of MRI as studies: a row a scan, with its patient.

What lies on disk:

    IVDM3Seg   01/01_fat.nii 01/01_inn.nii 01/01_opp.nii 01/01_wat.nii 01/01_Labels.nii
    SPIDER     images/1_t1.mha images/1_t2.mha masks/1_t1.mha masks/1_t2.mha
    slices     images/1_t2_SPACE_slice60.png masks/1_t2_SPACE_slice60.png
    BIDS       sub-01/anat/sub-01_T1w.nii.gz sub-01/anat/sub-01_T2w.nii.gz
    folders    01/T1.nii.gz 01/T2.nii.gz 01/labels.nii.gz, or 01/T1/ of DICOM files

Every row names its patient in ``subject``, by whom splits are made.

References
----------
IVDM3Seg, MICCAI 2018 challenge on segmentation of intervertebral discs from
multi-modality MR images.
van der Graaf JW et al. (2024) Lumbar spine segmentation in MR images: a dataset and a
public benchmark. Scientific Data 11:264 (SPIDER).
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from neuromm.core import InputMissingError, Sample, Study, UsageError
from neuromm.io import mri
from neuromm.io.bids_name import BidsFile, Wanted, natural_key
from neuromm.io.content import require_content
from neuromm.io.layout import AncpLayout, require_dataset
from neuromm.io.mri_pictures import read_picture
from neuromm.io.mri_rows import (
    Missing,
    VolumeLoader,
    existing_folder,
    scan_row,
    study_of,
    volumes_in,
)

__all__ = [
    "IVDM3SEG_MODALITIES",
    "SPIDER_SLICE_LABELS",
    "open_anat",
    "open_folders",
    "open_ivdm3seg",
    "open_spider",
    "open_spider_slices",
]

IVDM3SEG_MODALITIES = ("fat", "inn", "opp", "wat")
"""Fat, in-phase, opposed-phase and water image of a Dixon scan, as the files say it."""

SPIDER_SLICE_LABELS: Mapping[str, int] = MappingProxyType(
    {"background": 0, "disc": 29, "vertebra": 76, "canal": 150}
)
"""Grey values of the masks that go with pictures of SPIDER slices."""

_SLICE = re.compile(r"(?P<subject>\d+)_(?P<contrast>\w+?)_slice(?P<slice>\d+)")


def open_ivdm3seg(
    root: str | Path,
    *,
    modalities: Sequence[str] = IVDM3SEG_MODALITIES,
    subjects: Mapping[str, str] | None = None,
    missing: Missing = "raise",
    resample_to: str | None = None,
) -> Study:
    """List the sets of IVDM3Seg.

    Parameters
    ----------
    root : path-like
        Folder of the numbered folders.
    modalities : sequence of str
        Those wanted, in this order.
    subjects : mapping of str to str, optional
        Folder to person, ``{"01": "a", "02": "a", …}``. The sets are two scans of each
        person, and the files don't say which two: without it, each folder counts as a
        person of its own, and a split may have one person on both sides.
    missing : {"raise", "drop", "allow"}
        What to do with a set that lacks a wanted modality: refuse, leave the set out,
        or keep it with those that it has.
    resample_to : str, optional
        Modality to whose grid the others are brought; see `neuromm.io.mri.combine`.

    Returns
    -------
    study : Study
        A row a set, with ``set`` (the folder), ``modalities`` (tuple of those that it
        has) and ``labels`` (path or None). A sample's ``data`` maps modalities to
        images; labels are read by `neuromm.io.mri.load_labels`.

    Raises
    ------
    InputMissingError
        If there is no set, or a modality is missing and that is not allowed.
    UsageError
        If ``subjects`` does not name each folder.

    Warns
    -----
    UserWarning
        If ``subjects`` is not given.
    """
    root = existing_folder(root)
    rows = []
    for place in sorted(root.iterdir(), key=lambda p: natural_key(p.name)):
        files = volumes_in(place) if place.is_dir() else {}
        own = {
            name: files[key]
            for name in modalities
            if (key := f"{place.name}_{name}".lower()) in files
        }
        if not own:
            continue
        labels = next(
            (
                files[key]
                for word in ("labels", "label")
                if (key := f"{place.name}_{word}".lower()) in files
            ),
            None,
        )
        person = _person(place.name, subjects)
        rows.append(scan_row(person, own, labels, root) | {"set": place.name})
    if not rows:
        raise InputMissingError(
            f"{root}: no set of IVDM3Seg. Expected folders such as 01 with 01_fat.nii, "
            "01_inn.nii, 01_opp.nii, 01_wat.nii"
        )
    if subjects is None:
        warnings.warn(
            f"{root}: each of {len(rows)} sets counts as a person of its own, though "
            "the sets are two scans of each person. Give subjects={folder: person}, "
            "or a split may have one person on both sides",
            stacklevel=2,
        )
    return study_of(rows, modalities, missing, resample_to)


def open_spider(
    root: str | Path,
    *,
    modalities: Sequence[str] = ("t1", "t2"),
    labels_of: str | None = None,
    missing: Missing = "raise",
    resample_to: str | None = None,
) -> Study:
    """List the patients of SPIDER.

    Parameters
    ----------
    root : path-like
        Folder with ``images`` and ``masks`` (``.mha`` as published, or converted to
        NIfTI).
    modalities : sequence of str
        Of ``t1``, ``t2``, ``t2_SPACE``, in this order. T2-SPACE has another grid: it
        needs ``resample_to`` beside the others.
    labels_of : str, optional
        The modality whose mask is taken; the first if not given.
    missing, resample_to
        As in `open_ivdm3seg`.

    Returns
    -------
    study : Study
        A row a patient, with ``modalities`` and ``labels``. In the masks vertebrae
        count from 1 upwards from L5, the canal is 100, partly visible vertebrae are
        101 and more, discs 201 and more, from L5/S1.

    Raises
    ------
    InputMissingError
        If a folder, every volume, or a modality that may not be missing is not there.
    UsageError
        If ``labels_of`` is none of the modalities.
    """
    root = existing_folder(root)
    masked = modalities[0] if labels_of is None else labels_of
    if masked not in modalities:
        raise UsageError(f"labels_of={masked!r} is none of {', '.join(modalities)}")
    images, masks = (
        volumes_in(existing_folder(root / "images")),
        volumes_in(root / "masks"),
    )
    patients = {key.partition("_")[0] for key in images}
    rows = []
    for patient in sorted(patients, key=natural_key):
        own = {
            name: images[key]
            for name in modalities
            if (key := f"{patient}_{name}".lower()) in images
        }
        if own:
            labels = masks.get(f"{patient}_{masked}".lower())
            rows.append(scan_row(patient, own, labels, root))
    if not rows:
        raise InputMissingError(
            f"{root}: no volume of {', '.join(modalities)} in images. Expected files "
            f"such as images/1_{modalities[0]}.mha"
        )
    return study_of(rows, modalities, missing, resample_to)


def open_folders(
    root: str | Path,
    *,
    modalities: Sequence[str],
    missing: Missing = "raise",
    resample_to: str | None = None,
) -> Study:
    """List folders of subjects that hold one volume, or DICOM folder, a modality.

    Parameters
    ----------
    root : path-like
        Folder of the subjects' folders; names of these are the subjects, ``sub-`` left
        out.
    modalities : sequence of str
        Names of the volumes, in this order: ``01/T2.nii.gz``, ``01/T2.mha`` or a folder
        ``01/T2`` of DICOM files for ``T2``.
    missing, resample_to
        As in `open_ivdm3seg`.

    Returns
    -------
    study : Study
        A row a subject, with ``modalities`` and ``labels``, the volume ``labels`` of
        the folder, or None.

    Raises
    ------
    InputMissingError
        If there is no such folder, or a modality is missing and that is not allowed.
    """
    root = existing_folder(root)
    rows = []
    for place in sorted(root.iterdir(), key=lambda p: natural_key(p.name)):
        if not place.is_dir():
            continue
        files = {path.name.lower(): path for path in place.iterdir() if path.is_dir()}
        files |= volumes_in(place)
        own = {
            name: files[name.lower()] for name in modalities if name.lower() in files
        }
        if own:
            subject = place.name.removeprefix("sub-")
            rows.append(scan_row(subject, own, files.get("labels"), root))
    if not rows:
        raise InputMissingError(
            f"{root}: no folder of a subject holds {' or '.join(modalities)}. Expected "
            f"such as 01/{modalities[0]}.nii.gz, or DICOM files in 01/{modalities[0]}"
        )
    return study_of(rows, modalities, missing, resample_to)


def open_spider_slices(root: str | Path) -> Study:
    """List pictures of SPIDER slices with their masks.

    Parameters
    ----------
    root : path-like
        Folder with ``images`` and ``masks``, which hold files of the same names.

    Returns
    -------
    study : Study
        A row a slice, with ``slice`` (its number in the volume) and ``labels``;
        ``subject`` is the patient. A sample's ``data`` maps the contrast
        (``t2_SPACE``) to an image of shape (n_rows, n_columns, 1) whose affine is
        None, for a picture has no millimetres. Values of the masks are those of
        `SPIDER_SLICE_LABELS`.

    Raises
    ------
    InputMissingError
        If there is no picture, or one has no mask; the message names it.
    """
    root = existing_folder(root)
    rows = []
    for path in sorted((root / "images").glob("*.png"), key=_by_name):
        match = _SLICE.fullmatch(path.stem)
        if match is None:
            continue
        mask = root / "masks" / path.name
        if not mask.is_file():
            raise InputMissingError(f"{path}: has no mask {mask}")
        row = scan_row(match["subject"], {match["contrast"]: path}, mask, root)
        rows.append(row | {"slice": match["slice"]})
    if not rows:
        raise InputMissingError(
            f"{root}: no picture of a slice. Expected files such as "
            "images/1_t2_SPACE_slice60.png"
        )
    contrasts = dict.fromkeys(name for row in rows for name in row["modalities"])
    return Study(
        pd.DataFrame(rows), VolumeLoader(tuple(contrasts), None, _load_picture)
    )


def open_anat(
    root: str | Path,
    *,
    modalities: Sequence[str] = ("T1w", "T2w"),
    participant_label: Sequence[str] | None = None,
    entities: Mapping[str, Wanted] | None = None,
    labels: str | Path | None = None,
    missing: Missing = "raise",
    resample_to: str | None = None,
) -> Study:
    """List the anatomical scans of a BIDS data set, a row a subject and session.

    Parameters
    ----------
    root : path-like
        A data set, raw or derivative.
    modalities : sequence of str
        BIDS suffixes, in this order.
    participant_label : sequence of str, optional
        Subjects to keep, without ``sub-``; all if not given.
    entities : mapping, optional
        Which of several scans of one suffix: ``{"acquisition": "sag", "run": "1",
        "space": None}`` (None: without the entity).
    labels : path-like, optional
        A derivative data set whose ``_dseg`` or ``_mask`` goes with each row.
    missing, resample_to
        As in `open_ivdm3seg`. Raw scans of one session seldom share a grid.

    Returns
    -------
    study : Study
        A row a subject and session, with ``modalities`` and ``labels``.

    Raises
    ------
    InputMissingError
        If a folder, every scan, or a modality that may not be missing is not there.
    UsageError
        If a session has several scans of one suffix; the message lists them.
    """
    layout = AncpLayout(require_dataset(root), subjects=participant_label)
    drawn = (
        None
        if labels is None
        else AncpLayout(require_dataset(labels, derivative=Path(labels).name))
    )
    found: dict[tuple[str, str | None], dict[str, BidsFile]] = {}
    for suffix in modalities:
        wanted = {"suffix": suffix, "datatype": "anat", **(entities or {})}
        for file in _volume_files(layout, wanted):
            key = (file.entities.get("subject", ""), file.entities.get("session"))
            _add(found.setdefault(key, {}), suffix, file, "entities={'run': '1'}")
    rows = []
    for (subject, session), files in found.items():
        own = {s: files[s].path for s in modalities if s in files}
        mask = None if drawn is None else _drawn_labels(drawn, subject, session)
        row = scan_row(subject, own, mask, layout.root)
        rows.append(row | {"session": session})
    if not rows:
        raise InputMissingError(
            f"{layout.root}: no anatomical scan of {', '.join(modalities)}. Expected "
            f"files such as sub-01/anat/sub-01_{modalities[0]}.nii.gz"
        )
    rows.sort(key=lambda row: natural_key(f"{row['subject']} {row['session'] or ''}"))

    def read(path: Path) -> Sample:
        return mri.load(path, metadata=layout.metadata(path))

    return study_of(rows, modalities, missing, resample_to, read)


def _person(folder: str, subjects: Mapping[str, str] | None) -> str:
    if subjects is None:
        return folder
    if folder not in subjects:
        raise UsageError(
            f"subjects does not say whose scan {folder} is (it names: "
            f"{', '.join(subjects)})"
        )
    return subjects[folder]


def _by_name(path: Path) -> tuple[Any, ...]:
    return natural_key(path.name)


def _load_picture(path: Path) -> Sample:
    return Sample(data=read_picture(path), modality="mri", source=path)


def _volume_files(layout: AncpLayout, wanted: Mapping[str, Wanted]) -> list[BidsFile]:
    found = layout.find({**wanted, "extension": (".nii.gz", ".nii")})
    for file in found:
        require_content(file.path)
    return found


def _add(files: dict[str, BidsFile], suffix: str, file: BidsFile, cure: str) -> None:
    if suffix in files:
        raise UsageError(
            f"{file.path.parent}: holds several scans {suffix}, such as "
            f"{files[suffix].path.name} and {file.path.name}. Choose one by its "
            f"entities, as in {cure}"
        )
    files[suffix] = file


def _drawn_labels(layout: AncpLayout, subject: str, session: str | None) -> Path | None:
    wanted: dict[str, Wanted] = {"subject": subject, "session": session}
    files: Iterable[BidsFile] = _volume_files(
        layout, {"suffix": ("dseg", "mask"), "datatype": "anat", **wanted}
    )
    found: dict[str, BidsFile] = {}
    for file in files:
        _add(found, "dseg or mask", file, "a derivative that holds one")
    return found["dseg or mask"].path if found else None

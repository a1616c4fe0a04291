"""Training samples of ``neuromm segment fit``, scaled once and read from the disk."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, OutputError
from neuromm.io import mri
from neuromm.models import IVDNetConfig
from neuromm.prepare import SagittalOrder
from neuromm_pipelines.segment_scans import (
    Scan,
    Values,
    classes_of,
    scaled_volume,
)

__all__ = ["Slices", "check_scan", "written_slices"]

_MULTIPLE = 16
_UNLABELLED = -1


@dataclass(frozen=True)
class Slices:
    """Slices, or in 3-D volumes, of all scans, padded to one size.

    Attributes
    ----------
    images : array of float32 of shape (n_samples, n_modalities, [depth,] height, width)
        A memmap.
    labels : array of int64 of shape (n_samples, [depth,] height, width)
        A memmap; -1 where there is only padding.
    available : array of bool of shape (n_samples, n_modalities)
    scan : array of int of shape (n_samples,)
        Number of the scan.
    spacing_mm : array of shape (n_scans, 2)
        To the front and up.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    available: NDArray[np.bool_]
    scan: NDArray[np.int64]
    spacing_mm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {
            "images": torch.from_numpy(np.array(self.images[index])),
            "labels": torch.from_numpy(np.array(self.labels[index])),
            "available": torch.from_numpy(self.available[index]),
            "volume": torch.tensor(int(self.scan[index])),
        }


def written_slices(
    scans: Sequence[Scan],
    modalities: Sequence[str],
    classes: Mapping[str, Values],
    config: IVDNetConfig,
    folder: Path,
    *,
    may_lack: bool,
) -> Slices:
    """Scale all scans and write their slices into a folder.

    Raises
    ------
    neuromm.core.InputMissingError
        If a scan has no labels, or lacks a modality that it may not lack.
    neuromm.core.DataError
        If labels are empty of every class, or scans cannot be read.
    neuromm.core.OutputError
        If the disk has no room.
    """
    shapes = []
    for scan in scans:
        check_scan(scan, modalities, may_lack=may_lack)
        image = next(iter(scan.load().data.values()))
        axes = SagittalOrder(image.affine).axes
        shapes.append(tuple(image.shape[axis] for axis in axes))
    depth, *sides = (max(shape[axis] for shape in shapes) for axis in range(3))
    padded = tuple(-(-side // _MULTIPLE) * _MULTIPLE for side in sides)
    is_flat = config.spatial_dims == 2
    if not is_flat:
        padded = (-(-depth // _MULTIPLE) * _MULTIPLE, *padded)
    n_samples = sum(shape[0] for shape in shapes) if is_flat else len(scans)
    _check_room(folder, n_samples * int(np.prod(padded)) * (4 * len(modalities) + 8))
    images = _file(folder / "images.npy", (n_samples, len(modalities), *padded), "f4")
    labels = _file(folder / "labels.npy", (n_samples, *padded), "i8")
    labels[...] = _UNLABELLED
    available, which, spacings, done = [], [], [], 0
    for number, scan in enumerate(scans):
        sample = scan.load()
        scaled, present, order = scaled_volume(sample, modalities, config.scaling)
        truth = classes_of(
            order.turned(np.asarray(mri.load_labels(sample).dataobj)), classes
        )
        if not truth.any():
            raise DataError(
                f"{scan.name}: its labels hold none of the classes "
                f"{', '.join(classes)}. Does --classes name the values of the masks?",
                sample.companions.get("labels"),
            )
        parts = list(scaled.swapaxes(0, 1)) if is_flat else [scaled]
        masks = list(truth) if is_flat else [truth]
        for part, mask in zip(parts, masks, strict=True):
            inside = tuple(slice(side) for side in mask.shape)
            images[(done, slice(None), *inside)] = part
            labels[(done, *inside)] = mask
            available.append(present)
            which.append(number)
            done += 1
        spacings.append(order.spacing_mm[1:])
    images.flush()
    labels.flush()
    return Slices(
        images, labels, np.array(available), np.array(which), np.array(spacings)
    )


def check_scan(scan: Scan, modalities: Sequence[str], *, may_lack: bool) -> None:
    """Refuse a scan without labels, or without a modality that it may not lack."""
    if not scan.has_labels:
        raise InputMissingError(
            f"{scan.name}: has no labels to train on. Leave it out with "
            "--participant-label, or give its mask"
        )
    lacking = [name for name in modalities if name not in scan.modalities]
    if lacking and not may_lack:
        raise InputMissingError(
            f"{scan.name}: has no {', '.join(lacking)}. Leave it out with "
            "--participant-label, or train with --modality-dropout, after which scans "
            "may lack modalities"
        )


def _file(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _check_room(folder: Path, n_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OutputError(
            f"scaled slices take {n_bytes / 1e9:.3g} GB, and {folder} has "
            f"{free / 1e9:.3g} GB free. Choose a folder on a larger disk"
        )

"""Dixon scans of spines with discs whose masks, centres and volumes are known.

Three columns of vertebrae stand behind each other. One, drawn for each spine, has discs
between its vertebrae; the others have decoys of the discs' size and place. By their
share of fat and of water (in-phase = fat + water, opposed-phase = |water - fat|):

    tissue           fat   water  in-phase  opposed-phase
    muscle           0.05  0.35   0.40      0.30
    vertebra         0.60  0.40   1.00      0.20
    disc             0.05  0.80   0.85      0.75
    decoy, mixed     0.60  0.80   1.40      0.20
    decoy, swapped   0.80  0.05   0.85      0.75

So no image alone tells a disc by its intensity: in the fat image it is as muscle, in
the water image as a mixed decoy, and in-phase and opposed-phase as a swapped one. Fat
and water together do.

References
----------
Dixon WT (1984) Simple proton spectroscopic imaging. Radiology 153:189-194.
Shapes and sizes follow no atlas; they are made for tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from neuromm.core.files import atomic_path

__all__ = ["DIXON_TISSUES", "DixonSpine", "make_dixon_spines"]

Array = NDArray[np.floating]

DIXON_TISSUES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "muscle": (0.05, 0.35),
        "vertebra": (0.6, 0.4),
        "disc": (0.05, 0.8),
        "mixed": (0.6, 0.8),
        "swapped": (0.8, 0.05),
    }
)
"""Fat and water of each tissue, as shares of the brightest possible voxel."""

_UNIT = 1000  # intensity of a voxel that is all fat, or all water
_COLUMNS_MM = (-40.0, 0.0, 40.0)  # places of the columns from back to front
_STEP_MM = 22.0  # from disc to disc
_DISC_MM = np.array([18.0, 13.0, 4.5])  # half axes: right, front, up
_BOX_MM = np.array([19.0, 14.0, 6.0])  # half sides of a vertebra
_SWAPPED_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class DixonSpine:
    """One scan and its truth.

    Attributes
    ----------
    name : str
        Number of the scan, ``"01"``, …: the folder in the layout of IVDM3Seg.
    subject : str
        The person; scans of one person share the anatomy.
    images : dict of str to array of int16, shape (n_i, n_j, n_k)
        ``fat``, ``inn``, ``opp``, ``wat``; 1000 is a voxel that is all fat or all
        water, without bias and noise.
    affine : array of shape (4, 4)
        Voxel indices to RAS, mm.
    discs : array of uint8, shape (n_i, n_j, n_k)
        1 for the lowest disc, and so on upwards; 0 elsewhere. A voxel belongs to a
        disc if its centre does.
    centres_mm : array of shape (n_discs, 3)
        RAS, from below.
    volumes_mm3 : array of shape (n_discs,)
        Of the ellipsoids, from below.
    decoys_mm : array of shape (2 * n_discs, 3)
        Centres of the decoys, RAS.
    decoy_kinds : tuple of str
        ``"mixed"`` or ``"swapped"``, one a decoy.
    """

    name: str
    subject: str
    images: dict[str, NDArray[np.int16]]
    affine: Array
    discs: NDArray[np.uint8]
    centres_mm: Array
    volumes_mm3: Array
    decoys_mm: Array
    decoy_kinds: tuple[str, ...]


def make_dixon_spines(
    n_subjects: int = 4,
    *,
    n_scans: int = 1,
    shape: tuple[int, int, int] = (16, 64, 64),
    spacing_mm: tuple[float, float, float] = (4.0, 2.0, 2.0),
    tilt_deg: float = 0.0,
    n_discs: int = 5,
    noise: float = 0.04,
    bias: float = 0.2,
    folder: str | Path | None = None,
    rng: int | np.random.Generator = 0,
) -> list[DixonSpine]:
    """Simulate Dixon scans of spines, sagittal slices along the first axis.

    Parameters
    ----------
    n_subjects, n_scans : int
        Persons, and scans of each; scans differ in noise and bias alone.
    shape : tuple of int
        Voxels to the right, to the front and up.
    spacing_mm : tuple of float
        Their size. The default shape covers 64 x 128 x 128 mm, which five discs need.
    tilt_deg : float
        The grid is turned about the axis to the right by this angle, as of an oblique
        scan; the spine is not.
    n_discs : int
        Discs a spine, 22 mm apart.
    noise : float
        Standard deviation in units of the brightest voxel; its magnitude is taken.
    bias : float
        Largest natural logarithm, or so, of the smooth gain that all four images share.
    folder : path-like, optional
        Write the scans there in the layout of IVDM3Seg (`open_ivdm3seg` reads it);
        labels are 0 and 1.
    rng : int or Generator

    Returns
    -------
    spines : list of DixonSpine
        Scans of one person follow each other.

    Raises
    ------
    ValueError
        If a number is out of range, or a disc would lie outside of the grid.
    """
    if n_subjects < 1 or n_scans < 1 or n_discs < 1 or noise < 0:
        raise ValueError(
            "n_subjects, n_scans and n_discs must be positive and noise not negative, "
            f"got {n_subjects}, {n_scans}, {n_discs} and {noise:g}"
        )
    generator = np.random.default_rng(rng)
    affine = _affine(shape, spacing_mm, tilt_deg)
    spines: list[DixonSpine] = []
    for person in range(n_subjects):
        anatomy = _Anatomy.draw(generator, n_discs)
        for _ in range(n_scans):
            spine = _scan(
                generator, anatomy, shape, affine, noise, bias,
                name=f"{len(spines) + 1:02d}", subject=f"{person + 1:02d}",
            )  # fmt: skip
            spines.append(spine)
    if folder is not None:
        for spine in spines:
            _write(spine, Path(folder))
    return spines


@dataclass(frozen=True, kw_only=True)
class _Anatomy:
    """Centres and half axes of what is drawn, in RAS mm."""

    discs: Array
    decoys: Array
    kinds: tuple[str, ...]
    vertebrae: Array
    half_axes: Array

    @classmethod
    def draw(cls, generator: np.random.Generator, n_discs: int) -> "_Anatomy":
        heights = (np.arange(n_discs) - (n_discs - 1) / 2) * _STEP_MM
        heights = heights + generator.uniform(-4, 4)
        between = np.append(heights - _STEP_MM / 2, heights[-1] + _STEP_MM / 2)
        aside, curve = generator.uniform(-4, 4), generator.uniform(-5, 5)

        def places(column_mm: float, at: Array) -> Array:
            front = column_mm + curve * (at / 50) ** 2
            return np.stack([np.full(len(at), aside), front, at], axis=1)

        columns = np.array(_COLUMNS_MM) + generator.uniform(-2, 2)
        own = int(generator.integers(len(columns)))
        others = [c for k, c in enumerate(columns) if k != own]
        swapped = generator.random(2 * n_discs) < _SWAPPED_SHARE
        return cls(
            discs=places(columns[own], heights),
            decoys=np.concatenate([places(c, heights) for c in others]),
            kinds=tuple("swapped" if s else "mixed" for s in swapped),
            vertebrae=np.concatenate([places(c, between) for c in columns]),
            half_axes=_DISC_MM * generator.uniform(0.9, 1.1, size=3),
        )


def _affine(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], tilt_deg: float
) -> Array:
    """Grid that is centred on the origin of the world."""
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    affine = np.eye(4)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine[:3, :3] = turn * np.array(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _scan(
    generator: np.random.Generator,
    anatomy: _Anatomy,
    shape: tuple[int, int, int],
    affine: Array,
    noise: float,
    bias: float,
    *,
    name: str,
    subject: str,
) -> DixonSpine:
    indices = np.indices(shape).reshape(3, -1)
    world = (affine[:3, :3] @ indices + affine[:3, 3:]).T
    _check_inside(anatomy, affine, shape)
    tissue = np.full(len(world), "muscle", dtype="<U8")
    for centre in anatomy.vertebrae:
        inside = (np.abs(world - centre) <= _BOX_MM).all(axis=1)
        tissue[inside] = "vertebra"
    for centre, kind in zip(anatomy.decoys, anatomy.kinds, strict=True):
        tissue[_within(world, centre, anatomy.half_axes)] = kind
    discs = np.zeros(len(world), dtype=np.uint8)
    for k, centre in enumerate(anatomy.discs):
        inside = _within(world, centre, anatomy.half_axes)
        tissue[inside], discs[inside] = "disc", k + 1
    fat, water = (
        np.select([tissue == t for t in DIXON_TISSUES], [v[i] for v in _VALUES])
        for i in (0, 1)
    )
    gain = _gain(generator, indices, shape, bias)
    signals = {
        "fat": fat, "inn": fat + water, "opp": np.abs(water - fat), "wat": water,
    }  # fmt: skip
    images = {
        key: _measured(signal * gain, noise, generator).reshape(shape)
        for key, signal in signals.items()
    }
    volume = 4 / 3 * np.pi * np.prod(anatomy.half_axes)
    return DixonSpine(
        name=name,
        subject=subject,
        images=images,
        affine=affine,
        discs=discs.reshape(shape),
        centres_mm=anatomy.discs,
        volumes_mm3=np.full(len(anatomy.discs), volume),
        decoys_mm=anatomy.decoys,
        decoy_kinds=anatomy.kinds,
    )


_VALUES = tuple(DIXON_TISSUES.values())


def _within(world: Array, centre: Array, half_axes: Array) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (((world - centre) / half_axes) ** 2).sum(axis=1) <= 1
    return inside


def _check_inside(
    anatomy: _Anatomy, affine: Array, shape: tuple[int, int, int]
) -> None:
    """A disc that is cut by the grid has another centre and volume than stated."""
    to_index = np.linalg.inv(affine)
    # Reach of an ellipsoid along an axis of the grid: the norm of its scaled row.
    reach = np.linalg.norm(to_index[:3, :3] * anatomy.half_axes, axis=1)
    places = anatomy.discs @ to_index[:3, :3].T + to_index[:3, 3]
    outside = (places - reach < -0.5) | (places + reach > np.array(shape) - 0.5)
    if outside.any():
        raise ValueError(
            f"{int(outside.any(axis=1).sum())} discs would reach beyond the grid of "
            f"{shape} voxels; {len(places)} discs need about 48 x 128 x "
            f"{len(places) * _STEP_MM:.0f} mm"
        )


def _gain(
    generator: np.random.Generator,
    indices: NDArray[np.intp],
    shape: tuple[int, int, int],
    bias: float,
) -> Array:
    """Exponential of a random quadratic of place, as the gain of a surface coil."""
    extent = np.maximum(np.array(shape) - 1, 1)[:, None]
    place = 2 * indices / extent - 1
    terms = np.concatenate([place, place**2 - 1 / 3])
    weights = generator.standard_normal(6)
    field: Array = np.exp(bias * (weights / np.abs(weights).sum()) @ terms)
    return field


def _measured(
    signal: Array, noise: float, generator: np.random.Generator
) -> NDArray[np.int16]:
    """Magnitude of signal and complex noise, in whole numbers."""
    real = signal + noise * generator.standard_normal(signal.shape)
    imaginary = noise * generator.standard_normal(signal.shape)
    return np.round(_UNIT * np.hypot(real, imaginary)).astype(np.int16)


def _write(spine: DixonSpine, folder: Path) -> None:
    import nibabel

    labels = (spine.discs > 0).astype(np.uint8)
    for name, values in {**spine.images, "Labels": labels}.items():
        image = nibabel.Nifti1Image(values, spine.affine)
        image.header.set_xyzt_units("mm")
        with atomic_path(folder / spine.name / f"{spine.name}_{name}.nii") as path:
            image.to_filename(path)

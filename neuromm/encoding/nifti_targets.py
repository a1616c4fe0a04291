"""Targets that are the voxels of a mask in a series of NIfTI runs.

A run lies volume after volume, often compressed in one stream; a fit takes all volumes
of some voxels. So each run is read once, from its first to its last byte, a slab of
volumes at a time, and the voxels in the mask go to scratch in blocks of columns.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.encoding.target_scratch import ScratchColumns, Write
from neuromm.encoding.target_sources import array_digest, file_stamp, targets_stamp
from neuromm.io import volumes
from neuromm.io.content import require_content

__all__ = ["NiftiTargets"]

Array = NDArray[np.floating]

# Volumes pass through a buffer of this size, or one volume if it is larger.
_SLAB_BYTES = 64 * 2**20
# deflate cannot shrink more than 1032 times (258 bytes for 2 bits).
_LARGEST_GZIP_RATIO = 1032
# Some writers pad the end of a file.
_PADDING_BYTES = 2**20
_DAMAGED = (OSError, EOFError, zlib.error, struct.error)


class NiftiTargets:
    """Voxels of a mask in runs that follow one another, as a `TargetSource`.

    Parameters
    ----------
    runs : sequence of path-like or nibabel image
        4-D, on the grid of the mask. Compressed files are unpacked once.
    mask_img : path-like or nibabel image, 3-D
        Other than 0 inside.
    scratch : path-like, optional
        Folder for ``n_samples * n_targets`` values; that of temporary files
        (``TMPDIR``) if not given, where nothing stays. In a folder that is named the
        scratch stays, in ``neuromm-targets``, and the same runs, mask and dtype find it
        again, also in another process.
    dtype : {float32, float64}
        Of what is read. Scale factors are applied in float64.
    non_finite : {"raise", "keep"}
        What to do with nan and infinity inside the mask. Kept, they mark a voxel that
        is not fitted.

    Attributes
    ----------
    shape : (int, int)
        ``(n_samples, n_targets)``: the volumes of all runs one after the other, and
        the voxels in the order of ``nilearn.masking.apply_mask``, so that
        ``nilearn.masking.unmask`` puts values back.
    dtype : dtype
    chunk : int
        Columns of one block of scratch.
    run_lengths : tuple of int
        Volumes of each run, for folds that keep runs together.

    Raises
    ------
    UsageError
        If there is no run, or ``dtype`` is another one.
    InputMissingError
        If a file is not there.
    DataError
        If a run is not 4-D, damaged, or on another grid than the mask, or if the mask
        is empty or not 3-D. Damage inside a compressed run, and values that are not
        finite, are found by the first `read`.

    Examples
    --------
    >>> import nibabel
    >>> run = nibabel.Nifti1Image(np.arange(24.0).reshape(2, 2, 2, 3), np.eye(4))
    >>> inside = np.zeros((2, 2, 2), dtype=np.uint8)
    >>> inside[0, 0, 0] = inside[1, 1, 0] = 1
    >>> mask = nibabel.Nifti1Image(inside, np.eye(4))
    >>> with NiftiTargets([run, run], mask) as targets:
    ...     targets.shape, targets.read(slice(0, 2))[:3]
    ((6, 2), array([[ 0., 18.],
           [ 1., 19.],
           [ 2., 20.]], dtype=float32))
    """

    def __init__(
        self,
        runs: Sequence[Any],
        mask_img: Any,
        *,
        scratch: str | Path | None = None,
        dtype: DTypeLike = np.float32,
        non_finite: Literal["raise", "keep"] = "raise",
    ) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise UsageError(f"dtype must be float32 or float64, got {self.dtype}")
        if non_finite not in ("raise", "keep"):
            raise UsageError(f"non_finite must be 'raise' or 'keep', got {non_finite}")
        if isinstance(runs, (str, Path)) or not hasattr(runs, "__len__") or not runs:
            raise UsageError(
                "runs must be a list of at least one path or 4-D image, got "
                f"{type(runs).__name__}"
            )
        self._keep_non_finite = non_finite == "keep"
        mask, inside, name = _opened_mask(mask_img)
        self._inside = inside
        self._affine = np.asarray(mask.affine, dtype=float)
        self._runs = [_opened_run(run, i) for i, run in enumerate(runs)]
        for run in self._runs:
            volumes.check_same_grid(run.image, mask, run.name, name)
        self.run_lengths = tuple(int(run.image.shape[3]) for run in self._runs)
        self.shape = (sum(self.run_lengths), int(inside.sum()))
        self._scratch = ScratchColumns(
            self.shape,
            self.dtype,
            self._fill,
            folder=None if scratch is None else Path(scratch),
            stamp=lambda: targets_stamp(self),
        )
        self.chunk = self._scratch.chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, columns: slice) -> Array:
        """Read adjacent voxels; the first call reads all runs.

        Parameters
        ----------
        columns : slice
            Without a step.

        Returns
        -------
        batch : array of shape (n_samples, width)

        Raises
        ------
        DataError
            If a run is cut or damaged, or holds values that are not finite.
        OutputError
            If there is no room for the scratch.
        """
        return self._scratch.read(columns)

    def close(self) -> None:
        """Give up the scratch; nothing can be read afterwards."""
        self._scratch.close()

    def origin_stamp(self) -> dict[str, Any]:
        """What the values are made from, as JSON: see `targets_stamp`."""
        return {
            "runs": [run.stamp() for run in self._runs],
            "mask_sha256": array_digest(self._inside),
            "affine_sha256": array_digest(self._affine),
            "non_finite": "keep" if self._keep_non_finite else "raise",
        }

    def _fill(self, write: Write) -> None:
        # Files hold the first axis fastest, boolean indexing gives the last one first.
        order = np.ravel_multi_index(
            np.nonzero(self._inside), self._inside.shape, order="F"
        )
        everything = slice(0, self.shape[1])
        start = 0
        for run in self._runs:
            first = 0
            for values in _slabs(run, order, self._inside):
                with np.errstate(over="ignore"):  # found below as infinite
                    rows = values.astype(self.dtype)
                if not self._keep_non_finite:
                    _check_finite(rows, first, run)
                write(slice(start, start + len(rows)), everything, rows)
                start, first = start + len(rows), first + len(rows)


@dataclass(frozen=True)
class _Run:
    """A run, with the name for messages; ``path`` is None for an image in memory."""

    image: Any
    name: str
    path: Path | None

    def stamp(self) -> dict[str, Any]:
        if self.path is not None:
            return file_stamp(self.path)
        return {"sha256": array_digest(np.asanyarray(self.image.dataobj))}


def _opened_run(run: Any, index: int) -> _Run:
    if isinstance(run, (str, Path)):
        path: Path | None = Path(run)
        image, name = _opened(Path(run)), str(run)
    elif hasattr(run, "dataobj") and hasattr(run, "affine"):
        image, path = run, _path_of(run)
        name = str(path or f"run {index + 1} (an image in memory)")
    else:
        raise UsageError(
            f"a run must be a path or a nibabel image, run {index + 1} is a "
            f"{type(run).__name__}"
        )
    shape = tuple(image.shape)
    if len(shape) != 4 or shape[3] < 1:
        raise DataError(
            f"{name}: expected a 4-D series, got {len(shape)}-D (shape {shape}). Is "
            "this a mask, an anatomical image or a mean image?"
        )
    kind = np.dtype(image.dataobj.dtype)
    if kind.kind not in "iufb":
        raise DataError(f"{name}: expected real numbers, got the data type {kind}")
    return _Run(image, name, path)


def _path_of(image: Any) -> Path | None:
    """File that an image reads on demand, if its layout there is known."""
    proxy = image.dataobj
    file = getattr(proxy, "file_like", None)
    known = all(hasattr(proxy, name) for name in ("offset", "slope", "inter"))
    streams = known and getattr(proxy, "order", None) == "F"
    return Path(file) if streams and isinstance(file, (str, Path)) else None


def _opened(path: Path) -> Any:
    if not path.name.lower().endswith(".nii.gz"):
        return volumes.open_volume(path)
    require_content(path)
    try:
        # `open_volume` would unpack the whole stream to see where it ends. Here the
        # one pass that takes the values finds that out, so only the header is checked.
        expected = volumes._stated_bytes(path)
        image = volumes._opened(path)
    except _DAMAGED as error:
        if isinstance(error, InputMissingError):
            raise
        raise _damaged(path, error) from error
    stored = path.stat().st_size
    if expected > _LARGEST_GZIP_RATIO * stored + _PADDING_BYTES:
        raise DataError(
            f"the header states {expected:,} bytes, more than a compressed file of "
            f"{stored:,} bytes can hold: the file is truncated, or its header damaged; "
            "copy or download it again",
            path,
        )
    return image


def _opened_mask(mask_img: Any) -> tuple[Any, NDArray[np.bool_], str]:
    if isinstance(mask_img, (str, Path)):
        mask = volumes.load_mask(mask_img)
        return mask, np.asarray(mask.dataobj) != 0, str(mask_img)
    if not hasattr(mask_img, "dataobj"):
        raise UsageError(
            "mask_img must be a path or a nibabel image, got "
            f"{type(mask_img).__name__}. Of a fitted masker, hand over masker.mask_img_"
        )
    name = mask_img.get_filename() or "the mask"
    if len(mask_img.shape) != 3:
        raise DataError(f"{name}: expected a 3-D mask, got the shape {mask_img.shape}")
    inside = np.nan_to_num(np.asanyarray(mask_img.dataobj), nan=0.0) != 0
    if not inside.any():
        raise DataError(f"{name}: the mask is empty: no voxel differs from zero")
    return mask_img, inside, name


def _slabs(
    run: _Run, order: NDArray[np.intp], inside: NDArray[np.bool_]
) -> Iterator[NDArray[Any]]:
    """Scaled values of some volumes at a time, (n_volumes, n_targets)."""
    itemsize = np.dtype(run.image.dataobj.dtype).itemsize
    # The slab itself, and its masked values in float64 and as they are kept.
    per_volume = inside.size * itemsize + 16 * len(order)
    n_at_once = max(_SLAB_BYTES // per_volume, 1)
    if run.path is not None:
        yield from _streamed(run, run.path, order, inside.size, n_at_once)
        return
    for start in range(0, run.image.shape[3], n_at_once):
        slab = np.asanyarray(run.image.dataobj[..., start : start + n_at_once])
        yield slab[inside].T


def _streamed(
    run: _Run, path: Path, order: NDArray[np.intp], n_voxels: int, n_at_once: int
) -> Iterator[NDArray[Any]]:
    from nibabel.openers import ImageOpener
    from nibabel.volumeutils import apply_read_scaling

    proxy, n_volumes = run.image.dataobj, int(run.image.shape[3])
    slope, inter = np.asanyarray(proxy.slope), np.asanyarray(proxy.inter)
    try:
        compressed = path.name.lower().endswith(".gz")
        with gzip.open(path) if compressed else ImageOpener(str(path)) as stream:
            stream.read(proxy.offset)
            for start in range(0, n_volumes, n_at_once):
                n_here = min(n_at_once, n_volumes - start)
                raw = stream.read(n_here * n_voxels * proxy.dtype.itemsize)
                if len(raw) < n_here * n_voxels * proxy.dtype.itemsize:
                    raise EOFError(f"it ends in volumes {start} to {start + n_here}")
                slab = np.frombuffer(raw, proxy.dtype).reshape(n_here, n_voxels)
                yield apply_read_scaling(slab[:, order], slope, inter)
            # The checksum of a compressed stream is compared at its end.
            n_more = 0
            while more := stream.read(2**16):
                n_more += len(more)
                if n_more > _PADDING_BYTES:
                    raise EOFError("it holds more values than its header states")
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _check_finite(rows: Array, first: int, run: _Run) -> None:
    bad = ~np.isfinite(rows)
    if not bad.any():
        return
    volume = int(np.flatnonzero(bad.any(axis=1))[0])
    raise DataError(
        f"{run.name}: expected finite values inside the mask, got nan, infinity or "
        f"values beyond {rows.dtype} in {int(bad[volume].sum())} voxels of volume "
        f"{first + volume}. Take these voxels out of the mask, or pass "
        "non_finite='keep', which leaves them out of the fit"
    )


def _damaged(path: Path, error: BaseException) -> DataError:
    detail = "" if isinstance(error, gzip.BadGzipFile) else f"{type(error).__name__}: "
    return DataError(
        f"is truncated or damaged ({detail}{error}); copy or download it again", path
    )

"""Results of a fit, kept a batch of targets at a time, so that a killed fit goes on.

A folder holds one ``.npy`` file an array and ``manifest.json``: what the fit is
computed from, and the finished batches, each with the SHA-256 of its bytes. A batch is
on the disk before the manifest names it. So whenever the process ends, the manifest is
true, and the folder of a resumed fit ends with the bytes of an undisturbed one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from neuromm.core import DataError, OutputError, ResourceLimitError, UsageError
from neuromm.core.files import read_json, remove_leftovers, write_json
from neuromm.encoding.batch_file import BatchFile
from neuromm.encoding.target_sources import TargetSource, array_digest, targets_stamp

__all__ = ["FitCheckpoint", "fit_settings"]

_MANIFEST = "manifest.json"
_LOCK = ".lock"
_FORMAT = 1


class FitCheckpoint:
    """Results of a fit in batches of targets, which survive a kill.

    Parameters
    ----------
    folder : path-like
        Made if it is not there. A folder holds one fit.
    settings : mapping
        Everything that can change a number, as JSON (NumPy numbers and paths are
        turned): see `fit_settings`.
    arrays : mapping of str to (shape, dtype)
        The results, targets on the **last** axis, such as
        ``{"coef": ((n_features, n_targets), "f4"), "cv": ((n_targets,), "f8")}``.
    n_targets : int
    width : int
        Targets of a batch; the last one may be shorter.

    Attributes
    ----------
    width : int
        That of the stored fit, if there is one: batches that are done stay done when
        another memory limit would now make others.
    n_targets : int

    Raises
    ------
    UsageError
        If the folder holds a fit with other settings, targets or arrays (the message
        names what differs), or files that no fit has written.
    ResourceLimitError
        If another process, or another `FitCheckpoint`, works in the folder.
    OutputError
        If the folder cannot be written or its disk has no room for the arrays.
    DataError
        If the manifest is damaged.

    Notes
    -----
    Files are in Fortran order, so that a batch is one stretch of each. The lock is the
    operating system's (``flock``), held until `close` or the end of the process,
    however it ends.

    Examples
    --------
    >>> import tempfile
    >>> y = np.arange(12.0).reshape(2, 6)
    >>> arrays = {"mean": ((6,), float)}
    >>> with FitCheckpoint(tempfile.mkdtemp(), {"seed": 0}, arrays, 6, 4) as checkpoint:
    ...     for columns in checkpoint.pending():
    ...         checkpoint.store(columns, {"mean": y[:, columns].mean(axis=0)})
    ...     checkpoint.arrays()["mean"]
    memmap([3., 4., 5., 6., 7., 8.])
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        arrays: Mapping[str, tuple[Sequence[int], DTypeLike]],
        n_targets: int,
        width: int,
    ) -> None:
        self.folder = Path(folder)
        self.n_targets = int(n_targets)
        self.width = int(width)
        if self.n_targets < 1 or self.width < 1:
            raise UsageError(
                f"n_targets and width must be at least 1, got {n_targets} and {width}"
            )
        self._files = {
            name: BatchFile(self.folder / f"{name}.npy", name, shape, dtype, n_targets)
            for name, (shape, dtype) in sorted(arrays.items())
        }
        self._settings = _as_json(settings)
        self._lock = _locked(self.folder)
        self._sums: dict[int, list[float]] = {}
        try:
            self._batches = self._opened_batches()
        except BaseException:
            self.close()
            raise
        self._checked: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_done(self, start: int) -> bool:
        """Tell whether the batch from this target on is stored, and undamaged.

        The bytes of a batch are held against its digest when it is first asked for.

        Parameters
        ----------
        start : int
            First target of the batch, a multiple of `width`.

        Warns
        -----
        UserWarning
            If a stored batch is damaged; it counts as not done.
        """
        columns = self._batch(start)
        if start in self._checked:
            return True
        digest = self._batches.get(start)
        if digest is None:
            return False
        if digest != self._stored_digest(columns):
            warnings.warn(
                f"targets {columns.start} to {columns.stop} in {self.folder} are not "
                "as they were written (a damaged disk, or edited files) and are "
                "computed again",
                stacklevel=2,
            )
            del self._batches[start]
            return False
        self._checked.add(start)
        return True

    def pending(self) -> list[slice]:
        """Batches that are still to be computed, in order."""
        starts = range(0, self.n_targets, self.width)
        return [self._batch(start) for start in starts if not self.is_done(start)]

    def store(
        self,
        columns: slice,
        values: Mapping[str, ArrayLike],
        sums: Sequence[float] = (),
    ) -> None:
        """Keep the results of one batch; when this returns, no kill loses them.

        Parameters
        ----------
        columns : slice
            A whole batch: from a multiple of `width`.
        values : mapping of str to array
            Every array of the fit, in its dtype, the targets of the batch on the last
            axis.
        sums : sequence of float
            What the batch adds to sums over all targets; kept in the manifest.

        Raises
        ------
        UsageError
            If it is no whole batch, or an array is missing, unknown, or has another
            shape or dtype.
        OutputError
            If it cannot be written; the batch then counts as not done.
        """
        start = columns.start
        if columns != self._batch(start):
            raise UsageError(
                f"a batch is {self._batch(start)} here, got {columns}: take the width "
                "of the checkpoint"
            )
        if set(values) != set(self._files):
            raise UsageError(
                f"a batch has the arrays {sorted(self._files)}, got {sorted(values)}"
            )
        for name, file in self._files.items():
            file.check(np.asarray(values[name]), columns)
        digest = hashlib.sha256()
        try:
            for name, file in self._files.items():
                digest.update(file.write(columns, np.asarray(values[name])))
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.folder}: {error.strerror or error}. Is the "
                "disk full? Finished batches are kept; run again to go on."
            ) from error
        self._batches[start] = digest.hexdigest()
        self._sums[start] = [float(one) for one in sums]
        self._write_manifest()
        self._checked.add(start)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The finished results, as read-only memmaps in Fortran order.

        They stay readable after `close`.

        Raises
        ------
        UsageError
            If batches are pending.
        """
        pending = self.pending()
        if pending:
            raise UsageError(
                f"{len(pending)} batches of the fit in {self.folder} are not done, the "
                f"first from target {pending[0].start} on: run the fit to its end"
            )
        return {
            name: np.load(file.path, mmap_mode="r", allow_pickle=False)
            for name, file in self._files.items()
        }

    def sums(self) -> list[Sequence[float]]:
        """Sums of the batches that are stored, in the order of targets."""
        return [self._sums.get(start, []) for start in sorted(self._batches)]

    def close(self) -> None:
        """Give the folder free for another process."""
        self._lock.close()

    def _batch(self, start: int) -> slice:
        if not 0 <= start < self.n_targets or start % self.width:
            raise UsageError(
                f"a batch starts at a multiple of {self.width} below "
                f"{self.n_targets}, got {start}"
            )
        return slice(start, min(start + self.width, self.n_targets))

    def _opened_batches(self) -> dict[int, str]:
        remove_leftovers(self.folder)
        path = self.folder / _MANIFEST
        if not path.exists():
            present = [f.path.name for f in self._files.values() if f.path.exists()]
            if present:
                raise UsageError(
                    f"{self.folder} holds {', '.join(present)} and no {_MANIFEST}: no "
                    "checkpoint of a fit. Choose an empty folder."
                )
            self._check_room()
            batches: dict[int, str] = {}
            # First the manifest: arrays without one are somebody else's.
            self._batches = batches
            self._write_manifest()
        else:
            stored = _read_manifest(path)
            self._compare(stored)
            self.width = stored["width"]
            batches = {int(start): digest for start, digest in stored["done"].items()}
            sums = stored.get("sums", {})
            self._sums = {int(start): values for start, values in sums.items()}
        for file in self._files.values():
            file.create()
        return batches

    def _compare(self, stored: Mapping[str, Any]) -> None:
        now = self._manifest()
        changed = _differences(stored["settings"], now["settings"])
        for part in ("n_targets", "arrays"):
            changed += _differences({part: stored[part]}, {part: now[part]})
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise UsageError(
                f"{self.folder} holds another fit: {'; '.join(changed[:5])}{more}. "
                "Choose another folder, or delete this one to compute anew."
            )

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "n_targets": self.n_targets,
            "width": self.width,
            "arrays": {name: file.description() for name, file in self._files.items()},
            "settings": self._settings,
        }

    def _write_manifest(self) -> None:
        done = {str(start): self._batches[start] for start in sorted(self._batches)}
        manifest = {**self._manifest(), "done": done}
        if any(self._sums.values()):
            starts = sorted(self._batches)
            manifest["sums"] = {str(one): self._sums.get(one, []) for one in starts}
        write_json(self.folder / _MANIFEST, manifest)

    def _stored_digest(self, columns: slice) -> str:
        digest = hashlib.sha256()
        for file in self._files.values():
            digest.update(file.read(columns))
        return digest.hexdigest()

    def _check_room(self) -> None:
        needed = sum(file.n_bytes for file in self._files.values())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                f"the results take {needed / 1e9:.3g} GB, and {self.folder} has "
                f"{free / 1e9:.3g} GB free. Choose a folder on a larger disk."
            )


def fit_settings(
    x: NDArray[Any],
    alphas: NDArray[np.floating],
    splits: Sequence[tuple[ArrayLike, ArrayLike]],
    targets: TargetSource,
) -> dict[str, Any]:
    """What tells a fit from another one, for the ``settings`` of a `FitCheckpoint`.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    alphas : array of shape (n_alphas,)
    splits : sequence of (train, test)
        Row indices or boolean masks.
    targets : TargetSource

    Returns
    -------
    settings : dict
        JSON: SHA-256 of all values of ``x``, of ``alphas`` and of the rows of all
        folds, with their sizes; targets by `targets_stamp`. How the penalty is scored,
        whether there is an intercept, and the versions are for the caller to add.

    Examples
    --------
    >>> from neuromm.encoding.target_sources import target_source
    >>> x, splits = np.eye(3), [(np.array([0, 1]), np.array([2]))]
    >>> sorted(fit_settings(x, np.ones(2), splits, target_source(x)))
    ['alphas', 'features', 'folds', 'targets']
    """
    folds = hashlib.sha256()
    for split in splits:
        for rows in split:
            indices = np.asarray(rows)
            if indices.dtype == bool:
                indices = np.flatnonzero(indices)
            folds.update(array_digest(indices.astype(np.int64)).encode())
    return {
        "features": {"shape": list(x.shape), "sha256": array_digest(x)},
        "alphas": {
            "number": int(np.size(alphas)),
            "smallest": float(np.min(alphas)),
            "largest": float(np.max(alphas)),
            "sha256": array_digest(np.asarray(alphas, dtype=np.float64)),
        },
        "folds": {"number": len(splits), "sha256": folds.hexdigest()},
        "targets": targets_stamp(targets),
    }


def _locked(folder: Path) -> IO[str]:
    path = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115, closed with the checkpoint
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror}. Choose a folder that you may "
            "write to."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        if not isinstance(error, BlockingIOError):
            raise OutputError(
                f"{path} cannot be locked ({error.strerror}): choose a folder on a "
                "file system with locks"
            ) from error
        raise ResourceLimitError(
            f"the fit in {folder} is being computed by {holder}. Wait for it to end, "
            "or choose another folder."
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _read_manifest(path: Path) -> dict[str, Any]:
    cure = "Delete the folder to compute the fit anew."
    try:
        manifest = read_json(path)
        if manifest["format"] != _FORMAT:
            raise UsageError(
                f"{path} was written by another version of neuromm (format "
                f"{manifest['format']}, here {_FORMAT}). {cure}"
            )
        whole = (
            int(manifest["width"]) >= 1
            and isinstance(manifest["settings"], dict)
            and isinstance(manifest["arrays"], dict)
            and all(start.isdigit() for start in manifest["done"])
        )
    except (DataError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the manifest is damaged ({error}). {cure}", path) from error
    if not whole:
        raise DataError(f"the manifest is damaged. {cure}", path)
    return manifest


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"{type(value).__name__} is no JSON")

    try:
        text = json.dumps(dict(settings), default=plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"settings must be numbers, texts, lists and mappings ({error})"
        ) from error
    turned: dict[str, Any] = json.loads(text)
    return turned


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """One phrase for each value that differs, nested mappings by dotted names."""
    changed = []
    for name in sorted({*before, *now}):
        old, new, label = before.get(name), now.get(name), f"{prefix}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            changed += _differences(old, new, f"{label}.")
        elif old != new:
            changed.append(f"{label} was {_short(old)}, now {_short(new)}")
    return changed


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

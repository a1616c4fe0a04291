"""Feature tables as arrays: ``.npz``, ``.nc`` (NetCDF-4) and ``.zarr``.

All hold ``values`` (n_rows, n_features) and a one-dimensional array for each key.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, OutputError
from neuromm.core.files import atomic_path
from neuromm.features.checked_table import checked_table
from neuromm.features.keys import RESERVED
from neuromm.features.table import FeatureTable
from neuromm.io.file_limits import check_hdf5, check_npz, check_zarr

__all__ = ["read_dataset", "read_npz", "write_dataset", "write_npz"]

_VALUES = "values"


def read_npz(path: Path, name: str) -> FeatureTable:
    """Read ``values``, key arrays, and where given ``columns`` and ``attrs``.

    One-dimensional arrays of other names are features too.
    """
    check_npz(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except MemoryError:
        raise
    except Exception as error:  # zipfile meets damage with errors of several types
        raise DataError(f"cannot be read ({error}): copy it again", path) from error
    columns = arrays.pop("columns", None)
    attrs = _attrs_of(arrays.pop("attrs", None), path)
    keys = {key: arrays.pop(key) for key in RESERVED if key in arrays}
    return _from_arrays(
        name=name,
        keys=keys,
        values=arrays.pop(_VALUES, None),
        columns=None if columns is None else [str(c) for c in columns.tolist()],
        others=arrays,
        path=path,
        attrs=attrs,
    )


def write_npz(path: Path, table: FeatureTable) -> None:
    """Write an uncompressed .npz without Python objects."""
    arrays: dict[str, Any] = _key_arrays(table)
    arrays[_VALUES] = table.values
    arrays["columns"] = np.array(table.columns, dtype=str)
    if table.attrs:
        arrays["attrs"] = np.array(json.dumps(dict(table.attrs)))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_dataset(path: Path, name: str) -> FeatureTable:
    """Read a NetCDF-4 file or a zarr folder with xarray.

    The features are the variable ``values``, or the only two-dimensional one; keys are
    variables along its first dimension; the coordinate of its second dimension names
    the features. Other coordinates are labels and are not read.
    """
    is_zarr = path.suffix == ".zarr"
    (check_zarr if is_zarr else check_hdf5)(path)
    try:
        with _opened(path, is_zarr) as dataset:
            loaded = dataset.load()
    except MemoryError:
        raise
    except Exception as error:  # the readers below meet damage with errors of any type
        raise DataError(f"cannot be read ({error}): is it complete?", path) from error
    matrix = _matrix_of(loaded, path)
    rows = None if matrix is None else matrix.dims[0]
    keys = {
        str(key): variable.to_numpy()
        for key, variable in loaded.variables.items()
        if key in RESERVED and variable.ndim == 1 and rows in (None, variable.dims[0])
    }
    return _from_arrays(
        name=name,
        keys=keys,
        values=None if matrix is None else matrix.to_numpy(),
        columns=_feature_names(matrix),
        others={
            str(key): variable.to_numpy()
            for key, variable in loaded.data_vars.items()
            if key not in RESERVED and variable.ndim == 1
        },
        path=path,
        attrs=_scalars({**loaded.attrs, **({} if matrix is None else matrix.attrs)}),
    )


def write_dataset(path: Path, table: FeatureTable) -> None:
    """Write a NetCDF-4 file or a zarr folder."""
    dataset = xr.Dataset(
        {_VALUES: (("row", "feature"), table.values)},
        coords={
            **{key: ("row", column) for key, column in _key_arrays(table).items()},
            "feature": np.array(table.columns, dtype=str),
        },
        attrs=dict(table.attrs),
    )
    if path.suffix == ".nc":
        with atomic_path(path) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")
        return
    with _atomic_folder(path) as temporary:
        # Version 2 holds fixed-length text without an extension of the format.
        dataset.to_zarr(temporary, mode="w", zarr_format=2, consolidated=False)


def _opened(path: Path, is_zarr: bool) -> xr.Dataset:
    # Onsets carry "units: s", which xarray would turn into dates.
    if is_zarr:
        return xr.open_dataset(
            path,
            engine="zarr",
            chunks=None,
            consolidated=False,
            decode_times=False,
            decode_timedelta=False,
        )
    return xr.open_dataset(
        path, engine="h5netcdf", decode_times=False, decode_timedelta=False
    )


def _matrix_of(dataset: xr.Dataset, path: Path) -> xr.DataArray | None:
    if _VALUES in dataset.data_vars:
        return dataset[_VALUES]
    matrices = [name for name, v in dataset.data_vars.items() if v.ndim >= 2]
    if len(matrices) > 1:
        raise DataError(
            f"holds {len(matrices)} matrices ({', '.join(map(str, matrices))}): name "
            "the one with the features values",
            path,
        )
    return dataset[matrices[0]] if matrices else None


def _feature_names(matrix: xr.DataArray | None) -> list[str] | None:
    if matrix is None or matrix.ndim != 2 or matrix.dims[1] not in matrix.coords:
        return None
    return [str(label) for label in matrix[matrix.dims[1]].to_numpy().tolist()]


def _from_arrays(
    *,
    name: str,
    keys: Mapping[str, NDArray[Any]],
    values: NDArray[Any] | None,
    columns: list[str] | None,
    others: Mapping[str, NDArray[Any]],
    path: Path,
    attrs: Mapping[str, Any],
) -> FeatureTable:
    if values is not None and not others:
        return checked_table(
            name=name, keys=keys, values=values, columns=columns, source=path,
            attrs=attrs,
        )  # fmt: skip
    for other, column in others.items():
        if column.ndim != 1 or column.dtype.kind not in "fiub":
            raise DataError(
                f"{other} is an array of {column.dtype} and shape {column.shape}. "
                "Features lie in one matrix called values, or in numeric arrays with "
                "one number a row.",
                path,
            )
    parts = [] if values is None else [np.asarray(values)]
    names = [] if values is None else columns or [str(i) for i in range(len(values.T))]
    lengths = {len(a) for a in (*parts, *others.values(), *keys.values())}
    if len(lengths) > 1:
        raise DataError(f"its arrays have different lengths: {sorted(lengths)}", path)
    if not parts and not others:
        raise DataError("holds no features: expected a matrix called values", path)
    columns_of_one = [column[:, None] for column in others.values()]
    return checked_table(
        name=name,
        keys=keys,
        values=np.hstack([*parts, *columns_of_one]),
        columns=[*names, *others],
        source=path,
        attrs=attrs,
    )


def _attrs_of(stored: NDArray[Any] | None, path: Path) -> dict[str, Any]:
    if stored is None:
        return {}
    try:
        content = json.loads(str(stored.item()))
    except ValueError as error:
        raise DataError(f"attrs is no JSON object ({error})", path) from error
    if not isinstance(content, dict):
        raise DataError("attrs is no JSON object", path)
    return content


def _scalars(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {
        str(k): v.item() if isinstance(v, np.generic) else v for k, v in attrs.items()
    }
    return {k: v for k, v in plain.items() if isinstance(v, str | int | float)}


def _key_arrays(table: FeatureTable) -> dict[str, NDArray[Any]]:
    """Key columns without Python objects: text of fixed length, seconds as float."""
    columns = {str(key): table.keys[key].to_numpy() for key in table.keys}
    return {k: c.astype(str) if c.dtype.kind == "O" else c for k, c in columns.items()}


@contextlib.contextmanager
def _atomic_folder(path: Path) -> Any:
    """Give a temporary folder beside ``path``; put it in place when all went well."""
    temporary = path.with_name(f"{path.stem}.tmp-{uuid.uuid4().hex[:12]}.zarr")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Is the disk full, or the "
            "folder read-only?"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

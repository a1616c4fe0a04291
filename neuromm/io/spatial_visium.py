"""Visium and CytAssist: the folder that Space Ranger writes.

References
----------
10x Genomics, Space Ranger outputs: spatial outputs and feature-barcode matrices.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import read_json
from neuromm.io.content import require_content
from neuromm.io.file_limits import check_hdf5, unpacked

__all__ = ["is_visium_folder", "read_visium"]

_MATRIX = "filtered_feature_bc_matrix"
_SCALES = "scalefactors_json.json"
# In this order: newer versions write a header, older ones do not.
_POSITIONS = ("tissue_positions.csv", "tissue_positions_list.csv")
_COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]
_LARGEST_PICTURE = 4000  # pixels along a side; Space Ranger writes 2000 or 4000


def is_visium_folder(path: Path) -> bool:
    """Whether a folder holds the outputs of Space Ranger."""
    return path.is_dir() and (path / "spatial" / _SCALES).is_file()


def read_visium(folder: Path) -> Any:
    """Read counts, places, scale factors and small pictures.

    Parameters
    ----------
    folder : Path
        With ``spatial/`` and ``filtered_feature_bc_matrix`` (``.h5`` or a folder).

    Returns
    -------
    adata : anndata.AnnData
        As scanpy has it: genes by symbol (made unique), ``var["gene_ids"]``,
        ``obsm["spatial"]`` x and y in pixels of the full-resolution picture, and
        ``uns["spatial"][folder name]`` with ``images`` and ``scalefactors``.

    Raises
    ------
    InputMissingError
        If a file is not there.
    DataError
        If one is damaged, or counts and places have no spot in common.
    """
    adata = _matrix(folder)
    places = _positions(folder / "spatial")
    known = adata.obs_names.isin(places.index)
    if not known.all():
        raise DataError(
            f"{int((~known).sum())} of {adata.n_obs} spots with counts have no place "
            f"in spatial/ ({adata.obs_names[~known][0]}, …). Do both come from one run "
            "of Space Ranger?",
            folder,
        )
    adata.obs = places.loc[adata.obs_names].copy()
    adata.obsm["spatial"] = adata.obs[
        ["pxl_col_in_fullres", "pxl_row_in_fullres"]
    ].to_numpy(dtype=np.float64)
    adata.uns["spatial"] = {
        folder.name: {
            "images": _pictures(folder / "spatial"),
            "scalefactors": _scales(folder / "spatial" / _SCALES),
            "metadata": {},
        }
    }
    return adata


def _matrix(folder: Path) -> Any:
    import scanpy

    h5, mtx = folder / f"{_MATRIX}.h5", folder / _MATRIX
    try:
        if h5.exists():
            check_hdf5(require_content(h5), "10x matrix (.h5)")
            adata = scanpy.read_10x_h5(h5)
        elif mtx.is_dir():
            for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
                _whole(mtx, name)
            adata = scanpy.read_10x_mtx(mtx)
        else:
            raise InputMissingError(
                f"{folder}: has neither {_MATRIX}.h5 nor a folder {_MATRIX}"
            )
    except (DataError, InputMissingError, MemoryError):
        raise
    except Exception as error:  # readers of matrices fail in many ways
        raise DataError(
            f"its {_MATRIX} cannot be read ({error}): is it cut or damaged?", folder
        ) from error
    adata.var_names_make_unique()
    return adata


def _whole(folder: Path, name: str) -> None:
    """Check that a file of the matrix is there, and can be unpacked."""
    packed = folder / f"{name}.gz"
    if packed.exists():
        unpacked(require_content(packed))
    elif not (folder / name).exists():
        raise InputMissingError(f"{folder}: has no {name} or {name}.gz")


def _positions(folder: Path) -> pd.DataFrame:
    path = next((folder / n for n in _POSITIONS if (folder / n).exists()), None)
    if path is None:
        raise InputMissingError(f"{folder}: has neither {' nor '.join(_POSITIONS)}")
    headed = path.name == _POSITIONS[0]
    try:
        table = pd.read_csv(
            require_content(path),
            header=0 if headed else None,
            names=None if headed else _COLUMNS,
            dtype={"barcode": str},
        )
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"is no table of spots ({error})", path) from error
    lacking = [name for name in _COLUMNS if name not in table]
    if lacking:
        raise DataError(f"lacks the columns {', '.join(lacking)}", path)
    numbers = table[_COLUMNS[1:]].apply(pd.to_numeric, errors="coerce")
    if not np.isfinite(numbers.to_numpy(dtype=np.float64)).all():
        raise DataError("places of spots are missing: is it cut or damaged?", path)
    table[_COLUMNS[1:]] = numbers
    whole = dict.fromkeys(_COLUMNS[1:4], np.int64)
    table = table[_COLUMNS].astype(whole).set_index("barcode")
    table.index.name = None
    if table.index.has_duplicates:
        raise DataError(
            f"the spot {table.index[table.index.duplicated()][0]} comes twice", path
        )
    return table


def _scales(path: Path) -> dict[str, float]:
    content = read_json(path)
    try:
        scales = {str(name): float(value) for name, value in content.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"scale factors must be numbers ({error})", path) from error
    if "spot_diameter_fullres" not in scales:
        raise DataError("lacks spot_diameter_fullres", path)
    return scales


def _pictures(folder: Path) -> dict[str, Any]:
    """The small pictures, arrays of shape (height, width, 3), uint8."""
    from PIL import Image

    found = {}
    for name in ("hires", "lowres"):
        path = folder / f"tissue_{name}_image.png"
        if not path.exists():
            continue
        try:
            with Image.open(require_content(path)) as picture:
                if max(picture.size) > _LARGEST_PICTURE:
                    raise DataError(
                        f"measures {picture.size[0]} x {picture.size[1]} pixels, more "
                        f"than Space Ranger writes ({_LARGEST_PICTURE})",
                        path,
                    )
                found[name] = np.asarray(picture.convert("RGB"))
        except (DataError, InputMissingError, MemoryError):
            raise
        except Exception as error:  # Pillow meets damage with errors of many types
            raise DataError(f"is no readable picture ({error})", path) from error
    return found

"""Spatial transcriptomics: counts of genes at spots of a tissue section.

Every kind becomes an `anndata.AnnData` as scanpy has it: ``obsm["spatial"]`` holds x
and y of the spots in pixels of the full-resolution picture, and
``uns["spatial"][name]["scalefactors"]`` the size of a pixel and of a spot.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, Sample, UsageError
from neuromm.core.files import atomic_path, read_json
from neuromm.core.spot_grid import (
    SPOT_DIAMETER_UM,
    GridKind,
    fitted_grid,
    microns_per_pixel,
)
from neuromm.io import spatial_st, spatial_visium
from neuromm.io.content import require_content
from neuromm.io.file_limits import check_hdf5
from neuromm.io.reader import Reader

__all__ = [
    "READER",
    "hest_companions",
    "is_hexagonal",
    "load",
    "microns_per_pixel",
    "write_example",
]

# Pixels of pictures of tissue; anything else is another unit, or a mistake.
_PLAUSIBLE_UM = (0.05, 50.0)
# A stated size may differ by this factor from what the pitch of the array says.
_DISAGREES = 1.1
_HEST_SIZE = "pixel_size_um_estimated"


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
    microns_per_pixel: float | None = None,
) -> Sample:
    """Open the spots of one section.

    Parameters
    ----------
    path : path-like
        An ``.h5ad``; the folder that Space Ranger writes (Visium, CytAssist); or the
        count table of a first-generation array, ``A1.tsv.gz``, whose spot table is
        looked for beside it.
    entities, metadata, companions : mapping, optional
        As in `neuromm.core.Sample`. Companions that lie where their layout puts them
        are found (``slide``, ``spots``, ``labels``, ``patches``); those given here
        stand beside them, or in their place. The metadata of HEST-1k are read if none
        are given.
    microns_per_pixel : float, optional
        Size of a pixel of the full-resolution picture. Otherwise it is taken from the
        scale factors, the metadata of HEST-1k, or the pitch of the array.

    Returns
    -------
    sample : Sample
        ``data`` is an AnnData; that of an ``.h5ad`` is backed, so that counts stay on
        disk until ``data.to_memory()``.

    Raises
    ------
    InputMissingError
        If a file is not there.
    DataError
        If one is damaged, spots have no place, x and y are swapped, or the size of a
        pixel is impossible.
    UsageError
        If the size of a pixel cannot be known.
    """
    path = require_content(path)
    beside: dict[str, Path] = {}
    found: Mapping[str, Any] = {}
    kind: GridKind | None = None
    if path.name.lower().endswith(".h5ad"):
        adata = _h5ad(path)
        beside, found = hest_companions(path)
        kind = "visium" if is_hexagonal(adata.obs) else None
    elif path.is_dir():
        adata, kind = _visium(path), "visium"
    else:
        beside = spatial_st.find_companions(path) | dict(companions or {})
        adata, kind = spatial_st.read_section(path, beside.get("spots")), "st"
    beside |= dict(companions or {})
    name = _library(adata, path)
    _check_places(adata, path)
    scales = adata.uns["spatial"][name]["scalefactors"]
    size = _pixel_size(adata, kind, found, scales, microns_per_pixel, path)
    scales["microns_per_pixel"] = size
    if kind is not None:
        scales.setdefault("spot_diameter_fullres", SPOT_DIAMETER_UM[kind] / size)
    return Sample(
        data=adata,
        modality="spatial",
        entities=entities or {},
        source=path,
        metadata=found if metadata is None else metadata,
        companions=beside,
    )


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write a small section: 30 spots of a hexagonal array, 12 genes, of noise.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    rng : int or Generator
        Seed of the counts.

    Returns
    -------
    path : Path
        An ``.h5ad``.
    """
    import anndata

    generator = np.random.default_rng(rng)
    row, place = np.divmod(np.arange(30), 6)
    col = 2 * place + row % 2
    obs = pd.DataFrame(
        {"array_row": row, "array_col": col, "in_tissue": 1},
        index=[f"spot-{number:02d}" for number in range(30)],
    )
    adata = anndata.AnnData(
        generator.poisson(2.0, (30, 12)).astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=[f"GENE{number}" for number in range(12)]),
    )
    pixels = np.column_stack([50.0 * col, 50.0 * np.sqrt(3) * row]) / 0.5
    adata.obsm["spatial"] = pixels + 100
    adata.uns["spatial"] = {
        "example": {
            "images": {},
            "scalefactors": {"spot_diameter_fullres": 110.0, "microns_per_pixel": 0.5},
            "metadata": {},
        }
    }
    path = Path(folder) / "example.h5ad"
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(temporary)
    return path


def _h5ad(path: Path) -> Any:
    import anndata

    check_hdf5(path, "AnnData (.h5ad)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return anndata.read_h5ad(path, backed="r")
    except MemoryError:
        raise
    except Exception as error:  # the HDF5 library meets damage with many errors
        raise DataError(
            f"cannot be read as AnnData ({error}): is it cut, damaged, or another "
            "kind of HDF5?",
            path,
        ) from error


def _visium(path: Path) -> Any:
    if not spatial_visium.is_visium_folder(path):
        raise DataError(
            "expected a folder of Space Ranger, with spatial/scalefactors_json.json. "
            "Give the folder that holds spatial/ (often outs/)",
            path,
        )
    return spatial_visium.read_visium(path)


def hest_companions(path: Path) -> tuple[dict[str, Path], Mapping[str, Any]]:
    """What HEST-1k has beside ``st/NAME.h5ad``."""
    if path.parent.name != "st":
        return {}, {}
    root, name = path.parent.parent, path.stem
    places = {
        "patches": root / "patches" / f"{name}.h5",
        "slide": root / "wsis" / f"{name}.tif",
    }
    stated = root / "metadata" / f"{name}.json"
    found = {role: place for role, place in places.items() if place.exists()}
    return found, read_json(stated) if stated.exists() else {}


def _library(adata: Any, path: Path) -> str:
    """Name of the one library, with its scale factors in place."""
    libraries = adata.uns.setdefault("spatial", {})
    if not isinstance(libraries, dict) or len(libraries) > 1:
        raise DataError(
            "expected the spots of one section, got "
            f'{len(libraries)} in uns["spatial"]. Split it by section first',
            path,
        )
    name = next(iter(libraries), path.name.partition(".")[0])
    library = libraries.setdefault(name, {})
    library.setdefault("images", {})
    library.setdefault("scalefactors", {})
    return str(name)


def is_hexagonal(obs: pd.DataFrame) -> bool:
    """Tell rows whose columns are numbered by twos, shifted from row to row."""
    if not {"array_row", "array_col"} <= set(obs):
        return False
    return bool(((obs["array_row"] + obs["array_col"]) % 2 == 0).all())


def _check_places(adata: Any, path: Path) -> None:
    if "spatial" not in adata.obsm:
        raise DataError(
            'has no obsm["spatial"], x and y of its spots in pixels of the '
            "full-resolution picture",
            path,
        )
    places = np.asarray(adata.obsm["spatial"])
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise DataError(
            f'obsm["spatial"] must be (n_spots, 2), x and y, got {places.shape}', path
        )
    if places.dtype.kind not in "fiu" or not np.isfinite(places).all():
        raise DataError('obsm["spatial"] holds places that are no numbers', path)
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()][0]
        raise DataError(f"the spot {twice} comes twice", path)
    columns = ["pxl_col_in_fullres", "pxl_row_in_fullres"]
    if not set(columns) <= set(adata.obs):
        return
    stated = adata.obs[columns].to_numpy(dtype=np.float64)
    # Places are rounded to whole pixels by some versions.
    if np.abs(places - stated).max() <= 1.0:
        return
    if np.abs(places - stated[:, ::-1]).max() <= 1.0:
        raise DataError(
            'x and y are swapped: obsm["spatial"] holds rows first. Swap them with '
            'adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1]',
            path,
        )
    raise DataError(
        'obsm["spatial"] is not where pxl_col_in_fullres and pxl_row_in_fullres put '
        "the spots. Is it in pixels of a smaller picture?",
        path,
    )


def _pixel_size(
    adata: Any,
    kind: GridKind | None,
    stated: Mapping[str, Any],
    scales: Mapping[str, Any],
    given: float | None,
    path: Path,
) -> float:
    """Micrometres a pixel; what files state must agree with what the array says."""
    size = given
    for source, name in ((scales, "microns_per_pixel"), (stated, _HEST_SIZE)):
        if size is None and source.get(name) is not None:
            size = float(source[name])
    measured = None if kind is None else _by_array(adata, kind)
    if size is None and measured is None:
        raise UsageError(
            f"{path}: the size of a pixel of the full-resolution picture is not known. "
            "Give it: load(path, microns_per_pixel=0.5)"
        )
    if size is None:
        size = measured
    if size is None or not _PLAUSIBLE_UM[0] <= size <= _PLAUSIBLE_UM[1]:
        raise DataError(
            f"a pixel would measure {size:.4g} um, expected {_PLAUSIBLE_UM[0]:g} to "
            f"{_PLAUSIBLE_UM[1]:g}. Are places in pixels, and is the size in um?",
            path,
        )
    if (
        given is None
        and measured is not None
        and not 1 / _DISAGREES < size / measured < _DISAGREES
    ):
        raise DataError(
            f"a pixel is said to measure {size:.4g} um, but by the pitch of the array "
            f"it measures {measured:.4g} um. Are places in pixels of a smaller "
            "picture?",
            path,
        )
    return size


def _by_array(adata: Any, kind: GridKind) -> float | None:
    obs = adata.obs
    try:
        fit = fitted_grid(
            obs["array_row"].to_numpy(),
            obs["array_col"].to_numpy(),
            adata.obsm["spatial"],
            kind,
        )
    except UsageError:  # too few spots to tell
        return None
    return fit.microns_per_pixel


def _fits(path: Path) -> bool:
    return spatial_visium.is_visium_folder(path) or spatial_st.is_count_table(path)


READER = Reader(
    name="spatial",
    extensions=(".h5ad",),
    datatype="spatial",
    description="spatial transcriptomics: AnnData, Visium folders, ST count tables",
    load=load,
    write_example=write_example,
    fits=_fits,
)

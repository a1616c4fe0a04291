"""Patches of spots that were cut before: those of HEST-1k through any backbone.

References
----------
Jaume et al. (2024) HEST-1k: a dataset for spatial transcriptomics and histology image
analysis. NeurIPS.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.core.files import file_digest
from neuromm.core.spot_features import SpotFeatures
from neuromm.features.backbones import Backbone
from neuromm.features.feature_cache import FeatureCache, computed_in_parts
from neuromm.features.spot_places import array_places, spot_rows
from neuromm.features.spot_vector_file import opened, row_keys

__all__ = ["patch_file_features"]

# Pictures that are held at once.
_PICTURES = 32


def patch_file_features(
    adata: Any,
    path: str | Path,
    backbone: Backbone,
    *,
    section: str,
    patch_tokens: bool = False,
    cache: FeatureCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SpotFeatures:
    """Encode the patches that HEST-1k has of each spot.

    Parameters
    ----------
    adata : anndata.AnnData
        As `neuromm.io.spatial.load` gives it.
    path : path-like
        ``patches/<id>.h5``, with ``img`` of shape (n_spots, height, width, 3), uint8,
        and ``barcode`` or ``coords``. A batch is read at a time.
    backbone : Backbone
        Of images. One of kind "stand-in" or "random twin" makes features that say so.
    section : str
        Name for tables and messages.
    patch_tokens : bool
        Keep all tokens of a patch, not its one vector.
    cache : FeatureCache, optional
        Vectors that were computed before are read, a killed run goes on.
    progress : callable of (done, total), optional
        Told how many spots are encoded.

    Returns
    -------
    features : SpotFeatures
        One tile a spot: the file holds no surroundings.

    Raises
    ------
    InputMissingError
        If the file is not there.
    UsageError
        If the backbone is not of images.
    DataError
        If the file is damaged or holds no such pictures, or a spot has no row or two,
        or a row no spot.
    """
    if backbone.modality != "image":
        raise UsageError(
            f"patches need a backbone of images, got {backbone.name} of "
            f"{backbone.modality}"
        )
    path = Path(path)
    grid = array_places(adata, section)
    with opened(path) as file:
        pictures = file.get("img")
        _check_pictures(pictures, path)
        names, coords = row_keys(file, len(pictures), path)
    rows = spot_rows(adata, path, section=section, names=names, coords=coords)
    done = 0

    def compute(wanted: Sequence[object]) -> dict[str, NDArray[np.float32]]:
        nonlocal done
        parts: list[dict[str, NDArray[np.float32]]] = []
        for start in range(0, len(wanted), _PICTURES):
            batch = _pictures(path, wanted[start : start + _PICTURES])
            part = {"own": np.asarray(backbone.embed(batch), dtype=np.float32)}
            if patch_tokens:
                states = backbone.tokens(batch)
                part["tokens"] = np.stack([state.values for state in states])
            parts.append(part)
            done += len(batch)
            if progress is not None:
                progress(done, len(rows))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    stimuli = [str(row) for row in rows.tolist()]
    if cache is None:
        found = computed_in_parts(stimuli, compute)
    else:
        settings = {
            **backbone.attrs,
            "patches_sha256": file_digest(path),
            "patch_tokens": int(patch_tokens),
        }
        found = cache.computed(settings, stimuli, compute)
    own = found["own"]
    return SpotFeatures(
        section=section,
        spots=np.asarray(adata.obs_names, dtype=str),
        target=found["tokens"] if patch_tokens else own[:, None],
        neighbors=own[:, None],
        neighbor_mask=np.ones((len(own), 1), dtype=bool),
        overview=own,
        grid=grid,
        encoder=backbone.name,
        is_stand_in=backbone.attrs["kind"] != "trained",
    )


def _check_pictures(pictures: Any, path: Path) -> None:
    shape = getattr(pictures, "shape", None)
    dtype = getattr(pictures, "dtype", None)
    if shape is None or len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        found = "none" if shape is None else f"{dtype} of the shape {shape}"
        raise DataError(
            f"needs img, (n_spots, height, width, 3) of uint8, got {found}", path
        )
    if 0 in shape:
        raise DataError(f"img is empty, of the shape {shape}", path)


def _pictures(path: Path, wanted: Sequence[object]) -> list[NDArray[np.uint8]]:
    import h5py

    rows = np.array([int(str(one)) for one in wanted])
    order = np.argsort(rows)
    try:
        with h5py.File(path, "r") as file:
            read = file["img"][rows[order]]  # rising, as HDF5 asks for
    except OSError as error:
        raise DataError(f"cannot be read ({error}): copy it again", path) from error
    return list(read[np.argsort(order)])

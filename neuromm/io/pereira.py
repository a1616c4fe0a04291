"""Pereira et al. (2018): 180 concepts as pictures, sentences and word clouds.

What lies on disk, after unpacking a participant's archive:

    M01/data_180concepts_pictures.mat
    M01/data_180concepts_sentences.mat
    M01/data_180concepts_wordclouds.mat

Each holds ``examples`` (180 concepts, some 200 000 voxels; one value a voxel and
concept, over the repetitions of the concept), ``keyConcept`` (their names),
``labelsConcreteness``, and ``meta`` with ``atlases`` (names of sets of regions such as
``languageLH`` and ``visual_scene``), ``roiColumns`` (columns of ``examples``, from 1,
of each region of each atlas), ``rois`` (names of the regions) and ``colToCoord`` (place
of each voxel in the image, from 1).

Certain, by the authors' page on the data and by code that reads it: these names and
their shapes. Not in the files, so not given here: repetitions, runs, and an affine that
would turn places in the image into millimetres.

References
----------
Pereira F et al. (2018) Toward a universal decoder of linguistic meaning from brain
activation. Nature Communications 9:963.
Oota SR et al. (2022) Visio-linguistic brain encoding. COLING 2022, 116-133.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError, response_matrix
from neuromm.io.content import require_content
from neuromm.io.mat_variables import cell, read_variables, texts

__all__ = ["NETWORKS", "open_pereira"]

Paradigm = Literal["pictures", "sentences", "wordclouds"]

NETWORKS = (
    *("languageLH", "languageRH"),
    *("visual_body", "visual_face", "visual_object", "visual_scene", "visual"),
    *("DMN", "MD"),
)
"""Sets of regions that are read if none is named: language, vision, default mode and
multiple demand (task positive), of which Oota et al. (2022) report."""


def open_pereira(
    root: str | Path,
    subject: str,
    paradigm: Paradigm = "pictures",
    *,
    networks: Sequence[str] | None = None,
) -> xr.DataArray:
    """Responses of one person to every concept, in the voxels of networks.

    Parameters
    ----------
    root : path-like
        Folder that holds the participants' folders.
    subject : str
        ``"P01"``, ``"M01"``, …
    paradigm : {"pictures", "sentences", "wordclouds"}
        How concepts were shown: a word with pictures as in Oota et al. (2022), within
        sentences, or among related words.
    networks : sequence of str, optional
        Names in ``meta.atlases``; those of `NETWORKS` that the file has if not given.

    Returns
    -------
    responses : DataArray, dims (sample, target)
        A row a concept. On ``sample``: ``stimulus`` (the concept), ``concreteness``
        (nan where the file does not give it), ``onset`` (the number of the row: the
        release has no times), ``run`` and ``subject``. On ``target``: ``target``
        (``visual_scene-000123``, with the column from 1), ``roi`` (the network),
        ``region`` (the region within it), ``column`` (from 0) and, where the file has
        places, ``i``, ``j``, ``k`` (voxel of the image, from 0). A voxel of two
        networks is there twice, so that each ``roi`` is whole; one of two regions of a
        network once, as of the first. ``attrs["units"]`` is ``"arbitrary"``.

    Raises
    ------
    InputMissingError
        If the file is not there.
    DataError
        If it is damaged, concepts and rows differ in number, or columns lie outside.
    UsageError
        If a network or the paradigm is none that there is; the message lists them.
    """
    if paradigm not in get_args(Paradigm):
        raise UsageError(
            f"unknown paradigm {paradigm!r} (known: {', '.join(get_args(Paradigm))})"
        )
    path = _file(Path(root), subject, paradigm)
    found = read_variables(
        path, ["examples", "keyConcept", "meta"], ["labelsConcreteness"]
    )
    examples = np.asarray(found["examples"])
    concepts = texts(found["keyConcept"])
    if examples.ndim != 2 or examples.dtype.kind not in "fiu":
        raise DataError("examples must be a matrix of numbers", path)
    if len(concepts) != len(examples):
        raise DataError(
            f"keyConcept names {len(concepts)} concepts for {len(examples)} rows of "
            "examples",
            path,
        )
    meta = _fields(found["meta"], path)
    targets = _targets(meta, networks, examples.shape[1], path)
    responses = response_matrix(
        examples[:, targets["column"].to_numpy()].astype(np.float64),
        onset=np.arange(len(concepts), dtype=float),
        subject=subject,
        stimulus=concepts,
        targets=targets,
        attrs={"units": "arbitrary", "paradigm": paradigm},
    )
    rating = np.asarray(found.get("labelsConcreteness", np.nan), dtype=float).ravel()
    if rating.size != len(concepts):
        rating = np.full(len(concepts), np.nan)
    return responses.assign_coords(concreteness=("sample", rating))


def _file(root: Path, subject: str, paradigm: str) -> Path:
    folder = root / subject
    if Path(subject).name != subject or not folder.is_dir():
        there = sorted(p.name for p in root.glob("*") if p.is_dir())
        raise InputMissingError(
            f"{root}: has no participant {subject!r} (found: "
            f"{', '.join(there) or 'none'})"
        )
    # Some copies of the archives begin their names with examples_.
    for start in ("data", "examples"):
        path = folder / f"{start}_180concepts_{paradigm}.mat"
        if path.exists() or path.is_symlink():
            return require_content(path)
    raise InputMissingError(
        f"{folder / f'data_180concepts_{paradigm}.mat'}: no such file. Is the archive "
        f"{subject}.tar unpacked?"
    )


def _fields(meta: Any, path: Path) -> dict[str, Any]:
    structure = np.asarray(meta)
    names = structure.dtype.names or ()
    lacking = [name for name in ("atlases", "roiColumns") if name not in names]
    if lacking or structure.size != 1:
        raise DataError(
            f"meta must be a structure with atlases and roiColumns (found: "
            f"{', '.join(names) or 'no structure'})",
            path,
        )
    return {name: structure.ravel()[0][name] for name in names}


def _targets(
    meta: dict[str, Any],
    networks: Sequence[str] | None,
    n_columns: int,
    path: Path,
) -> pd.DataFrame:
    atlases, columns = texts(meta["atlases"]), cell(meta["roiColumns"])
    names = cell(meta["rois"]) if "rois" in meta else [None] * len(atlases)
    if not len(atlases) == len(columns) == len(names):
        raise DataError(
            f"meta has {len(atlases)} atlases, columns of {len(columns)} and regions "
            f"of {len(names)}",
            path,
        )
    if networks is None:
        networks = [name for name in NETWORKS if name in atlases]
    unknown = [name for name in networks if name not in atlases]
    if unknown or not len(networks):
        raise UsageError(
            f"{path}: has no network {', '.join(unknown or NETWORKS)} (found: "
            f"{', '.join(atlases)})"
        )
    tables = []
    for network in networks:
        at = atlases.index(network)
        tables.append(_network(network, columns[at], names[at], n_columns, path))
    targets = pd.concat(tables, ignore_index=True)
    if "colToCoord" in meta:
        places = np.asarray(meta["colToCoord"])
        if places.shape != (n_columns, 3):
            raise DataError(
                f"colToCoord must have a place for each of {n_columns} voxels, got "
                f"the shape {places.shape}",
                path,
            )
        own = places[targets["column"].to_numpy()].astype(np.int64) - 1
        targets[["i", "j", "k"]] = own
    return targets


def _network(
    network: str, columns: Any, names: Any, n_columns: int, path: Path
) -> pd.DataFrame:
    """A row a voxel of one network, by region."""
    regions = [np.asarray(part).ravel() for part in cell(columns)]
    labels = texts(names) if names is not None else []
    if len(labels) != len(regions):
        labels = [f"{network}-{k + 1}" for k in range(len(regions))]
    table = pd.DataFrame(
        {
            "column": np.concatenate([np.zeros(0), *regions]),
            "region": np.repeat(labels, [len(part) for part in regions]),
        }
    ).drop_duplicates("column")
    numbers: NDArray[np.float64] = table["column"].to_numpy(dtype=float)
    if not len(numbers):
        raise DataError(f"network {network} has no voxel", path)
    outside = (numbers < 1) | (numbers > n_columns) | (numbers != np.rint(numbers))
    if outside.any():
        raise DataError(
            f"columns of {network} run from {numbers.min():g} to {numbers.max():g}, "
            f"expected whole numbers from 1 to {n_columns}",
            path,
        )
    whole = numbers.astype(np.int64)
    return pd.DataFrame(
        {
            "target": [f"{network}-{column:06d}" for column in whole],
            "roi": network,
            "region": table["region"].to_numpy(dtype=object),
            "column": whole - 1,
        }
    )

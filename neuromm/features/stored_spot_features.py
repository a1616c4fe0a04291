"""Vectors of spots that were computed before, by any tool: files, and obsm.

The layout is that of TRIPLEX, beside the patches of HEST-1k::

    emb/global/<encoder>/<section>.h5    embeddings (n_spots, n_features)
    emb/neighbor/<encoder>/<section>.h5  embeddings (n_spots, n_tiles, n_features),
                                         mask_tb (n_spots, n_tiles)
    emb/target/<encoder>/<section>.h5    embeddings (n_spots, n_tokens, n_features);
                                         of neuromm, where a patch has tokens

with ``barcodes`` or ``coords`` in each, by which rows find their spots.

References
----------
Chung et al. (2024) Accurate spatial gene expression prediction by integrating
multi-resolution features. CVPR (TRIPLEX).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.features.spot_places import array_places
from neuromm.features.spot_vector_file import (
    check_vectors,
    opened,
    read_attrs,
    read_vectors,
    write_arrays,
)

__all__ = ["obsm_spot_features", "stored_spot_features", "write_spot_features"]

_BESIDE = ("neighbor", "target")


def stored_spot_features(
    adata: Any, path: str | Path, *, section: str, encoder: str | None = None
) -> SpotFeatures:
    """Read the vectors of a section that were computed before.

    Parameters
    ----------
    adata : anndata.AnnData
        As `neuromm.io.spatial.load` gives it.
    path : path-like
        The folder ``emb`` that holds ``global/<encoder>/<section>.h5`` (and
        ``neighbor/``, ``target/``), or one ``.h5`` with ``embeddings``, of shape
        (n_spots, n_features) or, for tokens, (n_spots, n_tokens, n_features).
    section : str
        Name of the file in the folder; for tables and messages.
    encoder : str, optional
        Of those in the folder, if there are several. It names that of one file which
        does not say.

    Returns
    -------
    features : SpotFeatures
        One tile a spot, its own vector, where there are no neighbours. ``overview`` of
        tokens alone is their mean. Vectors of no trained network say so if the file
        does, or if they bear the name of a stand-in of neuromm.

    Raises
    ------
    InputMissingError
        If there is no file of the section.
    UsageError
        If the encoder is not there, or several are and none is named.
    DataError
        If a file is damaged, is no finite floats of the shape above, or a spot has no
        row or two, or a row no spot.

    Notes
    -----
    Rows find their spots by ``barcodes`` (or ``barcode``, ``names``), or by ``coords``
    within half of the distance between spots: of centres, or of one corner of all
    patches. Barcodes are the same on every Visium chip, so ``coords`` must agree with
    them where both are there.

    Tiles are taken row by row. The present code of TRIPLEX writes them column by
    column: use one source for a model.
    """
    path = Path(path)
    if path.is_dir():
        file, encoder = _chosen(path, section, encoder)
        others = {role: _layout(path, role, encoder, section) for role in _BESIDE}
    else:
        file, others = path, {}
    own = read_vectors(file, n_dims=(2,) if others else (2, 3))
    stated = own.attrs.get("encoder")
    if stated is not None and not others and encoder not in (None, str(stated)):
        raise UsageError(f"{file} says that its encoder is {stated}, not {encoder}")
    name = str(stated) if stated is not None else encoder or file.resolve().parent.name
    tokens = around = mask = None
    for role, beside in others.items():
        if not beside.is_file():
            continue
        held = read_vectors(beside, n_dims=(3,))
        if held.attrs.get("written") != own.attrs.get("written"):
            raise DataError(
                f"was not written together with {file}: write the features again",
                beside,
            )
        if role == "target":
            tokens = held.of(adata, section)
        else:
            around, mask = held.of(adata, section), held.mask_of(adata, section)
    return _features(
        adata,
        own.of(adata, section),
        section=section,
        tokens=tokens,
        around=around,
        mask=mask,
        encoder=name,
        is_stand_in=_is_stand_in(own.attrs, name),
    )


def obsm_spot_features(adata: Any, key: str, *, section: str) -> SpotFeatures:
    """Take the vectors of spots from ``adata.obsm``.

    Parameters
    ----------
    adata : anndata.AnnData
        As `neuromm.io.spatial.load` gives it.
    key : str
        Of an array (n_spots, n_features), or (n_spots, n_tokens, n_features). It names
        the encoder.
    section : str
        Name for tables and messages.

    Returns
    -------
    features : SpotFeatures
        One tile a spot, its own vector. ``overview`` of tokens is their mean.

    Raises
    ------
    UsageError
        If there is no such key.
    DataError
        If the values are no finite floats of that shape.
    """
    if key not in adata.obsm:
        there = ", ".join(sorted(adata.obsm.keys())) or "nothing"
        raise UsageError(f'{section}: no obsm["{key}"], it holds {there}')
    values = np.asarray(adata.obsm[key])
    if values.ndim not in (2, 3):
        raise DataError(
            f'{section}: obsm["{key}"] must be (n_spots, n_features) or (n_spots, '
            f"n_tokens, n_features), got {values.shape}"
        )
    check_vectors(values, f'{section}: obsm["{key}"]')
    return _features(
        adata,
        values,
        section=section,
        encoder=key,
        is_stand_in=_is_stand_in({}, key),
    )


def write_spot_features(
    features: SpotFeatures, folder: str | Path, *, patch_um: float | None = None
) -> Path:
    """Write the vectors of a section, to be read by `stored_spot_features`.

    They read back as they were, so that one machine can encode and another train.

    Parameters
    ----------
    features : SpotFeatures
    folder : path-like
        The folder ``emb``; made if it is not there. Files of the same encoder and
        section are replaced.
    patch_um : float, optional
        Side of a patch on the tissue, to be kept with the vectors.

    Returns
    -------
    folder : Path

    Raises
    ------
    UsageError
        If a trained network would be replaced by its random twin, or the other way.
    DataError
        If a value is not finite.
    OutputError
        If the folder cannot be written.
    """
    folder = Path(folder)
    place = {
        role: _layout(folder, role, features.encoder, features.section)
        for role in ("global", *_BESIDE)
    }
    for what in ("target", "neighbors", "overview"):
        check_vectors(getattr(features, what), f"{features.section}: {what}")
    _check_replaced(place["global"], features)
    names = np.char.encode(np.asarray(features.spots, dtype=str), "utf-8")
    common: dict[str, NDArray[Any]] = {"barcodes": names, "grid": features.grid}
    parts: dict[str, dict[str, NDArray[Any]]] = {
        "neighbor": {
            "embeddings": features.neighbors,
            "mask_tb": features.neighbor_mask.astype(np.uint8),
        },
        "target": {"embeddings": features.target},
        "global": {"embeddings": features.overview},
    }
    has_tokens = not _is_same(features.target, features.overview[:, None])
    if not has_tokens:
        del parts["target"]
    attrs: dict[str, Any] = {
        "encoder": features.encoder,
        "is_stand_in": features.is_stand_in,
        "section": features.section,
        "tile_order": "row by row",
        # What a killed run wrote must not be read beside what lay there before.
        "written": _digest([common, *parts.values()]),
    }
    if patch_um is not None:
        attrs["patch_um"] = float(patch_um)
    for role, arrays in parts.items():  # global last: it is what is looked for
        write_arrays(place[role], {**arrays, **common}, attrs)
    if not has_tokens:
        place["target"].unlink(missing_ok=True)
    return folder


def _features(
    adata: Any,
    values: NDArray[np.floating],
    *,
    section: str,
    encoder: str,
    is_stand_in: bool,
    tokens: NDArray[np.floating] | None = None,
    around: NDArray[np.floating] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> SpotFeatures:
    """Of vectors, or of tokens and their mean."""
    own = values
    if values.ndim == 3:
        own = values.mean(axis=1, dtype=np.float64).astype(values.dtype)
    if tokens is None:
        tokens = values if values.ndim == 3 else values[:, None]
    if around is None or mask is None:
        around, mask = own[:, None], np.ones((len(own), 1), dtype=bool)
    return SpotFeatures(
        section=section,
        spots=np.asarray(adata.obs_names, dtype=str),
        target=tokens,
        neighbors=around,
        neighbor_mask=mask,
        overview=own,
        grid=array_places(adata, section),
        encoder=encoder,
        is_stand_in=is_stand_in,
    )


def _chosen(folder: Path, section: str, encoder: str | None) -> tuple[Path, str]:
    """File of the section, and the encoder whose folder it lies in."""
    held = sorted((folder / "global").glob(f"*/{_file_name(section, 'section')}.h5"))
    found = [file.parent.name for file in held]
    if not found:
        there = sorted({file.stem for file in (folder / "global").glob("*/*.h5")})
        what = f"sections {', '.join(there[:10])}" if there else "no features"
        raise InputMissingError(
            f"{folder} has no global/<encoder>/{section}.h5, it holds {what}. Give the "
            "folder emb that holds global/ and neighbor/, or one .h5"
        )
    if encoder is None:
        if len(found) > 1:
            raise UsageError(
                f"{folder} holds {section} by several encoders, name one: "
                f"{', '.join(found)}"
            )
        return held[0], found[0]
    wanted = _file_name(encoder, "encoder")
    if wanted not in found:
        raise UsageError(
            f"{folder} holds no {section} by {encoder}, but by {', '.join(found)}"
        )
    return held[found.index(wanted)], wanted


def _layout(folder: Path, role: str, encoder: str, section: str) -> Path:
    name = f"{_file_name(section, 'section')}.h5"
    return folder / role / _file_name(encoder, "encoder") / name


def _file_name(name: str, what: str) -> str:
    """Name of a file or folder; what cannot stand in one is written as %XX."""
    if not name:
        raise UsageError(f"the {what} must have a name, got an empty one")
    return re.sub(
        r'[/\\:*?"<>|\x00-\x1f]|^\.', lambda found: f"%{ord(found[0]):02X}", name
    )


def _is_stand_in(attrs: Mapping[str, Any], encoder: str) -> bool:
    from neuromm.features.built_in_backbones import STAND_INS

    stated = attrs.get("is_stand_in", encoder in STAND_INS)
    if isinstance(stated, str):
        return stated.strip().lower() not in ("", "0", "false", "no")
    return bool(stated)


def _check_replaced(path: Path, features: SpotFeatures) -> None:
    if not path.is_file():
        return
    with opened(path) as file:
        was = _is_stand_in(read_attrs(file, path), features.encoder)
    if was != features.is_stand_in:
        kinds = "a trained network", "a random twin or stand-in"
        raise UsageError(
            f"{path} holds vectors of {kinds[was]}, these are of "
            f"{kinds[features.is_stand_in]} of the same name: choose another folder"
        )


def _is_same(a: NDArray[np.floating], b: NDArray[np.floating]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


def _digest(parts: Sequence[Mapping[str, NDArray[Any]]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for name, values in part.items():
            digest.update(f"{name} {values.dtype} {values.shape};".encode())
            digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()

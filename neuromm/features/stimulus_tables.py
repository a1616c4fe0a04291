"""From stimuli to feature tables: a backbone over images, words, frames or pairs.

The rows say what is shown when (`neuromm.features.stimulus_rows`); the backbone makes a
vector of each; the table is what `neuromm encode --features NAME=PATH` reads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import Attrs, Backbone, LayeredBackbone, Pooling
from neuromm.features.checked_table import checked_table
from neuromm.features.feature_cache import (
    Compute,
    FeatureCache,
    Parts,
    computed_in_parts,
)
from neuromm.features.layer_candidates import candidate_columns
from neuromm.features.layer_hooks import LayerReading
from neuromm.features.projection import resolved_dim, sparse_projection
from neuromm.features.stimulus_rows import StimulusRows
from neuromm.features.table import FeatureTable

__all__ = ["layer_features", "stimulus_features"]

_PROBED = 32  # stimuli by which equal layers are told


def stimulus_features(
    backbone: Backbone,
    rows: StimulusRows,
    *,
    name: str,
    projection_dim: int | Literal["auto"] | None = None,
    seed: int = 0,
    cache: FeatureCache | None = None,
) -> FeatureTable:
    """Embed stimuli, a row each.

    Parameters
    ----------
    backbone : Backbone
    rows : StimulusRows
        Stimuli and their keys.
    name : str
        Name of the feature space, such as ``"vision"``.
    projection_dim : int, "auto" or None
        Columns after a sparse random projection; "auto" is the dimension of Johnson and
        Lindenstrauss for the number of rows.
    seed : int
        Of the projection.
    cache : FeatureCache, optional
        Keeps embeddings; without it, they are always computed.

    Returns
    -------
    table : FeatureTable
        ``attrs`` name the backbone, whether it is trained, a random twin or a stand-in,
        layer, pooling, preprocessing, projection and the digest of the weights.

    Raises
    ------
    UsageError
        If the stimuli are not of the kind that the backbone takes, or a projection is
        asked for of several layers at once.
    DataError
        If a stimulus cannot be read, or an embedding is not finite.
    """
    _check_modality(backbone, rows)
    dim = resolved_dim(projection_dim, len(rows.stimuli))
    # One stimulus may be shown many times; it is embedded once.
    distinct, place = _distinct(rows.stimuli)

    def compute(part: Sequence[object]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": backbone.embed(part)}

    attrs = dict(backbone.attrs)
    if dim is not None and candidate_columns(attrs) is not None:
        raise UsageError(
            "a projection mixes the columns of all candidates: choose one layer, or "
            "leave projection_dim out"
        )
    values = _computed(cache, attrs, distinct, compute)["embedding"][place]
    if dim is not None:
        values = sparse_projection(values, dim, seed)
    projected = LayerReading(projection_dim=dim, seed=seed).attrs["projection"]
    return _table(values, rows, name, {**attrs, "projection": projected})


def layer_features(
    backbone: Backbone,
    rows: StimulusRows,
    *,
    name: str,
    layers: Sequence[str] | None = None,
    pooling: Pooling = "mean",
    projection_dim: int | Literal["auto"] | None = None,
    seed: int = 0,
    cache: FeatureCache | None = None,
) -> dict[str, FeatureTable]:
    """Activations of the layers of a network, a table each.

    Parameters
    ----------
    backbone : Backbone
        One with layers: a network, not a stand-in.
    rows : StimulusRows
    name : str
        Tables are called ``NAME@LAYER``.
    layers : sequence of str, optional
        Every leaf if not given; see `module_layers`. Equal layers are told by the first
        32 stimuli.
    pooling : {"mean", "first", "last", "flatten"}
    projection_dim : int, "auto" or None
        ``pooling="flatten", projection_dim="auto"`` is that of Subramaniam et al.
        (2024).
    seed : int
        Of the projection; the same for a network and its random twin.
    cache : FeatureCache, optional

    Returns
    -------
    tables : dict of str to FeatureTable
        By layer, in the order in which they are computed.

    Raises
    ------
    UsageError
        If the backbone has no layers, or a layer does not exist.
    """
    if not isinstance(backbone, LayeredBackbone):
        raise UsageError(f"{backbone.name} has no layers: use stimulus_features")
    _check_modality(backbone, rows)
    n_rows = len(rows.stimuli)
    distinct, place = _distinct(rows.stimuli)
    dim = resolved_dim(projection_dim, n_rows)
    wanted = None if layers is None else tuple(layers)
    if wanted is None:
        probe = LayerReading(pooling="mean")
        wanted = tuple(backbone.layers(distinct[:_PROBED], probe))
    reading = LayerReading(
        layers=wanted, pooling=pooling, projection_dim=dim, seed=seed
    )

    def compute(part: Sequence[object]) -> dict[str, NDArray[np.float32]]:
        return backbone.layers(part, reading)

    about = {**backbone.attrs, **reading.attrs}
    settings = {**about, "layer": "\n".join(wanted)}
    found = _computed(cache, settings, distinct, compute)
    return {
        layer: _table(
            found[layer][place], rows, f"{name}@{layer}", {**about, "layer": layer}
        )
        for layer in wanted
    }


def _computed(
    cache: FeatureCache | None,
    settings: Attrs,
    stimuli: Sequence[object],
    compute: Compute,
) -> Parts:
    if cache is None:
        return computed_in_parts(stimuli, compute)
    return cache.computed(settings, stimuli, compute)


def _distinct(
    stimuli: Sequence[object],
) -> tuple[list[object], NDArray[np.intp]]:
    """Stimuli without repeats, and the place of each row among them."""
    seen: dict[object, int] = {}
    distinct: list[object] = []
    place = np.empty(len(stimuli), dtype=np.intp)
    for row, stimulus in enumerate(stimuli):
        # Arrays and open images are told apart by identity, which never errs.
        key = _identity(stimulus)
        if key not in seen:
            seen[key] = len(distinct)
            distinct.append(stimulus)
        place[row] = seen[key]
    return distinct, place


def _identity(stimulus: object) -> object:
    if isinstance(stimulus, tuple | list):
        return tuple(_identity(part) for part in stimulus)
    try:
        hash(stimulus)
    except TypeError:
        return ("object", id(stimulus))
    return stimulus


def _check_modality(backbone: Backbone, rows: StimulusRows) -> None:
    if backbone.modality != rows.modality:
        raise UsageError(
            f"{backbone.name} takes {backbone.modality} stimuli, and the rows are of "
            f"{rows.modality}. Pairs of image and text are made by paired_rows."
        )


def _table(
    values: NDArray[np.float32], rows: StimulusRows, name: str, attrs: Attrs
) -> FeatureTable:
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DataError(
            f"{attrs['model']} gives values that are not finite, first for row "
            f"{bad + 1} ({attrs['layer']}): are the weights of half precision?"
        )
    return checked_table(
        name=name,
        keys={str(column): rows.keys[column].to_numpy() for column in rows.keys},
        values=values,
        columns=candidate_columns(attrs),
        source=Path(name),
        attrs=attrs,
    )

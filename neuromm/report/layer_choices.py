"""Which layer each target took in each fold, as a table and as shares.

The choice was made inside the training folds (`neuromm.encoding.encode`), so that it
differs between folds where layers do equally well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import EncodingResult
from neuromm.core.files import write_json
from neuromm.report.naming import bids_name
from neuromm.report.sidecars import write_tsv

__all__ = ["layer_shares", "write_layer_choices"]

_DESCRIPTION = "layers"


def layer_shares(
    result: EncodingResult, significant: NDArray[np.bool_] | None
) -> dict[str, dict[str, float | None]] | None:
    """Share of the fits (folds and targets) that took each layer.

    Parameters
    ----------
    result : EncodingResult
    significant : boolean array of shape (n_targets,) or None
        Targets that are predicted; None without a test.

    Returns
    -------
    shares : dict or None
        Layer to ``all`` and ``significant``, in [0, 1]; the second is None without such
        a target. None for a space of one layer.
    """
    if "candidate" not in result.scores:
        return None
    taken = result.scores["candidate"].to_numpy()
    some = taken[:, significant] if significant is not None else taken[:, :0]
    return {
        str(name): {"all": _share(taken, place), "significant": _share(some, place)}
        for place, name in enumerate(result.attrs["candidates"])
    }


def write_layer_choices(
    folder: Path,
    unit: Mapping[str, str],
    results: Mapping[str, EncodingResult],
    common: Mapping[str, Any],
) -> list[Path]:
    """Write ``…_desc-layers_scores.tsv`` and its sidecar; nothing without a choice.

    Parameters
    ----------
    folder : Path
    unit : mapping of str to str
        Entities of the unit.
    results : mapping of str to EncodingResult
    common : mapping
        What every sidecar of the unit tells.
    """
    frames, columns = [], _COLUMNS
    for name, result in results.items():
        if "candidate" not in result.scores:
            continue
        layers = [str(one) for one in result.attrs["candidates"]]
        taken = result.scores["candidate"].to_numpy()
        held_out = result.scores["held_out_runs"].to_numpy()
        frame = pd.DataFrame(
            {
                "target": result.scores["target"].to_numpy().astype(str),
                "space": name,
                "layer": _named(_most_often(taken, len(layers)), layers),
            }
        )
        for fold, chosen in enumerate(taken):
            column = f"layer_fold{fold + 1}"
            frame[column] = _named(chosen, layers)
            told = f"Layer that was chosen without the held-out runs {held_out[fold]}"
            columns = {**columns, column: {"Description": told}}
        frames.append(frame)
    if not frames:
        return []
    labels = {**unit, "description": _DESCRIPTION}
    path = folder / bids_name(labels, "scores", ".tsv")
    write_tsv(path, pd.concat(frames, ignore_index=True))
    sidecar = {
        "Description": "Layers chosen inside the training folds: a row a target and "
        "feature space",
        **common,
        **columns,
    }
    return [path, write_json(folder / bids_name(labels, "scores", ".json"), sidecar)]


_COLUMNS: dict[str, dict[str, Any]] = {
    "target": {"Description": "Name of the voxel, vertex, sensor or contact"},
    "space": {"Description": "Feature space"},
    "layer": {
        "Description": "Layer that most folds chose; of several, the earliest one"
    },
}


def _most_often(taken: NDArray[np.intp], n_layers: int) -> NDArray[np.intp]:
    counts = np.stack([(taken == place).sum(axis=0) for place in range(n_layers)])
    return np.where(counts.any(axis=0), counts.argmax(axis=0), -1)


def _named(places: NDArray[np.intp], layers: list[str]) -> Any:
    """Names of layers; missing for -1."""
    names = np.array([*layers, np.nan], dtype=object)
    return pd.Categorical(names[places], categories=layers)


def _share(taken: NDArray[np.intp], place: int) -> float | None:
    chosen = taken[taken >= 0]
    if not chosen.size:
        return None
    return float(f"{(chosen == place).mean():.6g}")

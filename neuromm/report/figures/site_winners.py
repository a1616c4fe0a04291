"""Which model each target is coloured by: the data behind maps of sites."""

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.encoding.group_comparisons import best_models
from neuromm.encoding.group_tables import models_of
from neuromm.report.figures.surfaces import N_VERTICES

__all__ = ["site_winners", "vertices_of"]

_VERTEX = re.compile(r"(?P<hemi>[LR])-(?P<vertex>\d+)")
# Scores in the lowest fifth of the scale would hide the rest.
_FLOOR = 0.2


def site_winners(
    table: pd.DataFrame,
    *,
    multimodal: str = "joint",
    least_score: float | None = None,
) -> pd.DataFrame:
    """The model that each target is coloured by: the data of the maps of winners.

    Parameters
    ----------
    table : DataFrame
        `SiteMap.table`, of one or several subjects.
    multimodal : str
        Model that wins at sites.
    least_score : float, optional
        Targets at which no model reaches it have no winner; a fifth of the 99.9th
        percentile of scores if not given.

    Returns
    -------
    winners : DataFrame
        ``subject`` if there is one, ``target``, the places there are (``x``, ``y``,
        ``z``, ``hemi``, ``region``), ``winner``, ``score`` (of the winner), ``gain``
        and ``is_site``. At sites the winner is ``multimodal``; elsewhere the best
        simpler model, which it was not shown to beat; "" below ``least_score``.
    """
    simpler = [name for name in models_of(table) if name != multimodal]
    best = best_models(table, simpler)
    found = table["is_site"].to_numpy(dtype=bool)
    winner = np.where(found, multimodal, best.to_numpy())
    scores = table[[f"score_{name}" for name in (*simpler, multimodal)]]
    values = scores.to_numpy(dtype=float)
    names = [*simpler, multimodal]
    score = np.array(
        [
            values[row, names.index(name)] if name else np.nan
            for row, name in enumerate(winner)
        ]
    )
    floor = _floor(values) if least_score is None else least_score
    with np.errstate(invalid="ignore"):
        winner = np.where(found | (score >= floor), winner, "")
    places = ("subject", "target", "x", "y", "z", "hemi", "region")
    told = table[[name for name in places if name in table]].reset_index(drop=True)
    told = told.assign(winner=winner, score=score)
    told = told.assign(gain=table["gain"].to_numpy(), is_site=found)
    told.attrs = {"least_score": float(floor)}
    return told


def vertices_of(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Hemisphere and vertex of each target: ``hemi`` and ``vertex``, or ``L-123``."""
    if {"hemi", "vertex"} <= set(table):
        side, number = table["hemi"].astype(str), table["vertex"]
    else:
        parts = table["target"].astype(str).str.extract(_VERTEX)
        if parts.isna().to_numpy().any():
            raise UsageError(
                "vertices need the columns hemi (L, R) and vertex, or targets named "
                "such as L-123"
            )
        side, number = parts["hemi"], parts["vertex"]
    vertices = number.to_numpy().astype(int)
    if len(vertices) and not (0 <= vertices.min() <= vertices.max() < N_VERTICES):
        raise UsageError(
            f"vertices must be those of fsaverage5, 0 to {N_VERTICES - 1}, got "
            f"{vertices.min()} to {vertices.max()}; resample other surfaces first"
        )
    return {"hemi": side.to_numpy(), "vertex": vertices}


def _floor(scores: NDArray[np.float64]) -> float:
    known = scores[np.isfinite(scores)]
    return _FLOOR * max(float(np.percentile(known, 99.9)) if known.size else 0.0, 0.0)

"""One fitted encoding model: how well each target is predicted, and with what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import xarray as xr

from neuromm.core.target_space import TargetSpace

__all__ = ["EncodingResult"]


@dataclass(frozen=True, kw_only=True)
class EncodingResult:
    """Scores of one feature space on every target.

    Attributes
    ----------
    space : str
        Feature space, such as ``"vision"``, or ``"joint"`` for all together.
    scores : xarray.Dataset
        On ``(target,)``: ``r`` and ``r2`` of the held-out predictions pooled over
        folds; where asked for ``p`` and ``q`` (permutation test and its false
        discovery rate) and ``ceiling``. On ``(fold, target)``: ``r_fold``,
        ``r2_fold``, ``alpha``, and where a space has several candidates (layers)
        ``candidate``, the place of the chosen one in ``attrs["candidates"]``, -1 for
        none. nan marks a target that cannot be scored (constant, or with missing
        values). ``target`` carries the coordinates of the target space.
    targets : TargetSpace or None
        How targets go back to native space.
    weights : DataArray or None
        dims (feature, target): coefficients of the fit on all samples.
    predictions : DataArray or None
        dims (sample, target): held-out predictions, nan for samples of no test fold.
    attrs : mapping
        How it was computed: scoring, folds, solver form, alphas, share of targets at
        each edge of the grid.
    """

    space: str
    scores: xr.Dataset
    targets: TargetSpace | None = None
    weights: xr.DataArray | None = None
    predictions: xr.DataArray | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """The long table: a row a target.

        Returns
        -------
        table : DataFrame
            ``target``, its coordinates, ``space``, ``r``, ``r2``, ``alpha`` (median
            over folds), and ``p``, ``q``, ``ceiling`` where they were computed.
        """
        columns = [
            name
            for name in ("r", "r2", "p", "q", "ceiling")
            if name in self.scores and self.scores[name].dims == ("target",)
        ]
        table = self.scores[columns].to_dataframe().reset_index()
        table["space"] = self.space
        table["alpha"] = self.scores["alpha"].median("fold").to_numpy()
        coordinates = [c for c in table if c not in {*columns, "space", "alpha"}]
        ordered = [*coordinates, "space", "r", "r2", "alpha"]
        return table[ordered + [name for name in columns if name not in {"r", "r2"}]]

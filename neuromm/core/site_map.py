"""Where one feature space predicts better than every competitor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core.target_space import TargetSpace

__all__ = ["SiteMap"]


@dataclass(frozen=True, kw_only=True)
class SiteMap:
    """Sites of multimodal integration, and the evidence for each.

    Attributes
    ----------
    evidence : xarray.Dataset
        On ``(site,)``: ``gain``, ``ci_low``, ``ci_high``, ``p``, ``q``, ``is_site``,
        ``competitor`` (the best one). On ``(model, site)``: ``score``. On
        ``(comparison, site)``: ``p_comparison``, of the multimodal space against each
        competitor, and against chance. nan marks a site that cannot be scored.
    targets : TargetSpace or None
        How sites go back to native space.
    attrs : mapping
        How it was computed: folds, block, resamples, level, correction.
    """

    evidence: xr.Dataset
    targets: TargetSpace | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_site(self) -> NDArray[np.bool_]:
        """Boolean array of shape (n_sites,)."""
        return np.asarray(self.evidence["is_site"].to_numpy(), dtype=bool)

    @property
    def table(self) -> pd.DataFrame:
        """A row a site.

        Returns
        -------
        table : DataFrame
            ``target``, its coordinates, ``score_<model>`` for each feature space and
            for ``linear`` (the stronger of the linear controls), ``gain`` over the
            best competitor with its interval ``ci_low`` to ``ci_high``,
            ``competitor``, ``p`` (the largest over the competitors and chance), ``q``,
            ``is_site``.
        """
        evidence = self.evidence
        table = pd.DataFrame({"target": evidence["site"].to_numpy()})
        for name, coord in evidence.coords.items():
            if coord.dims == ("site",) and name != "site":
                table[str(name)] = coord.to_numpy()
        for model in evidence["model"].to_numpy():
            table[f"score_{model}"] = evidence["score"].sel(model=model).to_numpy()
        for name in ("gain", "ci_low", "ci_high", "competitor", "p", "q", "is_site"):
            table[name] = evidence[name].to_numpy()
        return table

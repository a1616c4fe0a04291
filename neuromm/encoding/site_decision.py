"""Which targets are sites: decided over all of them, also where parts came apart."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import SiteMap, TargetSpace, UsageError

__all__ = ["Correction", "adjusted", "decided", "joined_sites"]

Correction = Literal["bh", "by"]


def adjusted(p: NDArray[np.floating], correction: Correction) -> NDArray[np.float64]:
    """False discovery rate of each p over those that are not nan."""
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested], method=correction)
    return q


def decided(evidence: xr.Dataset, level: float, correction: Correction) -> xr.Dataset:
    """Add the conjunction ``p``, its ``q`` over sites, and ``is_site``.

    Parameters
    ----------
    evidence : Dataset
        ``p_comparison`` on (comparison, site) and ``gain`` on (site,); what was decided
        before is decided anew.
    level : float
        Of the false discovery rate.
    correction : {"bh", "by"}
    """
    p = evidence["p_comparison"].max("comparison", skipna=False).to_numpy()
    q = adjusted(p, correction)
    with np.errstate(invalid="ignore"):
        is_site = (q <= level) & (evidence["gain"].to_numpy() > 0)
    return evidence.assign(p=("site", p), q=("site", q), is_site=("site", is_site))


def joined_sites(
    parts: Sequence[SiteMap], targets: TargetSpace | None = None
) -> SiteMap:
    """Join maps of parts of the targets; q is decided over all sites.

    Parameters
    ----------
    parts : sequence of SiteMap
        Made with the same settings, seed and block, in the order of the targets.
    targets : TargetSpace, optional
        Of all targets.

    Raises
    ------
    neuromm.core.UsageError
        If there is no part, or one was made otherwise.
    """
    if not parts:
        raise UsageError("joined_sites needs at least one part")
    attrs = dict(parts[0].attrs)
    if any(dict(part.attrs) != attrs for part in parts[1:]):
        raise UsageError(
            "the parts were mapped with different settings, seeds or blocks: give each "
            "the same rng (an integer) and the block of all targets (event_block)"
        )
    evidence = xr.concat([part.evidence for part in parts], "site")
    return SiteMap(
        evidence=decided(evidence, attrs["q"], attrs["correction"]),
        targets=targets,
        attrs=attrs,
    )

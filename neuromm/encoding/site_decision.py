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


def decided(
    evidence: xr.Dataset,
    level: float,
    correction: Correction,
    *,
    families: Sequence[str] = (),
) -> xr.Dataset:
    """Add the conjunction ``p``, its ``q`` over sites, and ``is_site``.

    Parameters
    ----------
    evidence : Dataset
        ``p_comparison`` on (comparison, site) and ``gain`` on (site,); what was decided
        before is decided anew.
    level : float
        Of the false discovery rate.
    correction : {"bh", "by"}
    families : sequence of str
        Comparisons that decide, each with a rate of its own, as Subramaniam et al.
        (2024) publish it; ``q`` is the largest, nan where one was not tested. Adds
        ``q_<comparison>`` of all, and ``by_default``: a comparison was won because
        ``default_<comparison>`` names a winner without a test, and no other was lost.
    """
    if families:
        return _decided_by(evidence, level, correction, families)
    p = evidence["p_comparison"].max("comparison", skipna=False).to_numpy()
    q = adjusted(p, correction)
    with np.errstate(invalid="ignore"):
        is_site = (q <= level) & (evidence["gain"].to_numpy() > 0)
    return evidence.assign(p=("site", p), q=("site", q), is_site=("site", is_site))


def _decided_by(
    evidence: xr.Dataset, level: float, correction: Correction, families: Sequence[str]
) -> xr.Dataset:
    compared = {
        str(name): evidence["p_comparison"].sel(comparison=name).to_numpy()
        for name in evidence["comparison"].to_numpy()
    }
    rates = {name: adjusted(p, correction) for name, p in compared.items()}
    p = np.max([compared[name] for name in families], axis=0)
    q = np.max([rates[name] for name in families], axis=0)
    with np.errstate(invalid="ignore"):
        shown = np.stack([rates[name] <= level for name in families])
        is_site = shown.all(axis=0) & (evidence["gain"].to_numpy() > 0)
    # Where the multimodal model alone predicts the site, p is nan and it wins.
    default = np.stack([evidence[f"default_{name}"].to_numpy() for name in families])
    mine = default == evidence.attrs["multimodal"]
    told = {f"q_{name}": ("site", rate) for name, rate in rates.items()}
    by_default = (shown | mine).all(axis=0) & mine.any(axis=0)
    named = evidence.assign_coords(told).assign_coords(by_default=("site", by_default))
    return named.assign(p=("site", p), q=("site", q), is_site=("site", is_site))


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
    evidence.attrs["multimodal"] = attrs["multimodal"]
    return SiteMap(
        evidence=decided(
            evidence,
            attrs["q"],
            attrs["correction"],
            families=attrs.get("families", ()),
        ),
        targets=targets,
        attrs=attrs,
    )

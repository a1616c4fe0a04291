"""Results of chunks of targets, joined to the result of all targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, EncodingResult, SiteMap, TargetSpace
from neuromm_pipelines.site_chunks import unpacked

__all__ = ["joined_maps", "joined_results"]


def joined_results(
    chunks: Sequence[Mapping[str, Any]], responses: xr.DataArray, targets: TargetSpace
) -> dict[str, EncodingResult]:
    """Put the chunks of a unit together.

    Parameters
    ----------
    chunks : sequence of mapping
        What `UnitChunks.read` gives, in the order of the targets.
    responses : DataArray, dims (sample, target)
        Of the whole unit.
    targets : TargetSpace

    Returns
    -------
    results : dict of str to EncodingResult
        p is a target's own; q is the false discovery rate over the joined targets, and
        so are the shares of penalties at an edge of the grid. ``solver_form`` names
        every form that a chunk was solved in: few targets may be cheaper in another
        form than many.

    Raises
    ------
    neuromm.core.DataError
        If the chunks do not tile the targets.
    """
    _check_tiles([chunk["part"] for chunk in chunks], responses.sizes["target"])
    filled = [chunk for chunk in chunks if chunk["spaces"]]
    n_spaces = len(filled[0]["spaces"])
    joined = (_joined(filled, i, responses, targets) for i in range(n_spaces))
    return {result.space: result for result in joined}


def joined_maps(chunks: Sequence[Mapping[str, Any]]) -> SiteMap | None:
    """Put the maps of sites of a unit's chunks together; None if there are none.

    The false discovery rate, and so which target is a site, is that of all sites.

    Parameters
    ----------
    chunks : sequence of mapping
        What `UnitChunks.read` gives, in the order of the targets.
    """
    from neuromm.encoding.site_decision import joined_sites

    maps = [unpacked(one["sites"], one["arrays"]) for one in chunks if "sites" in one]
    return joined_sites(maps) if maps else None


def _joined(
    chunks: Sequence[Mapping[str, Any]],
    index: int,
    responses: xr.DataArray,
    targets: TargetSpace,
) -> EncodingResult:
    first = chunks[0]["spaces"][index]

    def whole(name: str) -> NDArray[Any]:
        parts = [chunk["arrays"][f"{name}_{index}"] for chunk in chunks]
        return np.concatenate(parts, axis=-1)

    scores: dict[str, Any] = {}
    for name in first["scores"]:
        values = whole(name)
        scores[name] = (("fold", "target")[-values.ndim :], values)
    if "p" in scores:
        scores["q"] = ("target", _false_discovery_rate(scores["p"][1]))
    held_out = np.array(first["held_out_runs"], dtype=object)
    predictions = None
    if f"predictions_{index}" in chunks[0]["arrays"]:
        predictions = responses.copy(data=whole("predictions")).rename("predictions")
    return EncodingResult(
        space=first["space"],
        scores=xr.Dataset(
            scores,
            coords={
                "fold": np.arange(len(held_out)),
                "held_out_runs": ("fold", held_out),
                **_target_coords(responses),
            },
        ),
        targets=targets,
        predictions=predictions,
        attrs=_attributes(
            [chunk["spaces"][index]["attrs"] for chunk in chunks], scores["alpha"][1]
        ),
    )


def _attributes(
    parts: Sequence[Mapping[str, Any]], alpha: NDArray[np.float64]
) -> dict[str, Any]:
    from neuromm.encoding.ridge_fit import edge_shares

    smallest, largest = edge_shares(alpha, np.asarray(parts[0]["alphas"]))
    forms = {form for part in parts for form in part["solver_form"].split("+")}
    return {
        **parts[0],
        "solver_form": "+".join(sorted(forms)),
        "share_smallest_alpha": smallest,
        "share_largest_alpha": largest,
        "masked_targets": [name for part in parts for name in part["masked_targets"]],
    }


def _check_tiles(parts: Sequence[Sequence[int]], n_targets: int) -> None:
    edges = [0, *(stop for _, stop in parts)]
    starts = [start for start, _ in parts]
    if starts != edges[:-1] or edges[-1] != n_targets:
        raise DataError(
            f"the chunks hold {edges[-1]} targets and the recordings now give "
            f"{n_targets}: compute the chunks anew with --overwrite"
        )


def _false_discovery_rate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg over the targets that have a p."""
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested], method="bh")
    return q


def _target_coords(responses: xr.DataArray) -> dict[str, Any]:
    return {
        str(name): ("target", coord.to_numpy())
        for name, coord in responses.coords.items()
        if coord.dims == ("target",)
    }

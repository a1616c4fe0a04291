"""What a map of sites is made of: features and responses with the labels of events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError, pair_samples, response_matrix
from neuromm.encoding.site_controls import LINEAR_PART
from neuromm.encoding.splitters import run_rows

__all__ = [
    "SiteLayout",
    "candidate_spaces",
    "check_spaces",
    "labelled_responses",
]

Array = NDArray[np.floating]


@dataclass(frozen=True)
class SiteLayout:
    """Which targets are the time bins of each site, (n_sites, n_times).

    ``times`` (s) are those of the columns; None where a site has no time.
    """

    columns: NDArray[np.intp]
    coords: pd.DataFrame
    times: NDArray[np.float64] | None = None


def check_spaces(
    features: Mapping[str, Any],
    unimodal: Sequence[str],
    multimodal: str,
    controls: Sequence[str],
) -> None:
    """Refuse spaces that are missing, named twice or called like a control."""
    if isinstance(unimodal, str) or len(unimodal) < 2 or multimodal in unimodal:
        raise UsageError(
            "unimodal must name two or more spaces, and multimodal another one, got "
            f"{unimodal!r} and {multimodal!r}"
        )
    names = (*unimodal, multimodal, *controls)
    if isinstance(controls, str) or len(set(names)) < len(names):
        raise UsageError(
            "controls must name spaces that are neither unimodal nor the multimodal "
            f"one, each once, got {controls!r}"
        )
    missing = [name for name in names if name not in features and name != LINEAR_PART]
    if missing:
        raise UsageError(
            f"features has no space {', '.join(missing)} (it has: "
            f"{', '.join(features)}). The multimodal space holds the features of a "
            "network that was trained on both modalities, not their concatenation."
        )
    reserved = {"concatenation", "banded", "linear", "chance"} & set(names)
    if reserved:
        raise UsageError(f"a space cannot be called {', '.join(sorted(reserved))}")


def labelled_responses(
    responses: ArrayLike | xr.DataArray,
    groups: ArrayLike | None,
    times: ArrayLike | None,
) -> tuple[xr.DataArray, SiteLayout]:
    """Responses with labels of events, and the layout of sites and bins."""
    if isinstance(responses, xr.DataArray):
        if groups is not None or times is not None:
            raise UsageError(
                "groups and times are coordinates of a DataArray (run, time); give "
                "them only with an array"
            )
        labelled = responses.transpose("sample", "target")
        return labelled.astype(_precision(labelled.dtype)), _layout(labelled)
    values = np.asarray(responses)
    values = values.astype(_precision(values.dtype), copy=False)
    if values.ndim not in (2, 3) or (times is not None and values.ndim == 2):
        raise UsageError(
            "responses must have shape (n_events, n_targets), or (n_events, n_sites, "
            f"n_times) with times, got {values.shape}"
        )
    n_events, n_sites = values.shape[:2]
    sites = pd.DataFrame({"target": [f"target{i:04d}" for i in range(n_sites)]})
    if values.ndim == 3:
        n_times = values.shape[2]
        bins = np.arange(n_times) if times is None else np.asarray(times, dtype=float)
        if len(bins) != n_times:
            raise UsageError(f"times has {len(bins)} values for {n_times} bins")
        sites = sites.rename(columns={"target": "site"})
        sites = sites.loc[np.repeat(np.arange(n_sites), n_times)].reset_index(drop=True)
        sites["time"] = np.tile(bins, n_sites)
        sites["target"] = [
            f"{one}@{at:g}"
            for one, at in zip(sites["site"], sites["time"], strict=True)
        ]
    labels = np.zeros(n_events, dtype=int) if groups is None else np.asarray(groups)
    labelled = response_matrix(
        values.reshape(n_events, -1),
        onset=_onsets(labels),
        run=[str(label) for label in labels],
        targets=sites,
    )
    return labelled, _layout(labelled)


def candidate_spaces(
    features: Mapping[str, Any], names: Sequence[str], labelled: xr.DataArray
) -> dict[str, dict[str, Array]]:
    """Candidates of each space, paired with the responses."""
    spaces = {}
    for name in names:
        if name == LINEAR_PART and name not in features:
            continue
        space = features[name]
        candidates = space if isinstance(space, Mapping) else {name: space}
        spaces[name] = {
            str(key): _matrix(f"{name}/{key}", one, labelled)
            for key, one in candidates.items()
        }
    return spaces


def _layout(labelled: xr.DataArray) -> SiteLayout:
    coords = pd.DataFrame(
        {
            str(name): coord.to_numpy()
            for name, coord in labelled.coords.items()
            if coord.dims == ("target",)
        }
    )
    n_targets = labelled.sizes["target"]
    if "time" not in coords or coords["time"].isna().all():
        columns = np.arange(n_targets)[:, None]
        return SiteLayout(columns, coords.rename(columns={"target": "site"}))
    keys = coords.drop(columns=["target", "time"])
    if keys.empty or not len(keys.columns):
        keys = pd.DataFrame({"site": np.zeros(n_targets, dtype=int)})
    codes = keys.astype(str).agg("|".join, axis=1)
    order = pd.factorize(codes)[0]
    groups = [np.flatnonzero(order == number) for number in range(order.max() + 1)]
    if len({len(group) for group in groups}) != 1:
        raise UsageError("every site must have the same time bins")
    columns = np.stack(
        [group[np.argsort(coords["time"].to_numpy()[group])] for group in groups]
    )
    first = keys.iloc[columns[:, 0]].reset_index(drop=True)
    if "site" not in first:
        alone = first.columns[0] if len(first.columns) == 1 else None
        name = "channel" if "channel" in first and first["channel"].is_unique else alone
        first["site"] = first[name] if name else codes.iloc[columns[:, 0]].to_numpy()
    times = coords["time"].to_numpy(dtype=np.float64)[columns[0]]
    return SiteLayout(columns, first, times)


def _matrix(name: str, values: Any, labelled: xr.DataArray) -> Array:
    if isinstance(values, xr.DataArray):
        paired, _ = pair_samples(values.transpose("sample", "feature"), labelled)
        values = paired.to_numpy()
    x = np.asarray(values)
    x = x.astype(_precision(x.dtype), copy=False)
    if x.ndim != 2 or len(x) != labelled.sizes["sample"]:
        raise UsageError(
            f"the features {name!r} must have one row an event, "
            f"({labelled.sizes['sample']}, n_features), got shape {x.shape}"
        )
    if not np.isfinite(x).all():
        raise UsageError(f"the features {name!r} hold missing or infinite values")
    return x


def _precision(dtype: Any) -> Any:
    return dtype if dtype in (np.float32, np.float64) else np.float64


def _onsets(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Place of each event in its run: one event a second."""
    onset = np.zeros(len(labels))
    for rows in run_rows(labels):
        onset[rows] = np.arange(len(rows))
    return onset

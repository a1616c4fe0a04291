"""A map of sites as the arrays of a chunk's file, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from neuromm.core import SiteMap

__all__ = ["packed", "unpacked"]

_PREFIX = "sites_"
# Decided over all sites when the chunks are joined.
_DECIDED = ("p", "q", "is_site")


def packed(sites: SiteMap) -> tuple[dict[str, Any], dict[str, Any]]:
    """What tells the map apart, as JSON, and its arrays by names of their own.

    Texts are arrays of fixed width: no pickled object goes into a file.
    """
    evidence = sites.evidence.drop_vars(list(_DECIDED))
    variables = {**evidence.data_vars, **evidence.coords}
    header = {
        "attrs": dict(sites.attrs),
        "dims": {str(name): list(map(str, v.dims)) for name, v in variables.items()},
        "coords": [str(name) for name in evidence.coords],
    }
    arrays = {
        f"{_PREFIX}{name}": _plain(variable.to_numpy())
        for name, variable in variables.items()
    }
    return header, arrays


def unpacked(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> SiteMap:
    """The map that `packed` was given, not decided."""
    variables = {
        name: (tuple(dims), _as_objects(arrays[f"{_PREFIX}{name}"]))
        for name, dims in header["dims"].items()
    }
    coords = {name: variables.pop(name) for name in header["coords"]}
    return SiteMap(evidence=xr.Dataset(variables, coords=coords), attrs=header["attrs"])


def _plain(values: Any) -> Any:
    return values.astype(str) if values.dtype == object else values


def _as_objects(values: Any) -> Any:
    # Texts of chunks differ in width; as objects they can be joined.
    return values.astype(object) if np.issubdtype(values.dtype, np.str_) else values

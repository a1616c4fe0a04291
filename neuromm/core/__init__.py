"""The types that flow through neuromm."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromm.core.encoding_result import EncodingResult
    from neuromm.core.errors import (
        DataError,
        InputMissingError,
        NeurommError,
        OutputError,
        ResourceLimitError,
        UsageError,
    )
    from neuromm.core.matrices import feature_matrix, pair_samples, response_matrix
    from neuromm.core.provenance import Provenance
    from neuromm.core.sample import Sample, Study
    from neuromm.core.site_map import SiteMap
    from neuromm.core.target_space import TargetSpace

__all__ = [
    "DataError",
    "EncodingResult",
    "InputMissingError",
    "NeurommError",
    "OutputError",
    "Provenance",
    "ResourceLimitError",
    "Sample",
    "SiteMap",
    "Study",
    "TargetSpace",
    "UsageError",
    "feature_matrix",
    "pair_samples",
    "response_matrix",
]

# pandas and xarray load when a type that needs them is first asked for, so that
# `neuromm --help` does not wait for them.
_HOMES = {
    "EncodingResult": "encoding_result",
    "Provenance": "provenance",
    "Sample": "sample",
    "SiteMap": "site_map",
    "Study": "sample",
    "TargetSpace": "target_space",
    "feature_matrix": "matrices",
    "pair_samples": "matrices",
    "response_matrix": "matrices",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"neuromm.core.{_HOMES.get(name, 'errors')}")
    return getattr(module, name)

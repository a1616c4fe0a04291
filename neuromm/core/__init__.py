"""The types that flow through neuromm."""

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
    "Study",
    "TargetSpace",
    "UsageError",
    "feature_matrix",
    "pair_samples",
    "response_matrix",
]

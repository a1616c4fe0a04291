"""Array maths with no domain knowledge.

The plain NumPy version is the definition, the fall-back and the reference of every
fast one. ``cuda/column_correlation.cu`` holds the CUDA form of `column_correlation`;
tests compile it for the CPU and hold it against the definition. It is not dispatched
to from Python: no array of a GPU is recognised here yet.
"""

from neuromm.kernels.column_statistics import (
    Moments,
    column_correlation,
    column_dot,
    column_r2,
    is_constant,
)
from neuromm.kernels.ridge import (
    FitBasis,
    FoldBasis,
    centred_eigenmodes,
    fit_basis,
    fold_basis,
    path_scores,
    select_alphas,
    shrunken_weights,
)
from neuromm.kernels.ridge_cost import (
    RidgeCost,
    RidgeMemory,
    cheaper_form,
    operation_count,
    working_memory,
)

__all__ = [
    "FitBasis",
    "FoldBasis",
    "Moments",
    "RidgeCost",
    "RidgeMemory",
    "centred_eigenmodes",
    "cheaper_form",
    "column_correlation",
    "column_dot",
    "column_r2",
    "fit_basis",
    "fold_basis",
    "is_constant",
    "operation_count",
    "path_scores",
    "select_alphas",
    "shrunken_weights",
    "working_memory",
]

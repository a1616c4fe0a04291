"""Array maths with no domain knowledge.

The plain array version is the definition, the fall-back and the reference of every
fast one. Arrays may be of NumPy, torch or CuPy: what is computed, and where, follows
the arrays that are given. CUDA kernels in ``cuda/`` take the place of the parts that
pass over memory often, where CuPy and a GPU are at hand.
"""

from neuromm.kernels.column_statistics import (
    Moments,
    column_correlation,
    column_dot,
    column_mean,
    column_r2,
    is_constant,
)
from neuromm.kernels.ridge_cost import (
    RidgeCost,
    RidgeShape,
    Solver,
    cheapest_solvers,
    operation_count,
)
from neuromm.kernels.ridge_folds import EigenRidge
from neuromm.kernels.ridge_hold_out import HoldOutRidge
from neuromm.kernels.ridge_memory import RidgeMemory, working_memory
from neuromm.kernels.ridge_selection import select_alphas
from neuromm.kernels.row_parts import row_parts

__all__ = [
    "EigenRidge",
    "HoldOutRidge",
    "Moments",
    "RidgeCost",
    "RidgeMemory",
    "RidgeShape",
    "Solver",
    "cheapest_solvers",
    "column_correlation",
    "column_dot",
    "column_mean",
    "column_r2",
    "is_constant",
    "operation_count",
    "row_parts",
    "select_alphas",
    "working_memory",
]

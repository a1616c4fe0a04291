"""Encoding models: predict every voxel, sensor or contact from features.

`encode` is the whole analysis of one subject; `RidgeCV` the estimator behind it, with
the conventions of scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromm.encoding.banded_ridge import BandedRidgeCV
    from neuromm.encoding.ceilings import noise_ceiling
    from neuromm.encoding.nested_encoding import encode
    from neuromm.encoding.nifti_targets import NiftiTargets
    from neuromm.encoding.pairwise_accuracy import (
        pattern_r,
        roi_scores,
        two_v_two,
        voxel_r,
    )
    from neuromm.encoding.partition import (
        partition_models,
        product_measure,
        structured_partition,
        variance_partition,
    )
    from neuromm.encoding.permutation import PermutationResult, permutation_test
    from neuromm.encoding.planning import Plan, plan
    from neuromm.encoding.ridge_cv import RidgeCV
    from neuromm.encoding.scores import correlation_score, r2_score
    from neuromm.encoding.sites import integration_sites
    from neuromm.encoding.splitters import BlockedKFold, RunKFold
    from neuromm.encoding.stacking import Stacking, stack
    from neuromm.prepare.delay import delay

__all__ = [
    "BandedRidgeCV",
    "BlockedKFold",
    "NiftiTargets",
    "PermutationResult",
    "Plan",
    "RidgeCV",
    "RunKFold",
    "Stacking",
    "correlation_score",
    "delay",
    "encode",
    "integration_sites",
    "noise_ceiling",
    "partition_models",
    "pattern_r",
    "permutation_test",
    "plan",
    "product_measure",
    "r2_score",
    "roi_scores",
    "stack",
    "structured_partition",
    "two_v_two",
    "variance_partition",
    "voxel_r",
]

# No module here is named like what it exports: importing it would replace the function.
_HOMES = {
    "BandedRidgeCV": "neuromm.encoding.banded_ridge",
    "BlockedKFold": "neuromm.encoding.splitters",
    "NiftiTargets": "neuromm.encoding.nifti_targets",
    "PermutationResult": "neuromm.encoding.permutation",
    "Plan": "neuromm.encoding.planning",
    "RidgeCV": "neuromm.encoding.ridge_cv",
    "RunKFold": "neuromm.encoding.splitters",
    "Stacking": "neuromm.encoding.stacking",
    "correlation_score": "neuromm.encoding.scores",
    "delay": "neuromm.prepare.delay",
    "encode": "neuromm.encoding.nested_encoding",
    "integration_sites": "neuromm.encoding.sites",
    "noise_ceiling": "neuromm.encoding.ceilings",
    "partition_models": "neuromm.encoding.partition",
    "pattern_r": "neuromm.encoding.pairwise_accuracy",
    "permutation_test": "neuromm.encoding.permutation",
    "plan": "neuromm.encoding.planning",
    "product_measure": "neuromm.encoding.partition",
    "r2_score": "neuromm.encoding.scores",
    "roi_scores": "neuromm.encoding.pairwise_accuracy",
    "stack": "neuromm.encoding.stacking",
    "structured_partition": "neuromm.encoding.partition",
    "two_v_two": "neuromm.encoding.pairwise_accuracy",
    "variance_partition": "neuromm.encoding.partition",
    "voxel_r": "neuromm.encoding.pairwise_accuracy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

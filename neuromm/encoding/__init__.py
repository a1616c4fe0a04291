"""Encoding models: predict every voxel, sensor or contact from features.

`encode` is the whole analysis of one subject; `RidgeCV` the estimator behind it, with
the conventions of scikit-learn.
"""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.encoding.banded_ridge import BandedRidgeCV
    from neuromm.encoding.ceilings import (
        bootstrap_ceiling,
        noise_ceiling,
        normalised_scores,
    )
    from neuromm.encoding.effectiveness import (
        InverseEffectiveness,
        inverse_effectiveness,
    )
    from neuromm.encoding.group_comparisons import (
        best_models,
        comparison_table,
        comparison_winners,
        winner_counts,
    )
    from neuromm.encoding.group_courses import peak_times, score_courses
    from neuromm.encoding.group_sites import (
        both_alignments,
        group_effect,
        model_ranks,
        region_table,
    )
    from neuromm.encoding.half_fold_comparisons import half_fold_sites
    from neuromm.encoding.half_fold_protocol import half_fold_scores
    from neuromm.encoding.interaction_bounds import (
        PartialInformation,
        SynergyBounds,
        partial_information,
        synergy_bounds,
    )
    from neuromm.encoding.linear_probe import (
        ExpressionProbe,
        expression_probe,
        fit_expression_probe,
    )
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
    from neuromm.encoding.section_folds import TissueFold, tissue_folds
    from neuromm.encoding.sites import integration_sites
    from neuromm.encoding.splitters import BlockedKFold, RunKFold
    from neuromm.encoding.stacking import Stacking, stack
    from neuromm.encoding.synergy_evidence import SiteSynergy, site_synergy
    from neuromm.prepare.delay import delay

__all__ = [
    "BandedRidgeCV",
    "BlockedKFold",
    "ExpressionProbe",
    "InverseEffectiveness",
    "NiftiTargets",
    "PartialInformation",
    "PermutationResult",
    "Plan",
    "RidgeCV",
    "RunKFold",
    "SiteSynergy",
    "Stacking",
    "SynergyBounds",
    "TissueFold",
    "best_models",
    "bootstrap_ceiling",
    "both_alignments",
    "comparison_table",
    "comparison_winners",
    "correlation_score",
    "delay",
    "encode",
    "expression_probe",
    "fit_expression_probe",
    "group_effect",
    "half_fold_scores",
    "half_fold_sites",
    "integration_sites",
    "inverse_effectiveness",
    "model_ranks",
    "noise_ceiling",
    "normalised_scores",
    "partial_information",
    "partition_models",
    "pattern_r",
    "peak_times",
    "permutation_test",
    "plan",
    "product_measure",
    "r2_score",
    "region_table",
    "roi_scores",
    "score_courses",
    "site_synergy",
    "stack",
    "structured_partition",
    "synergy_bounds",
    "tissue_folds",
    "two_v_two",
    "variance_partition",
    "voxel_r",
    "winner_counts",
]

# No module here is named like what it exports: importing it would replace the function.
_HOMES = {
    "BandedRidgeCV": "neuromm.encoding.banded_ridge",
    "BlockedKFold": "neuromm.encoding.splitters",
    "ExpressionProbe": "neuromm.encoding.linear_probe",
    "InverseEffectiveness": "neuromm.encoding.effectiveness",
    "NiftiTargets": "neuromm.encoding.nifti_targets",
    "PartialInformation": "neuromm.encoding.interaction_bounds",
    "PermutationResult": "neuromm.encoding.permutation",
    "Plan": "neuromm.encoding.planning",
    "RidgeCV": "neuromm.encoding.ridge_cv",
    "RunKFold": "neuromm.encoding.splitters",
    "SiteSynergy": "neuromm.encoding.synergy_evidence",
    "Stacking": "neuromm.encoding.stacking",
    "SynergyBounds": "neuromm.encoding.interaction_bounds",
    "TissueFold": "neuromm.encoding.section_folds",
    "best_models": "neuromm.encoding.group_comparisons",
    "bootstrap_ceiling": "neuromm.encoding.ceilings",
    "both_alignments": "neuromm.encoding.group_sites",
    "comparison_table": "neuromm.encoding.group_comparisons",
    "comparison_winners": "neuromm.encoding.group_comparisons",
    "correlation_score": "neuromm.encoding.scores",
    "delay": "neuromm.prepare.delay",
    "encode": "neuromm.encoding.nested_encoding",
    "expression_probe": "neuromm.encoding.linear_probe",
    "fit_expression_probe": "neuromm.encoding.linear_probe",
    "group_effect": "neuromm.encoding.group_sites",
    "half_fold_scores": "neuromm.encoding.half_fold_protocol",
    "half_fold_sites": "neuromm.encoding.half_fold_comparisons",
    "integration_sites": "neuromm.encoding.sites",
    "inverse_effectiveness": "neuromm.encoding.effectiveness",
    "model_ranks": "neuromm.encoding.group_sites",
    "noise_ceiling": "neuromm.encoding.ceilings",
    "normalised_scores": "neuromm.encoding.ceilings",
    "partial_information": "neuromm.encoding.interaction_bounds",
    "partition_models": "neuromm.encoding.partition",
    "pattern_r": "neuromm.encoding.pairwise_accuracy",
    "peak_times": "neuromm.encoding.group_courses",
    "permutation_test": "neuromm.encoding.permutation",
    "plan": "neuromm.encoding.planning",
    "product_measure": "neuromm.encoding.partition",
    "r2_score": "neuromm.encoding.scores",
    "region_table": "neuromm.encoding.group_sites",
    "roi_scores": "neuromm.encoding.pairwise_accuracy",
    "score_courses": "neuromm.encoding.group_courses",
    "site_synergy": "neuromm.encoding.synergy_evidence",
    "stack": "neuromm.encoding.stacking",
    "structured_partition": "neuromm.encoding.partition",
    "synergy_bounds": "neuromm.encoding.interaction_bounds",
    "tissue_folds": "neuromm.encoding.section_folds",
    "two_v_two": "neuromm.encoding.pairwise_accuracy",
    "variance_partition": "neuromm.encoding.partition",
    "voxel_r": "neuromm.encoding.pairwise_accuracy",
    "winner_counts": "neuromm.encoding.group_comparisons",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

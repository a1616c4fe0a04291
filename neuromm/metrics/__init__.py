"""What a result is judged by."""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.metrics.calibration import (
        expected_calibration_error,
        reliability_table,
    )
    from neuromm.metrics.expression import (
        ExpressionScores,
        expression_correlation,
    )
    from neuromm.metrics.ranking import RetrievalScores, k_way, retrieval
    from neuromm.metrics.resampling import bootstrap_interval
    from neuromm.metrics.segmentation import (
        SurfaceDistances,
        detection_rate,
        dice,
        identification_rate,
        label_centres,
        localisation_error,
        surface_distances,
    )
    from neuromm.metrics.structure import (
        StructureScores,
        expression_structure,
        morans_i,
    )

__all__ = [
    "ExpressionScores",
    "RetrievalScores",
    "StructureScores",
    "SurfaceDistances",
    "bootstrap_interval",
    "detection_rate",
    "dice",
    "expected_calibration_error",
    "expression_correlation",
    "expression_structure",
    "identification_rate",
    "k_way",
    "label_centres",
    "localisation_error",
    "morans_i",
    "reliability_table",
    "retrieval",
    "surface_distances",
]

# No module is named after a public name: once it is loaded, Python binds the module
# under that name, and the function would be lost.
_HOMES = {
    "ExpressionScores": "neuromm.metrics.expression",
    "expression_correlation": "neuromm.metrics.expression",
    "StructureScores": "neuromm.metrics.structure",
    "expression_structure": "neuromm.metrics.structure",
    "morans_i": "neuromm.metrics.structure",
    "SurfaceDistances": "neuromm.metrics.segmentation",
    "RetrievalScores": "neuromm.metrics.ranking",
    "k_way": "neuromm.metrics.ranking",
    "retrieval": "neuromm.metrics.ranking",
    "bootstrap_interval": "neuromm.metrics.resampling",
    "detection_rate": "neuromm.metrics.segmentation",
    "dice": "neuromm.metrics.segmentation",
    "expected_calibration_error": "neuromm.metrics.calibration",
    "identification_rate": "neuromm.metrics.segmentation",
    "label_centres": "neuromm.metrics.segmentation",
    "localisation_error": "neuromm.metrics.segmentation",
    "reliability_table": "neuromm.metrics.calibration",
    "surface_distances": "neuromm.metrics.segmentation",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

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
    from neuromm.metrics.expression_structure import (
        StructureScores,
        expression_structure,
        morans_i,
    )
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

__all__ = [
    "ExpressionScores",
    "StructureScores",
    "SurfaceDistances",
    "bootstrap_interval",
    "detection_rate",
    "dice",
    "expected_calibration_error",
    "expression_correlation",
    "expression_structure",
    "identification_rate",
    "label_centres",
    "localisation_error",
    "morans_i",
    "reliability_table",
    "surface_distances",
]

_HOMES = {
    "ExpressionScores": "neuromm.metrics.expression",
    "expression_correlation": "neuromm.metrics.expression",
    "StructureScores": "neuromm.metrics.expression_structure",
    "expression_structure": "neuromm.metrics.expression_structure",
    "morans_i": "neuromm.metrics.expression_structure",
    "SurfaceDistances": "neuromm.metrics.segmentation",
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

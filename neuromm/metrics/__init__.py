"""What a result is judged by."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromm.metrics.calibration import (
        expected_calibration_error,
        reliability_table,
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
    "SurfaceDistances",
    "bootstrap_interval",
    "detection_rate",
    "dice",
    "expected_calibration_error",
    "identification_rate",
    "label_centres",
    "localisation_error",
    "reliability_table",
    "surface_distances",
]

_HOMES = {
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

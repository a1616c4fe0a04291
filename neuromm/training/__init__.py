"""A plain training loop that all models share, with runs that survive a kill."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromm.training.evaluation import evaluate
    from neuromm.training.fitting import FitResult, fit
    from neuromm.training.modality_dropout import ModalityDropout
    from neuromm.training.monai_augmentation import MonaiAugmentation
    from neuromm.training.segmentation_task import SegmentationTask
    from neuromm.training.tasks import Augmentation, Samples, Task
    from neuromm.training.training_config import TrainingConfig

__all__ = [
    "Augmentation",
    "FitResult",
    "ModalityDropout",
    "MonaiAugmentation",
    "Samples",
    "SegmentationTask",
    "Task",
    "TrainingConfig",
    "evaluate",
    "fit",
]

_HOMES = {
    "Augmentation": "neuromm.training.tasks",
    "FitResult": "neuromm.training.fitting",
    "ModalityDropout": "neuromm.training.modality_dropout",
    "MonaiAugmentation": "neuromm.training.monai_augmentation",
    "Samples": "neuromm.training.tasks",
    "SegmentationTask": "neuromm.training.segmentation_task",
    "Task": "neuromm.training.tasks",
    "TrainingConfig": "neuromm.training.training_config",
    "evaluate": "neuromm.training.evaluation",
    "fit": "neuromm.training.fitting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

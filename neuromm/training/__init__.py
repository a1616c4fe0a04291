"""A plain training loop that all models share, with runs that survive a kill."""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.training.evaluation import evaluate
    from neuromm.training.expression_task import ExpressionTask, TissueSpots
    from neuromm.training.fitting import FitResult, fit
    from neuromm.training.modality_dropout import ModalityDropout
    from neuromm.training.monai_augmentation import MonaiAugmentation
    from neuromm.training.segmentation_task import SegmentationTask
    from neuromm.training.tasks import Augmentation, Samples, Task
    from neuromm.training.training_config import TrainingConfig

__all__ = [
    "Augmentation",
    "ExpressionTask",
    "FitResult",
    "ModalityDropout",
    "MonaiAugmentation",
    "Samples",
    "SegmentationTask",
    "Task",
    "TissueSpots",
    "TrainingConfig",
    "evaluate",
    "fit",
]

_HOMES = {
    "ExpressionTask": "neuromm.training.expression_task",
    "TissueSpots": "neuromm.training.expression_task",
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

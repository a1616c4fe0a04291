"""Contrastive losses over several modalities and levels, in memory linear in the batch.

Each loss is a function of unnormalised rows and a module that holds its settings and,
if asked, learns its temperature.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromm.losses.anchored import AnchoredContrastive, anchored_contrastive
    from neuromm.losses.gradient_caching import LossAndGrad
    from neuromm.losses.info_nce_loss import InfoNCE, info_nce
    from neuromm.losses.sigmoid_pairs import SigLIP, siglip
    from neuromm.losses.soft_targets import (
        MultiLevelContrastive,
        SoftContrastive,
        multi_level_contrastive,
        soft_contrastive,
    )
    from neuromm.losses.temperature import Temperature
    from neuromm.losses.volume import GramVolume, gram_volume, gram_volumes

__all__ = [
    "AnchoredContrastive",
    "GramVolume",
    "InfoNCE",
    "LossAndGrad",
    "MultiLevelContrastive",
    "SigLIP",
    "SoftContrastive",
    "Temperature",
    "anchored_contrastive",
    "gram_volume",
    "gram_volumes",
    "info_nce",
    "multi_level_contrastive",
    "siglip",
    "soft_contrastive",
]

# No module here is named like what it exports: importing it would replace the function.
_HOMES = {
    "AnchoredContrastive": "neuromm.losses.anchored",
    "GramVolume": "neuromm.losses.volume",
    "InfoNCE": "neuromm.losses.info_nce_loss",
    "LossAndGrad": "neuromm.losses.gradient_caching",
    "MultiLevelContrastive": "neuromm.losses.soft_targets",
    "SigLIP": "neuromm.losses.sigmoid_pairs",
    "SoftContrastive": "neuromm.losses.soft_targets",
    "Temperature": "neuromm.losses.temperature",
    "anchored_contrastive": "neuromm.losses.anchored",
    "gram_volume": "neuromm.losses.volume",
    "gram_volumes": "neuromm.losses.volume",
    "info_nce": "neuromm.losses.info_nce_loss",
    "multi_level_contrastive": "neuromm.losses.soft_targets",
    "siglip": "neuromm.losses.sigmoid_pairs",
    "soft_contrastive": "neuromm.losses.soft_targets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

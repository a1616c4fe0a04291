"""Contrastive losses over several modalities and levels, in memory linear in the batch.

Each loss is a function of unnormalised rows and a module that holds its settings and,
if asked, learns its temperature.
"""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.losses.anchored import AnchoredContrastive, anchored_contrastive
    from neuromm.losses.gathering import gather_rows
    from neuromm.losses.gradient_caching import LossAndGrad, loss_and_grad
    from neuromm.losses.group_discrimination import InstanceGroup, instance_group
    from neuromm.losses.info_nce_loss import InfoNCE, info_nce
    from neuromm.losses.mixed_samples import MixCo, Mixing, draw_mixing, mixco
    from neuromm.losses.sigmoid_pairs import SigLIP, siglip
    from neuromm.losses.soft_targets import (
        MultiLevelContrastive,
        SoftContrastive,
        multi_level_contrastive,
        soft_contrastive,
    )
    from neuromm.losses.softened_pairs import SoftCLIP, soft_clip
    from neuromm.losses.temperature import Temperature
    from neuromm.losses.volume import GramVolume, gram_volume, gram_volumes

__all__ = [
    "AnchoredContrastive",
    "GramVolume",
    "InfoNCE",
    "InstanceGroup",
    "LossAndGrad",
    "MixCo",
    "Mixing",
    "MultiLevelContrastive",
    "SigLIP",
    "SoftCLIP",
    "SoftContrastive",
    "Temperature",
    "anchored_contrastive",
    "draw_mixing",
    "gather_rows",
    "gram_volume",
    "gram_volumes",
    "info_nce",
    "instance_group",
    "loss_and_grad",
    "mixco",
    "multi_level_contrastive",
    "siglip",
    "soft_clip",
    "soft_contrastive",
]

# No module here is named like what it exports: importing it would replace the function.
_HOMES = {
    "AnchoredContrastive": "neuromm.losses.anchored",
    "GramVolume": "neuromm.losses.volume",
    "InfoNCE": "neuromm.losses.info_nce_loss",
    "InstanceGroup": "neuromm.losses.group_discrimination",
    "LossAndGrad": "neuromm.losses.gradient_caching",
    "MixCo": "neuromm.losses.mixed_samples",
    "Mixing": "neuromm.losses.mixed_samples",
    "MultiLevelContrastive": "neuromm.losses.soft_targets",
    "SigLIP": "neuromm.losses.sigmoid_pairs",
    "SoftCLIP": "neuromm.losses.softened_pairs",
    "SoftContrastive": "neuromm.losses.soft_targets",
    "Temperature": "neuromm.losses.temperature",
    "anchored_contrastive": "neuromm.losses.anchored",
    "draw_mixing": "neuromm.losses.mixed_samples",
    "gather_rows": "neuromm.losses.gathering",
    "gram_volume": "neuromm.losses.volume",
    "gram_volumes": "neuromm.losses.volume",
    "info_nce": "neuromm.losses.info_nce_loss",
    "instance_group": "neuromm.losses.group_discrimination",
    "loss_and_grad": "neuromm.losses.gradient_caching",
    "mixco": "neuromm.losses.mixed_samples",
    "multi_level_contrastive": "neuromm.losses.soft_targets",
    "siglip": "neuromm.losses.sigmoid_pairs",
    "soft_clip": "neuromm.losses.softened_pairs",
    "soft_contrastive": "neuromm.losses.soft_targets",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

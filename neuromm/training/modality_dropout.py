"""Modalities left out at random, so that a model learns to do without any.

References
----------
Li et al. (2018) 3D multi-scale FCN with random modality voxel dropout learning for
intervertebral disc localization and segmentation. Medical Image Analysis 45:41-54.
"""

from dataclasses import dataclass

import torch

from neuromm.core import UsageError
from neuromm.training.tasks import Batch

__all__ = ["ModalityDropout"]


@dataclass(frozen=True, slots=True)
class ModalityDropout:
    """An augmentation that marks modalities of a sample as not available.

    Parameters
    ----------
    probability : float
        Of each modality of each sample. One that is there is always kept: if all of
        a sample were left out, one of them, drawn at random, stays.
    """

    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            raise UsageError(f"probability must be in [0, 1), got {self.probability}")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Batch with ``available`` (n_samples, n_modalities), others as they are."""
        images = batch["images"]
        shape, device = images.shape[:2], images.device
        held = batch.get("available")
        present = torch.ones(shape, dtype=torch.bool) if held is None else held.cpu()
        kept = present & (torch.rand(shape, generator=generator) >= self.probability)
        # The highest of random numbers, among what is there.
        draw = torch.rand(shape, generator=generator).masked_fill(~present, -1)
        spare = torch.zeros_like(present).scatter_(
            1, draw.argmax(1, keepdim=True), True
        )
        kept = torch.where(kept.any(dim=1, keepdim=True), kept, spare & present)
        return {**batch, "available": kept.to(device)}

"""Segmentation: cross-entropy of pixels, and the Dice of whole volumes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromm.training.tasks import Batch

__all__ = ["SegmentationTask"]

_UNLABELLED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationTask:
    """Train a network to name the class of every pixel or voxel.

    A sample holds ``images`` (n_modalities, [depth,] height, width), scaled, and
    ``labels`` ([depth,] height, width), int64, -1 where the truth is unknown. It may
    hold ``available`` (n_modalities,), bool, and ``volume``, the number of the volume
    that a slice is of: Dice is of volumes, and without it each sample is one.

    The model returns logits, or an output with ``logits``; so any network of MONAI
    trains in the same way.

    Parameters
    ----------
    n_classes : int
        Background first.
    class_weights : tuple of n_classes floats, optional
        Of the cross-entropy; all 1 by default, as in Dolz et al. (2018).

    Notes
    -----
    Scores are ``dice`` and one ``dice_<class>`` for each class but the background: the
    mean over volumes that have the class, in truth or prediction, and of these the mean
    over classes; nan if no volume has it.
    """

    n_classes: int = 2
    class_weights: tuple[float, ...] | None = None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of the labelled pixels, in nats."""
        weight = None
        logits = _logits(model, batch)
        if self.class_weights is not None:
            weight = torch.tensor(self.class_weights, device=logits.device)
        loss: Tensor = functional.cross_entropy(
            logits.float(), batch["labels"], weight, ignore_index=_UNLABELLED
        )
        return loss

    def measure(self, model: nn.Module, batch: Batch) -> Batch:
        """Sizes of prediction, truth and overlap, each (n_samples, n_classes)."""
        truth = batch["labels"].flatten(1)
        found = _logits(model, batch).argmax(dim=1).flatten(1)
        known = truth != _UNLABELLED

        def sizes(where: Tensor, classes: Tensor) -> Tensor:
            counts = [(where & (classes == c)).sum(dim=1) for c in self._classes()]
            return torch.stack(counts, dim=1)

        measured = {
            "overlap": sizes(known & (found == truth), truth),
            "found": sizes(known, found),
            "true": sizes(known, truth),
        }
        if "volume" in batch:
            measured["volume"] = batch["volume"]
        return measured

    def scores(self, measured: Batch) -> dict[str, float]:
        """Dice of each class, a mean over volumes."""
        n_samples = len(measured["true"])
        volume = measured.get("volume", torch.arange(n_samples))
        _, which = volume.unique(return_inverse=True)
        shape = (int(which.max()) + 1, self.n_classes)

        def summed(name: str) -> Tensor:
            total = torch.zeros(shape, dtype=torch.float64)
            return total.index_add_(0, which, measured[name].double())

        # 0 / 0, a volume without the class, is nan and does not count.
        dice = 2 * summed("overlap") / (summed("found") + summed("true"))
        by_class = dice.nanmean(dim=0)[1:]
        named = {f"dice_{c}": float(by_class[c - 1]) for c in self._classes()[1:]}
        return {"dice": float(by_class.nanmean()), **named}

    def _classes(self) -> range:
        return range(self.n_classes)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    if "available" in batch:
        output = model(batch["images"], batch["available"])
    else:
        output = model(batch["images"])
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits

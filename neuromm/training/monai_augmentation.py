"""Random transforms of MONAI as an augmentation whose numbers come from the run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuromm.core import DataError
from neuromm.training.tasks import Batch

__all__ = ["MonaiAugmentation"]


@dataclass(frozen=True, slots=True)
class MonaiAugmentation:
    """Apply a dictionary transform of MONAI to each sample of a batch.

    Parameters
    ----------
    transform : callable of dict to dict
        Such as ``Compose([RandFlipd(["images", "labels"], prob=0.5)])``. It sees
        ``images`` (n_modalities, ...) and ``labels`` (1, ...), as MONAI wants a channel
        axis, on the CPU; resample labels with ``mode="nearest"``.

    Notes
    -----
    A folder of `fit` knows this augmentation by its name alone: it does not notice that
    a transform was given other settings.

    Examples
    --------
    >>> from monai.transforms import RandFlipd
    >>> flip = RandFlipd(["images", "labels"], prob=1.0, spatial_axis=1)
    >>> batch = {
    ...     "images": torch.arange(3.0).reshape(1, 1, 1, 3),
    ...     "labels": torch.tensor([[[0, 0, 1]]]),
    ... }
    >>> MonaiAugmentation(flip)(batch, torch.Generator())["labels"]
    tensor([[[1, 0, 0]]])
    """

    transform: Callable[[dict[str, Any]], Any]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Transform images and labels of a batch; the rest stays as it is.

        Raises
        ------
        DataError
            If a transform changes the shape of a sample.
        """
        seeded = getattr(self.transform, "set_random_state", None)
        if seeded is not None:
            seeded(seed=int(torch.randint(2**31, (), generator=generator)))
        pairs = [
            self._transformed(image, labels)
            for image, labels in zip(batch["images"], batch["labels"], strict=True)
        ]
        images, labels = (torch.stack(part) for part in zip(*pairs, strict=True))
        return {**batch, "images": images, "labels": labels}

    def _transformed(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sample = {"images": image.cpu(), "labels": labels.cpu()[None]}
        result = self.transform(sample)
        # Plain tensors, of the kind that came: MONAI gives tensors with an affine, and
        # resamples labels as floating-point numbers.
        new_image = _plain(result["images"]).to(image)
        new_labels = _plain(result["labels"])[0].round().to(labels)
        if new_image.shape != image.shape or new_labels.shape != labels.shape:
            raise DataError(
                f"the transform made {tuple(new_image.shape)} of "
                f"{tuple(image.shape)}: an augmentation keeps the shape"
            )
        return new_image, new_labels


def _plain(value: Any) -> Tensor:
    tensor: Tensor = value.as_tensor() if hasattr(value, "as_tensor") else value
    return torch.as_tensor(tensor)

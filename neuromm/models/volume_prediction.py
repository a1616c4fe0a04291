"""A whole volume through a model of slices, or of volumes, on the grid it came in."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromm.core import UsageError
from neuromm.models.inception_blocks import folded
from neuromm.models.ivdnet import IVDNet

__all__ = [
    "network_for_prediction",
    "predict_volume",
    "probabilities_of",
    "scaled_input",
]

_MULTIPLE = 16


def predict_volume(
    model: IVDNet,
    volume: NDArray[Any],
    available: Sequence[bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Probability of each class at each voxel of a volume as it was acquired.

    Parameters
    ----------
    model : IVDNet
        A model of 2-D takes the slices one by one; it is not changed, nor is its mode.
    volume : array of shape (n_modalities, slices, height, width)
        Intensities in the unit of the training data, before any scaling: the model's
        own scaling is applied. Sides need not be multiples of 16.
    available : sequence of n_modalities bool, optional
        Modalities that were acquired, all by default. Values of others are not read.
    progress : callable of (done, total), optional
        Told after each slice.

    Returns
    -------
    probabilities : array of shape (n_classes, slices, height, width)
        They sum to one over the classes.

    Raises
    ------
    UsageError
        If the volume has another number of modalities or of axes.
    DataError
        If intensities are not finite, a modality is constant, or the scaled volume
        lies outside the range of training.

    Notes
    -----
    Slices are padded at their end with their edge to multiples of 16. Computed on the
    device of the model.
    """
    scaled, mask = scaled_input(model, volume, available)
    network = network_for_prediction(model)
    if model.config.spatial_dims == 3:
        whole = probabilities_of(network, torch.from_numpy(scaled)[None], mask)
        first: NDArray[np.float32] = whole[0]
        return first
    n_slices = scaled.shape[1]
    result = np.empty((model.config.n_classes, *scaled.shape[1:]), dtype=np.float32)
    for index in range(n_slices):
        one = torch.from_numpy(scaled[None, :, index])
        result[:, index] = probabilities_of(network, one, mask)[0]
        if progress is not None:
            progress(index + 1, n_slices)
    return result


def scaled_input(
    model: IVDNet, volume: NDArray[Any], available: Sequence[bool] | None
) -> tuple[NDArray[np.float32], Tensor]:
    """Volume by the model's own scaling, and which modalities count, (1, n) of bool.

    Raises
    ------
    UsageError, DataError
        As `predict_volume` says.
    """
    volume = np.asarray(volume)
    n_modalities = model.config.n_modalities
    if volume.ndim != 4 or len(volume) != n_modalities:
        raise UsageError(
            f"volume must have shape ({n_modalities}, slices, height, width): one "
            f"channel a modality, got {volume.shape}"
        )
    kept = np.ones(n_modalities, bool) if available is None else np.asarray(available)
    if kept.dtype != bool or kept.shape != (n_modalities,) or not kept.any():
        raise UsageError(
            f"available must be {n_modalities} times true or false, at least once "
            f"true, got {available}"
        )
    scaled = np.zeros(volume.shape, np.float32)
    scaled[kept] = model.config.scaling.apply(volume[kept])
    return scaled, torch.from_numpy(kept)[None]


def network_for_prediction(model: IVDNet) -> IVDNet:
    """Copy of a model that predicts fast: in evaluation, folded, channels last."""
    was_training = model.training
    model.eval()
    try:
        network = folded(model)
    finally:
        model.train(was_training)
    layouts = {2: torch.channels_last, 3: torch.channels_last_3d}
    network.to(memory_format=layouts[model.config.spatial_dims])
    return network


def probabilities_of(
    network: IVDNet, images: Tensor, available: Tensor
) -> NDArray[np.float32]:
    """Probabilities (batch, n_classes, …) of scaled images of any size.

    Sides are padded at their end with their edge to multiples of 16.
    """
    device = next(network.parameters()).device
    sides = images.shape[2:]
    padding = [(0, -side % _MULTIPLE) for side in reversed(sides)]
    flat = [one for pair in padding for one in pair]
    with torch.inference_mode():
        padded = torch.nn.functional.pad(images.to(device), flat, mode="replicate")
        whole = network(padded, available.to(device)).probabilities
    inner = whole[(..., *(slice(side) for side in sides))]
    result: NDArray[np.float32] = inner.float().cpu().numpy()
    return result

"""How sure a network is of each voxel: an ensemble of flips and of dropped units.

The mean over several looks at one image is the answer, and its entropy says how sure
it is. A part of that entropy is disagreement between the looks; the rest is doubt that
all of them share, as at the edge of a disc.

References
----------
Gal & Ghahramani (2016) Dropout as a Bayesian approximation. ICML.
Wang et al. (2019) Aleatoric uncertainty estimation with test-time augmentation for
medical image segmentation with convolutional neural networks. Neurocomputing 338.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuromm.core import UsageError
from neuromm.models.ivdnet import IVDNet
from neuromm.models.volume_prediction import (
    network_for_prediction,
    probabilities_of,
    scaled_input,
)

__all__ = ["VolumePrediction", "predict_with_uncertainty"]

_DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePrediction:
    """Classes of a volume, and how sure they are.

    Attributes
    ----------
    probabilities : array of float32 of shape (n_classes, slices, height, width)
        Mean over the passes; they sum to one over the classes.
    uncertainty : array of float32 of shape (slices, height, width)
        Entropy of these probabilities over that of no knowledge: 0 where one class is
        certain, 1 where all are as likely.
    disagreement : array of float32 of shape (slices, height, width)
        The part of it that comes from differences between passes (mutual information
        of class and pass, in the same unit); 0 where all passes say the same.
    n_passes : int
    """

    probabilities: Floats
    uncertainty: Floats
    disagreement: Floats
    n_passes: int

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Most probable class of each voxel."""
        labels: NDArray[np.uint8] = self.probabilities.argmax(axis=0).astype(np.uint8)
        return labels


def predict_with_uncertainty(
    model: IVDNet,
    volume: NDArray[Any],
    available: Sequence[bool] | None = None,
    *,
    flips: bool | Sequence[int] = True,
    n_dropout: int = 0,
    rng: int | np.random.Generator = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VolumePrediction:
    """Probabilities of a volume as a mean over several passes, with uncertainty.

    Parameters
    ----------
    model : IVDNet
        It is not changed, nor is its mode.
    volume, available
        As of `predict_volume`.
    flips : bool or sequence of int
        Axes of the volume, 0 for slices, 1 and 2 for height and width, that are
        turned round, alone and together; predictions are turned back. True: all that
        the network looks along, (1, 2) in 2-D and (0, 1, 2) in 3-D. Give those that
        the network met in training: of others it knows nothing, and its doubt is about
        the flip.
    n_dropout : int
        Times that each flip is run with units dropped at random, as in training; 0
        drops none.
    rng : int or Generator
        Of the dropped units.
    progress : callable of (done, total), optional
        Told after each slice, or, in 3-D, after each pass.

    Returns
    -------
    prediction : VolumePrediction

    Raises
    ------
    UsageError
        If the volume has another shape, an axis of ``flips`` is none of a pass, or
        ``n_dropout`` is above 0 and the model drops no units.
    DataError
        As of `predict_volume`.

    Notes
    -----
    Memory: the probabilities of all voxels once for the result and, of a 3-D network,
    a second time for the pass at work. Time: `predict_volume` times the number of
    passes, 4 for a 2-D network with both flips.
    """
    axes = _flip_axes(flips, model.config.spatial_dims)
    scaled, mask = scaled_input(model, volume, available)
    network = network_for_prediction(model)
    if n_dropout:
        _switch_dropout_on(network, n_dropout)
    passes = _Passes(network, mask, axes, n_dropout, np.random.default_rng(rng))
    sides = scaled.shape[1:]
    probabilities = np.empty((model.config.n_classes, *sides), dtype=np.float32)
    disagreement = np.empty(sides, dtype=np.float32)
    if model.config.spatial_dims == 3:
        images = torch.from_numpy(scaled)[None]
        passes.run(images, probabilities, disagreement, progress)
    else:
        for index in range(sides[0]):
            one = torch.from_numpy(scaled[None, :, index])
            passes.run(one, probabilities[:, index], disagreement[index])
            if progress is not None:
                progress(index + 1, sides[0])
    uncertainty = _entropy(probabilities)
    return VolumePrediction(
        probabilities=probabilities,
        uncertainty=uncertainty,
        # Rounding may put it an ulp outside of what it is a part of.
        disagreement=np.clip(uncertainty - disagreement, 0, uncertainty),
        n_passes=len(passes),
    )


@dataclass(frozen=True)
class _Passes:
    """All looks at one image."""

    network: IVDNet
    available: Tensor
    axes: tuple[int, ...]
    n_dropout: int
    generator: np.random.Generator

    def __len__(self) -> int:
        n_flips: int = 2 ** len(self.axes)
        return n_flips * max(self.n_dropout, 1)

    def run(
        self,
        images: Tensor,
        probabilities: Floats,
        entropy: Floats,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Fill in the mean of the probabilities and the mean entropy of a pass."""
        probabilities[...] = 0
        entropy[...] = 0
        for done, one in enumerate(self._each(images), start=1):
            probabilities += one
            entropy += _entropy(one)
            if progress is not None:
                progress(done, len(self))
        probabilities /= len(self)
        entropy /= len(self)

    def _each(self, images: Tensor) -> Iterator[Floats]:
        for n_flipped in range(len(self.axes) + 1):
            for flipped in combinations(self.axes, n_flipped):
                turned = images.flip(flipped) if flipped else images
                for _ in range(max(self.n_dropout, 1)):
                    found = self._once(turned)
                    # The batch, which is gone, is an axis of the images.
                    back = tuple(axis - 1 for axis in flipped)
                    yield np.flip(found, back) if back else found

    def _once(self, images: Tensor) -> Floats:
        device = next(self.network.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if self.n_dropout:
                torch.manual_seed(int(self.generator.integers(2**63)))
            found: Floats = probabilities_of(self.network, images, self.available)[0]
        return found


def _flip_axes(flips: bool | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """Axes of a batch of images that are turned round."""
    seen = tuple(range(3 - spatial_dims, 3))
    if isinstance(flips, bool):
        wanted = seen if flips else ()
    else:
        wanted = tuple(int(axis) for axis in flips)
    if not set(wanted) <= set(seen) or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"flips must be axes of {seen}, each once: those that a {spatial_dims}-D "
            f"network looks along; got {wanted}"
        )
    # Batch and channel come first; slices are no axis of a 2-D image.
    return tuple(axis + spatial_dims - 1 for axis in wanted)


def _switch_dropout_on(network: nn.Module, n_dropout: int) -> None:
    if n_dropout < 0:
        raise UsageError(f"n_dropout must be 0 or more, got {n_dropout}")
    layers = [m for m in network.modules() if isinstance(m, _DROPOUT) and m.p > 0]
    if not layers:
        raise UsageError(
            f"n_dropout={n_dropout}, but the model drops no units: train it with "
            "dropout (IVDNetConfig(dropout=0.1)), or take flips alone (n_dropout=0)"
        )
    for layer in layers:
        layer.train()


def _entropy(probabilities: Floats) -> Floats:
    """Entropy over the first axis, as a part of that of equal probabilities."""
    from scipy.special import entr

    total: Floats = np.zeros(probabilities.shape[1:], dtype=np.float32)
    for one in probabilities:
        total += entr(one)
    total /= np.float32(np.log(len(probabilities)))
    # A probability that is rounded to above 1 has an entropy below 0.
    return total.clip(0, 1)

"""SoftCLIP: what is similar to an image is partly right for its brain response too.

References
----------
Scotti et al. (2023) Reconstructing the mind's eye: fMRI-to-image with contrastive
learning and diffusion priors. NeurIPS, arXiv 2305.18274 (the loss, as BrainFLORA takes
it over).
Gao et al. (2024) SoftCLIP: softer cross-modal alignment makes CLIP stronger. AAAI.
"""

import torch
from torch import Tensor, nn

from neuromm.kernels.pair_tiles import pair_log_sums
from neuromm.kernels.panel_softmax import softmax_mean
from neuromm.losses import gradient_caching
from neuromm.losses.gathering import Gather, gather_batch
from neuromm.losses.row_checks import (
    checked_mask,
    inverse_temperature,
    no_loss,
    unit_batch,
)
from neuromm.losses.temperature import Temperature

__all__ = ["SoftCLIP", "soft_clip"]


def soft_clip(
    brain: Tensor,
    image: Tensor,
    temperature: float | Tensor = 0.07,
    mask: Tensor | None = None,
    detach_targets: bool = False,
    gather: Gather = False,
) -> Tensor:
    """Contrastive loss whose targets are the similarities among the images.

    Parameters
    ----------
    brain : tensor of shape (n_samples, n_features)
        Rows need not be normalised. Half precision is widened to float32.
    image : tensor of shape (n_samples, n_features)
        Embeddings of the stimuli, as a rule of a frozen network.
    temperature : float or tensor of shape ()
        Of predictions and targets alike.
    mask : tensor of bool of shape (n_samples,), optional
        Samples that have both. Rows of the others are not read.
    detach_targets : bool
        Keeps gradients from flowing through the targets; it matters only where the
        images or the temperature are learned.
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.

    Returns
    -------
    loss : tensor of shape ()
        In nats, at least the entropy of the targets; 0 for an empty mask.

    Raises
    ------
    TypeError, ValueError
        If rows do not match, are not finite or are zero.

    Notes
    -----
    With unit rows B and V, P = softmax(V V' / temperature) by rows and S = B V' /
    temperature, the loss is 1/2 [CE(S, P) + CE(S', P)], means over rows. In
    sum_ij P_ij S_ij the targets enter through the mean image P V alone, and in the
    other direction through P B, so memory grows with n_samples * n_features.

    Repeats of a stimulus need no labels: equal images get equal targets.

    The released code of BrainFLORA divides by a logit scale of 2.66 here, which makes
    targets almost uniform; ours is a temperature.
    """
    brain, image, mask = gather_batch(gather, brain, image, mask)
    held = None if mask is None else [checked_mask(mask, "brain", brain)[:, 0]] * 2
    b, v = unit_batch([("brain", brain), ("image", image)], held)
    scale = inverse_temperature(temperature, b)
    if not len(b):
        return no_loss(b, v, scale)
    rows, columns = pair_log_sums(b, v, scale)
    keys, sharpness = (v.detach(), scale.detach()) if detach_targets else (v, scale)
    means = softmax_mean(keys, keys, torch.cat([v, b], dim=1), sharpness)
    expected = (means * torch.cat([b, v], dim=1)).sum(dim=1).mean()
    return (rows.mean() + columns.mean() - scale * expected) / 2


class SoftCLIP(nn.Module):  # type: ignore[misc]
    """`soft_clip` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`.
    detach_targets, gather
        As in `soft_clip`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        detach_targets: bool = False,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.detach_targets = detach_targets
        self.gather = gather

    def forward(
        self, brain: Tensor, image: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return soft_clip(
            brain, image, self.temperature(), mask, self.detach_targets, self.gather
        )

    loss_and_grad = gradient_caching.loss_and_grad

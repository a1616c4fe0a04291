"""Contrastive losses whose targets are soft: how alike samples are in both modalities.

References
----------
Xie et al. (2023) Spatially resolved gene expression prediction from histology images
via bi-modal contrastive learning (BLEEP). NeurIPS.
Song, Fan, Chang & Cai (2026) Gene-DML. WACV, arXiv 2507.14670.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuromm.kernels.soft_pairs import soft_losses
from neuromm.losses import gradient_caching
from neuromm.losses.gathering import Gather, gather_batch
from neuromm.losses.row_checks import (
    checked_mask,
    inverse_temperature,
    no_loss,
    unit_batch,
)
from neuromm.losses.temperature import Temperature

__all__ = [
    "MultiLevelContrastive",
    "SoftContrastive",
    "multi_level_contrastive",
    "soft_contrastive",
]


def soft_contrastive(
    gene: Tensor,
    image: Tensor,
    temperature: float | Tensor = 0.07,
    mask: Tensor | None = None,
    target_temperature: float | Tensor | None = None,
    detach_targets: bool = False,
    gather: Gather = False,
) -> Tensor:
    """Contrastive loss with the mean similarity within modalities as target.

    Parameters
    ----------
    gene, image : tensors of shape (n_samples, n_features)
        Rows need not be normalised. Half precision is widened to float32.
    temperature : float or tensor of shape ()
        Logits are cosines divided by it.
    mask : tensor of bool of shape (n_samples,), optional
        Samples that have both. Rows of the others are not read.
    target_temperature : float or tensor of shape (), optional
        Of the targets; that of the logits by default, as in Gene-DML. BLEEP's released
        code multiplies by the temperature here: 1 / temperature gives its targets.
    detach_targets : bool
        Whether targets are constants. By default gradients flow through them, as in
        the code of both papers.
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.

    Returns
    -------
    loss : tensor of shape ()
        In nats; log(n_samples) if all rows are equal, 0 for an empty mask.

    Raises
    ------
    TypeError, ValueError
        If shapes do not match, or a row that counts is zero or not finite.

    Notes
    -----
    Rows of the targets sum to one; the other direction takes their transpose, of which
    the rows do not, as published. See `neuromm.kernels.soft_pairs` for the formulas.
    """
    gene, image, mask = gather_batch(gather, gene, image, mask)
    held = None if mask is None else checked_mask(mask, "gene", gene)
    rows = [("gene", gene), ("image", image)]
    return _losses(rows, temperature, held, target_temperature, detach_targets).sum()


def multi_level_contrastive(
    gene: Tensor,
    levels: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
    target_temperature: float | Tensor | None = None,
    detach_targets: bool = False,
    gather: Gather = False,
) -> Tensor:
    """Mean of `soft_contrastive` of one gene embedding with several image levels.

    Parameters
    ----------
    gene : tensor of shape (n_samples, n_features)
    levels : sequence of tensors of shape (n_samples, n_features)
        In Gene-DML: target patch, neighbourhood, whole slide.
    temperature, target_temperature, detach_targets, gather
        As in `soft_contrastive`.
    mask : tensor of bool of shape (n_samples,) or (n_samples, n_levels), optional
        Samples that count, or which levels a sample has. Rows left out are not read.
    weights : sequence of float, optional
        One a level, divided by their sum; equal by default.

    Returns
    -------
    loss : tensor of shape ()
        Mean over the levels that any sample has, in nats; 0 if there is none.

    Raises
    ------
    TypeError, ValueError
        As `soft_contrastive`, or if weights are negative or all zero.

    Notes
    -----
    Where all samples have all levels, the products of the gene embedding with itself
    are formed once for all of them.
    """
    if isinstance(levels, Tensor) or not len(levels):
        raise ValueError("levels must be a sequence of one tensor per image level")
    gene, levels, mask = gather_batch(gather, gene, levels, mask)
    held = None if mask is None else checked_mask(mask, "gene", gene, len(levels))
    share = torch.as_tensor([1.0] * len(levels) if weights is None else list(weights))
    if share.shape != (len(levels),) or not (share >= 0).all() or not share.sum() > 0:
        raise ValueError(
            f"weights must be {len(levels)} numbers >= 0, one per level, not all 0, "
            f"got {weights}"
        )
    named = [(f"levels[{index}]", rows) for index, rows in enumerate(levels)]
    rows = [("gene", gene), *named]
    losses = _losses(rows, temperature, held, target_temperature, detach_targets)
    share = share.to(losses)
    if held is not None:
        share = share * held.any(dim=0)
    return (losses * share).sum() / (share.sum() if share.any() else 1)


class SoftContrastive(nn.Module):  # type: ignore[misc]
    """`soft_contrastive` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`.
    target_temperature, detach_targets, gather
        As in `soft_contrastive`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        target_temperature: float | None = None,
        detach_targets: bool = False,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.target_temperature = target_temperature
        self.detach_targets = detach_targets
        self.gather = gather

    def forward(
        self, gene: Tensor, image: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return soft_contrastive(
            gene,
            image,
            self.temperature(),
            mask,
            self.target_temperature,
            self.detach_targets,
            self.gather,
        )

    loss_and_grad = gradient_caching.loss_and_grad


class MultiLevelContrastive(nn.Module):  # type: ignore[misc]
    """`multi_level_contrastive` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`.
    weights, target_temperature, detach_targets, gather
        As in `multi_level_contrastive`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        weights: Sequence[float] | None = None,
        target_temperature: float | None = None,
        detach_targets: bool = False,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.weights = weights
        self.target_temperature = target_temperature
        self.detach_targets = detach_targets
        self.gather = gather

    def forward(
        self, gene: Tensor, levels: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return multi_level_contrastive(
            gene,
            levels,
            self.temperature(),
            mask,
            self.weights,
            self.target_temperature,
            self.detach_targets,
            self.gather,
        )

    loss_and_grad = gradient_caching.loss_and_grad


def _losses(
    named: Sequence[tuple[str, Tensor]],
    temperature: float | Tensor,
    held: Tensor | None,
    target_temperature: float | Tensor | None,
    detach_targets: bool,
) -> Tensor:
    """Loss of each level against the first rows; 0 for a level that no sample has."""
    if held is None or held.all():
        gene, *levels = unit_batch(named)
        scales = _scales(temperature, target_temperature, gene)
        return soft_losses(gene, levels, *scales, not detach_targets)
    losses = []
    for level, has in zip(named[1:], held.T, strict=True):
        gene, image = unit_batch([named[0], level], [has, has])
        scales = _scales(temperature, target_temperature, gene)
        if len(gene):
            loss = soft_losses(gene, [image], *scales, not detach_targets).sum()
        else:
            loss = no_loss(gene, image, *scales)
        losses.append(loss)
    return torch.stack(losses)


def _scales(
    temperature: float | Tensor, target_temperature: float | Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor]:
    scale = inverse_temperature(temperature, like)
    if target_temperature is None:
        return scale, scale
    return scale, inverse_temperature(target_temperature, like)

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
from neuromm.losses.gradient_caching import LossAndGrad, gradients_of
from neuromm.losses.row_checks import check_batch, inverse_temperature, unit_rows
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
    levels_mask = None if mask is None else _checked_mask(mask, gene, 1)
    losses = _losses(
        gene, [("image", image)], temperature, levels_mask, target_temperature,
        detach_targets,
    )  # fmt: skip
    return losses.sum()


def multi_level_contrastive(
    gene: Tensor,
    levels: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
    target_temperature: float | Tensor | None = None,
    detach_targets: bool = False,
) -> Tensor:
    """Mean of `soft_contrastive` of one gene embedding with several image levels.

    Parameters
    ----------
    gene : tensor of shape (n_samples, n_features)
    levels : sequence of tensors of shape (n_samples, n_features)
        In Gene-DML: target patch, neighbourhood, whole slide.
    temperature, target_temperature, detach_targets
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
    held = None if mask is None else _checked_mask(mask, gene, len(levels))
    share = torch.as_tensor([1.0] * len(levels) if weights is None else list(weights))
    if share.shape != (len(levels),) or not (share >= 0).all() or not share.sum() > 0:
        raise ValueError(
            f"weights must be {len(levels)} numbers >= 0, one per level, not all 0, "
            f"got {weights}"
        )
    named = [(f"levels[{index}]", rows) for index, rows in enumerate(levels)]
    losses = _losses(gene, named, temperature, held, target_temperature, detach_targets)
    share = share.to(losses)
    if held is not None:
        share = share * held.any(dim=0)
    return (losses * share).sum() / (share.sum() if share.any() else 1)


class SoftContrastive(nn.Module):  # type: ignore[misc]
    """`soft_contrastive` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature : float
    learnable : bool
        Learns the logarithm of the temperature, kept within [0.01, 1].
    target_temperature : float, optional
    detach_targets : bool
        As in `soft_contrastive`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        target_temperature: float | None = None,
        detach_targets: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.target_temperature = target_temperature
        self.detach_targets = detach_targets

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
        )

    def loss_and_grad(
        self, gene: Tensor, image: Tensor, mask: Tensor | None = None
    ) -> LossAndGrad:
        """Loss and its gradients for both, without a graph, for gradient caching."""
        return gradients_of(lambda a, b: self(a, b, mask), gene, image)


class MultiLevelContrastive(nn.Module):  # type: ignore[misc]
    """`multi_level_contrastive` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature : float
    learnable : bool
        Learns the logarithm of the temperature, kept within [0.01, 1].
    weights : sequence of float, optional
    target_temperature : float, optional
    detach_targets : bool
        As in `multi_level_contrastive`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        weights: Sequence[float] | None = None,
        target_temperature: float | None = None,
        detach_targets: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.weights = weights
        self.target_temperature = target_temperature
        self.detach_targets = detach_targets

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
        )

    def loss_and_grad(
        self, gene: Tensor, levels: Sequence[Tensor], mask: Tensor | None = None
    ) -> LossAndGrad:
        """Loss and gradients without a graph; ``grad_b`` is (n_levels, ...)."""
        return gradients_of(
            lambda a, b: self(a, list(b), mask), gene, torch.stack(list(levels))
        )


def _losses(
    gene: Tensor,
    named: Sequence[tuple[str, Tensor]],
    temperature: float | Tensor,
    held: Tensor | None,
    target_temperature: float | Tensor | None,
    detach_targets: bool,
) -> Tensor:
    """Loss of each level, (n_levels,); 0 for a level that no sample has."""
    if held is None or held.all():
        check_batch([("gene", gene), *named])
        units = [unit_rows(name, rows) for name, rows in [("gene", gene), *named]]
        dtype = torch.promote_types(units[0].dtype, torch.stack(units[1:]).dtype)
        units = [rows.to(dtype) for rows in units]
        scale = inverse_temperature(temperature, units[0])
        target = scale
        if target_temperature is not None:
            target = inverse_temperature(target_temperature, units[0])
        return soft_losses(units[0], units[1:], scale, target, not detach_targets)
    losses = []
    for (name, rows), has in zip(named, held.T, strict=True):
        if rows.shape != gene.shape:
            check_batch([("gene", gene), (name, rows)])
        if has.any():
            part = _losses(
                gene[has],
                [(name, rows[has])],
                temperature,
                None,
                target_temperature,
                detach_targets,
            ).sum()
        else:
            part = gene[has].float().sum() + rows[has].float().sum()
        losses.append(part)
    return torch.stack(losses)


def _checked_mask(mask: Tensor, gene: Tensor, n_levels: int) -> Tensor:
    """Which sample has which level, (n_samples, n_levels)."""
    mask = torch.as_tensor(mask, device=gene.device)
    shapes = {(len(gene),), (len(gene), n_levels)}
    if mask.dtype != torch.bool or mask.shape not in shapes:
        raise ValueError(
            f"mask must be boolean of shape ({len(gene)},) or ({len(gene)}, "
            f"{n_levels}), one row per sample, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}"
        )
    return mask[:, None].expand(-1, n_levels) if mask.ndim == 1 else mask

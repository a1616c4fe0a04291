"""Cross-entropy of logits with soft targets made of the same rows, by panels of rows.

For a gene embedding G and an image level L of unit rows, logits are S = t G L' and
targets P the softmax of the rows of U = u (L L' + G G') / 2. With lr and lc the
log-sum-exp of rows and columns of S, and q the sums of the columns of P,

    loss = (1 / 2N) (sum_i lr_i + sum_j q_j lc_j - 2 sum_ij P_ij S_ij)
    dS   = (1 / 2N) (softmax_row(S) + q_j softmax_col(S) - 2 P)
    dU   = (1 / 2N) P (W - rowsum(P W)),  W_ij = lc_j - 2 S_ij

A panel holds whole rows, so that its targets are known at once: two passes, and no
matrix beyond a panel. Products G G' serve all levels.

References
----------
Xie et al. (2023) Spatially resolved gene expression prediction from histology images
via bi-modal contrastive learning (BLEEP). NeurIPS.
Song et al. (2026) Gene-DML. WACV, arXiv 2507.14670 (several levels).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuromm.kernels.tiling import full_precision, panels

__all__ = ["plain_soft_losses", "soft_losses"]

_PANEL_BYTES = 2**22  # of one matrix; about eight are held at a time


def soft_losses(
    gene: Tensor,
    levels: Sequence[Tensor],
    scale: Tensor,
    target_scale: Tensor,
    attached: bool = True,
) -> Tensor:
    """Soft-target loss of each level against the gene embedding.

    Parameters
    ----------
    gene : tensor of shape (n_samples, n_features)
        Unit rows of float32 or float64.
    levels : sequence of tensors of the same shape
        Unit rows of each image level.
    scale, target_scale : tensors of shape ()
        Inverse temperatures t of the logits and u of the targets.
    attached : bool
        Whether gradients flow through the targets.

    Returns
    -------
    losses : tensor of shape (n_levels,)
        In nats.
    """
    losses: Tensor = _SoftLosses.apply(scale, target_scale, attached, gene, *levels)
    return losses


def plain_soft_losses(
    gene: Tensor,
    levels: Sequence[Tensor],
    scale: Tensor,
    target_scale: Tensor,
    attached: bool = True,
) -> Tensor:
    """Definition of `soft_losses`: in float64, with whole matrices."""
    gene, scale, target_scale = gene.double(), scale.double(), target_scale.double()
    losses = []
    for level in levels:
        image = level.double()
        logits = scale * gene @ image.T
        target = (target_scale * (image @ image.T + gene @ gene.T) / 2).softmax(dim=1)
        if not attached:
            target = target.detach()
        by_row = -(target * logits.log_softmax(dim=1)).sum(dim=1)
        by_column = -(target.T * logits.T.log_softmax(dim=1)).sum(dim=1)
        losses.append((by_row + by_column).mean() / 2)
    return torch.stack(losses)


class _SoftLosses(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        scale: Tensor,
        target_scale: Tensor,
        attached: bool,
        gene: Tensor,
        *levels: Tensor,
    ) -> Tensor:
        n_samples = len(gene)
        t, u = scale.to(gene), target_scale.to(gene)
        columns = gene.new_full((len(levels), n_samples), -torch.inf)
        weights = gene.new_zeros((len(levels), n_samples))
        losses = gene.new_zeros(len(levels))
        kept = []
        with full_precision(gene.device):
            for part in _panels(gene):
                shared = gene[part] @ gene.T
                for index, level in enumerate(levels):
                    logits, target = _panel(gene, level, shared, part, t, u)
                    peak = logits.amax(dim=0)
                    terms = (logits - peak).exp_().sum(dim=0).log_().add_(peak)
                    columns[index] = torch.logaddexp(columns[index], terms)
                    weights[index] += target.sum(dim=0)
                    losses[index] += logits.logsumexp(dim=1).sum()
                    # Row by row: one long float32 sum would err by 1e-5 of itself.
                    losses[index] -= 2 * torch.linalg.vecdot(target, logits).sum()
                    if part == slice(0, n_samples):
                        kept += [logits, target]
            losses += (weights * columns).sum(dim=1)
        ctx.attached = attached
        ctx.n_levels = len(levels)
        ctx.save_for_backward(
            scale, target_scale, gene, *levels, columns, weights, *kept
        )
        return losses / (2 * n_samples)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        scale, target_scale, gene, *rest = ctx.saved_tensors
        levels, rest = rest[: ctx.n_levels], rest[ctx.n_levels :]
        columns, weights, *kept = rest
        t, u = scale.to(gene), target_scale.to(gene)
        grads = [torch.zeros_like(rows) for rows in (gene, *levels)]
        of_scales = gene.new_zeros(2)
        with full_precision(gene.device):
            for part in _panels(gene):
                shared = None if kept else gene[part] @ gene.T
                of_shared = torch.zeros_like(kept[0]) if kept else None
                for index, level in enumerate(levels):
                    if kept:
                        logits, target = kept[2 * index : 2 * index + 2]
                    else:
                        logits, target = _panel(gene, level, shared, part, t, u)
                    slope = _logit_slope(
                        logits, target, columns[index], weights[index]
                    ).mul_(grad[index] / (2 * len(gene)))
                    if ctx.needs_input_grad[0]:
                        of_scales[0] += torch.linalg.vecdot(slope, logits).sum() / t
                    grads[0][part].addmm_(slope, level, alpha=float(t))
                    grads[1 + index].addmm_(slope.T, gene[part], alpha=float(t))
                    if not ctx.attached:
                        continue
                    slope = _target_slope(logits, target, columns[index], out=slope)
                    slope.mul_(grad[index] / (2 * len(gene)))
                    if ctx.needs_input_grad[1]:
                        products = level[part] @ level.T + gene[part] @ gene.T
                        of_scales[1] += torch.linalg.vecdot(slope, products).sum() / 2
                    if of_shared is None:
                        _add_symmetric(grads[0], slope, gene, part, float(u) / 2)
                        _add_symmetric(
                            grads[1 + index], slope, level, part, float(u) / 2
                        )
                    else:
                        both = slope + slope.T
                        of_shared += both
                        grads[1 + index].addmm_(both, level, alpha=float(u) / 2)
                if of_shared is not None and ctx.attached:
                    grads[0].addmm_(of_shared, gene, alpha=float(u) / 2)
        return of_scales[0].to(scale), of_scales[1].to(target_scale), None, *grads


def _panels(rows: Tensor) -> list[slice]:
    return list(panels(len(rows), len(rows), rows.element_size(), _PANEL_BYTES))


def _panel(
    gene: Tensor, level: Tensor, shared: Tensor, part: slice, t: Tensor, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and targets of some rows."""
    logits = (gene[part] * t) @ level.T
    similarity = torch.addmm(shared, level[part], level.T).mul_(u / 2)
    return logits, similarity.softmax(dim=1)


def _logit_slope(
    logits: Tensor, target: Tensor, columns: Tensor, weights: Tensor
) -> Tensor:
    slope = logits.softmax(dim=1)
    slope.addcmul_((logits - columns).exp_(), weights.expand_as(logits))
    return slope.sub_(target, alpha=2)


def _target_slope(
    logits: Tensor, target: Tensor, columns: Tensor, out: Tensor
) -> Tensor:
    slope = torch.sub(columns.expand_as(logits), logits, alpha=2, out=out)
    slope.mul_(target)
    return slope.addcmul_(target, slope.sum(dim=1, keepdim=True), value=-1)


def _add_symmetric(
    grad: Tensor, slope: Tensor, rows: Tensor, part: slice, alpha: float
) -> None:
    grad[part].addmm_(slope, rows, alpha=alpha)
    grad.addmm_(slope.T, rows[part], alpha=alpha)

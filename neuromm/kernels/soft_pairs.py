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

from neuromm.kernels import gpu_soft_pairs
from neuromm.kernels.arrays import runs_kernels
from neuromm.kernels.tiling import full_precision, panels, tiles

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
    function = _SoftLossesByKernels if runs_kernels(gene) else _SoftLosses
    losses: Tensor = function.apply(scale, target_scale, attached, gene, *levels)
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


class _SoftLossesByKernels(torch.autograd.Function):  # type: ignore[misc]
    """As `_SoftLosses`, with the kernels of `gpu_soft_pairs` between the products."""

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
        gene, *images = (rows.detach() for rows in (gene, *levels))
        t, u = scale.detach().to(gene), target_scale.detach().to(gene)
        states = [gpu_soft_pairs.start_columns(n_samples, gene) for _ in images]
        losses = gene.new_zeros(len(images), dtype=torch.float64)
        known: list[Tensor] = []
        kept: list[Tensor] = []
        with full_precision(gene.device):
            for part in _kernel_panels(gene):
                shared = gene[part] @ gene.T
                for index, image in enumerate(images):
                    x, y = _products(gene, image, shared, part)
                    rows = gpu_soft_pairs.add_panel(x, y, t, u, states[index])
                    losses[index] += (rows[5] - 2 * rows[4]).sum()
                    known.append(rows)
                    if part == slice(0, n_samples):
                        kept += [x, y]
        name = str(gene.dtype).removeprefix("torch.")
        columns = [gpu_soft_pairs.columns_of(state, name) for state in states]
        for index, state in enumerate(states):
            losses[index] += (state[2] * (state[0] + state[1].log())).sum()
        ctx.attached, ctx.n_levels = attached, len(images)
        ctx.like = scale.new_empty(0), target_scale.new_empty(0)
        ctx.save_for_backward(t, u, gene, *images, *columns, *known, *kept)
        return (losses / (2 * n_samples)).to(gene)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        (t, u, gene), rest = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        n = ctx.n_levels
        levels, columns, rest = rest[:n], rest[n : 2 * n], rest[2 * n :]
        parts = _kernel_panels(gene)
        known, kept = rest[: n * len(parts)], rest[n * len(parts) :]
        factors = grad / (2 * len(gene))
        grads = [torch.zeros_like(rows) for rows in (gene, *levels)]
        of_scales = gene.new_zeros(2, dtype=torch.float64)
        with full_precision(gene.device):
            for place, part in enumerate(parts):
                shared = None if kept else gene[part] @ gene.T
                of_shared = None
                for index, level in enumerate(levels):
                    if shared is None:
                        x, y = kept[2 * index : 2 * index + 2]
                    else:
                        x, y = _products(gene, level, shared, part)
                    slope, of_similarity, sums = gpu_soft_pairs.panel_slopes(
                        x,
                        y,
                        t,
                        u,
                        known[place * n + index],
                        columns[index],
                        factors[index],
                        attached=ctx.attached,
                        in_place=not kept,
                    )
                    of_scales += sums.sum(dim=1)
                    grads[0][part].addmm_(slope, level)
                    grads[1 + index].addmm_(slope.T, gene[part])
                    if not ctx.attached:
                        continue
                    _add_symmetric(grads[1 + index], of_similarity, level, part)
                    if of_shared is None:
                        of_shared = of_similarity
                    else:
                        of_shared += of_similarity
                if of_shared is not None:
                    _add_symmetric(grads[0], of_shared, gene, part)
        of_scale, of_target = (
            one.to(like) for one, like in zip(of_scales, ctx.like, strict=True)
        )
        return of_scale, of_target, None, *grads


def _kernel_panels(rows: Tensor) -> list[slice]:
    n_rows = len(rows)
    shape = gpu_soft_pairs.panel_rows(n_rows), n_rows
    return [part for part, _ in tiles(n_rows, n_rows, shape)]


def _products(
    gene: Tensor, level: Tensor, shared: Tensor, part: slice
) -> tuple[Tensor, Tensor]:
    """Of some rows of the gene embedding and of image and gene, before any scale."""
    return gene[part] @ level.T, torch.addmm(shared, level[part], level.T)


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
    grad: Tensor, slope: Tensor, rows: Tensor, part: slice, alpha: float = 1.0
) -> None:
    if len(slope) == len(rows):
        grad.addmm_(slope + slope.T, rows, alpha=alpha)
        return
    grad[part].addmm_(slope, rows, alpha=alpha)
    grad.addmm_(slope.T, rows[part], alpha=alpha)

"""Sum of softplus over all products of two sets, and its gradients, in one pass.

No logit needs the sum of others, so that loss and gradients come from the same tile.

References
----------
Zhai et al. (2023) Sigmoid loss for language image pre-training. ICCV.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from neuromm.kernels import gpu_siglip
from neuromm.kernels.arrays import runs_kernels
from neuromm.kernels.tiling import full_precision, tiles

__all__ = ["pair_softplus_sum", "plain_softplus_sum"]

# Above, softplus is its argument to rounding, and long before its exponential is inf.
_LINEAR = {torch.float32: 20.0, torch.float64: 40.0}


def pair_softplus_sum(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """Sum of log(1 + exp(scale * left @ right.T + bias)) over all pairs.

    Parameters
    ----------
    left : tensor of shape (n_left, n_features)
        Of float32 or float64.
    right : tensor of shape (n_right, n_features)
    scale, bias : tensors of shape ()

    Returns
    -------
    total : tensor of shape ()
        In nats. Tiles are added up in float64.
    """
    total: Tensor = _PairSoftplusSum.apply(left, right, scale, bias)
    return total


def plain_softplus_sum(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """Definition of `pair_softplus_sum`: in float64, with the whole matrix."""
    logits = scale.double() * (left.double() @ right.double().T) + bias.double()
    return softplus(logits, threshold=100).sum()


class _PairSoftplusSum(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, scale: Tensor, bias: Tensor
    ) -> Tensor:
        factor, offset = scale.detach().to(left), bias.detach().to(left)
        wanted = any(ctx.needs_input_grad)
        totals = left.new_zeros(2, dtype=torch.float64)  # of softplus and its slopes
        grads = [torch.zeros_like(rows) for rows in (left, right)] if wanted else []
        on_gpu = runs_kernels(left)
        shape = gpu_siglip.TILE if on_gpu else None
        add = _add_by_kernel if on_gpu else _add_plain
        with full_precision(left.device):
            for part, other in tiles(len(left), len(right), shape):
                slope = add(left[part], right[other], factor, offset, totals, wanted)
                if wanted:
                    grads[0][part].addmm_(slope, right[other])
                    grads[1][other].addmm_(slope.T, left[part])
        ctx.save_for_backward(left, scale, bias, totals[1], *grads)
        return totals[0].to(left)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        left, scale, bias, of_bias, of_left, of_right = ctx.saved_tensors
        of_scale = (left * of_left).sum().mul(grad).to(scale)
        factor = grad * scale.to(left)
        return of_left * factor, of_right * factor, of_scale, (of_bias * grad).to(bias)


def _add_plain(
    left: Tensor,
    right: Tensor,
    factor: Tensor,
    offset: Tensor,
    totals: Tensor,
    wanted: bool,
) -> Tensor:
    """Add a tile to the totals; its slopes, if they are wanted."""
    logits = torch.addmm(offset, left * factor, right.T)
    totals[0] += softplus(logits, threshold=_LINEAR[left.dtype]).sum()
    if wanted:
        totals[1] += logits.sigmoid_().sum()
    return logits


def _add_by_kernel(
    left: Tensor,
    right: Tensor,
    factor: Tensor,
    offset: Tensor,
    totals: Tensor,
    wanted: bool,
) -> Tensor:
    """As `_add_plain`, in one pass over the products."""
    products = left @ right.T
    gpu_siglip.add_softplus(products, factor, offset, totals, wanted)
    return products

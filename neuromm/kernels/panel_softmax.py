"""Softmax over products of rows, by panels of rows, so that no matrix is kept whole.

`softmax_mean` is what a loss needs of its soft targets. Forward and backward each form
a panel of rows by all columns, use it and drop it: memory grows with the rows and their
width, and one panel. The backward is written out by hand. Sums of exponentials of all
pairs are in `neuromm.kernels.pair_tiles`.

References
----------
Rabe & Staats (2021) Self-attention does not need O(n^2) memory. arXiv 2112.05682.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuromm.kernels.tiling import full_precision, panels

__all__ = ["softmax_mean"]


def softmax_mean(
    queries: Tensor, keys: Tensor, values: Tensor, scale: Tensor
) -> Tensor:
    """Mean of the values under the softmax of each row of scale * queries @ keys.T.

    Parameters
    ----------
    queries : tensor of shape (n_queries, n_features)
    keys : tensor of shape (n_keys, n_features)
    values : tensor of shape (n_keys, n_values)
    scale : tensor of shape ()
        Inverse temperature.

    Returns
    -------
    means : tensor of shape (n_queries, n_values)

    Notes
    -----
    With P the softmax and g the gradient of the means M, the logits have the gradient
    P * (g @ values.T - sum(g * M)), and the values P.T @ g.
    """
    means: Tensor = _SoftmaxMean.apply(queries, keys, values, scale)
    return means


class _SoftmaxMean(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, scale: Tensor
    ) -> Tensor:
        means = values.new_empty((len(queries), values.shape[1]))
        factor = scale.to(queries)
        with full_precision(queries.device):
            for part in panels(len(queries), len(keys), queries.element_size()):
                logits = (queries[part] * factor) @ keys.T
                torch.mm(logits.softmax(dim=1), values, out=means[part])
        ctx.save_for_backward(queries, keys, values, scale, means)
        return means

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        queries, keys, values, scale, means = ctx.saved_tensors
        of_logits = any(ctx.needs_input_grad[index] for index in (0, 1, 3))
        grad_queries = torch.zeros_like(queries)
        grad_keys = torch.zeros_like(keys)
        grad_values = torch.zeros_like(values)
        factor = scale.to(queries)
        centre = (grad * means).sum(dim=1, keepdim=True)
        with full_precision(queries.device):
            for part in panels(len(queries), len(keys), queries.element_size()):
                weights = ((queries[part] * factor) @ keys.T).softmax(dim=1)
                grad_values.addmm_(weights.T, grad[part])
                if of_logits:
                    slope = (grad[part] @ values.T).sub_(centre[part]).mul_(weights)
                    torch.mm(slope, keys, out=grad_queries[part])
                    grad_keys.addmm_(slope.T, queries[part])
        grad_scale = (queries * grad_queries).sum().to(scale)
        return (
            grad_queries.mul_(factor),
            grad_keys.mul_(factor),
            grad_values,
            grad_scale,
        )

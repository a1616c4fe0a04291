"""Softmax over products of rows, by panels of rows, so that no matrix is kept whole.

`log_normalisers` is what the contrastive losses with hard or mixed targets need of the
logits, `softmax_mean` what losses with soft targets need of their targets. Forward and
backward each form a panel of rows by all columns, use it and drop it: memory grows with
the rows and their width, and one panel. The backward is written out by hand.

References
----------
Rabe & Staats (2021) Self-attention does not need O(n^2) memory. arXiv 2112.05682.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["full_precision", "log_normalisers", "panels", "softmax_mean"]

# A panel that stays in the cache of a core is passed over several times at its speed.
_PANEL_BYTES = 2**20
_MIN_ROWS = 16  # fewer would starve the products


def log_normalisers(
    left: Tensor, right: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row and each column of scale * left @ right.T.

    Parameters
    ----------
    left : tensor of shape (n_left, n_features)
    right : tensor of shape (n_right, n_features)
    scale : tensor of shape ()
        Inverse temperature.

    Returns
    -------
    rows : tensor of shape (n_left,)
    columns : tensor of shape (n_right,)

    Notes
    -----
    With gradients g of the rows and h of the columns, the gradient of a logit S_ij is
    G_ij = g_i exp(S_ij - rows_i) + h_j exp(S_ij - columns_j), that of left
    scale * G @ right, that of right scale * G.T @ left, and that of the scale
    sum(left * grad_left) / scale.
    """
    rows, columns = _LogNormalisers.apply(left, right, scale)
    return rows, columns


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


def panels(
    n_rows: int, n_columns: int, itemsize: int, min_rows: int = _MIN_ROWS
) -> Iterator[slice]:
    """Slices of rows of which each panel of rows by columns fits the cache."""
    width = max(min_rows, _PANEL_BYTES // max(1, n_columns * itemsize))
    for start in range(0, n_rows, width):
        yield slice(start, min(start + width, n_rows))


def full_precision(device: torch.device) -> Any:
    """Context without autocast, which would round the logits to half precision."""
    return torch.autocast(device_type=device.type, enabled=False)


class _LogNormalisers(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, scale: Tensor) -> Any:
        rows = left.new_empty(len(left))
        columns = left.new_full((len(right),), -torch.inf)
        factor = scale.to(left)
        with full_precision(left.device):
            for part in panels(len(left), len(right), left.element_size()):
                logits = (left[part] * factor) @ right.T
                rows[part] = logits.logsumexp(dim=1)
                columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
        ctx.save_for_backward(left, right, scale, rows, columns)
        return rows, columns

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_rows: Tensor, grad_columns: Tensor) -> Any:
        left, right, scale, rows, columns = ctx.saved_tensors
        grad_left = torch.empty_like(left)
        grad_right = torch.zeros_like(right)
        factor = scale.to(left)
        with full_precision(left.device):
            for part in panels(len(left), len(right), left.element_size()):
                logits = (left[part] * factor) @ right.T
                slope = (logits - rows[part, None]).exp_().mul_(grad_rows[part, None])
                slope.addcmul_(logits.sub_(columns).exp_(), grad_columns)
                torch.mm(slope, right, out=grad_left[part])
                grad_right.addmm_(slope.T, left[part])
        grad_scale = (left * grad_left).sum().to(scale)
        return grad_left.mul_(factor), grad_right.mul_(factor), grad_scale


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

"""Loss and gradients of embeddings without a graph, for batches beyond memory.

Embed the batch in parts without a graph, take loss and gradients here, then embed each
part again and call ``part.backward(gradient_of_part)``.

References
----------
Gao, Zhang, Han & Callan (2021) Scaling deep contrastive learning batch size under
memory limited setup. RepL4NLP (GradCache).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LossAndGrad", "loss_and_grad"]


class LossAndGrad(NamedTuple):
    """A loss and its gradients, none of which requires a gradient.

    Attributes
    ----------
    loss : tensor of shape ()
    grads : tuple
        One entry for each input of the loss that has floating-point numbers, in their
        order: a tensor of the shape and precision of that input, or a tuple of such
        where the input is a sequence of tensors.
    """

    loss: Tensor
    grads: tuple[Any, ...]


def loss_and_grad(loss: Callable[..., Tensor], *inputs: Any) -> LossAndGrad:
    """Value of a loss and its gradients for the embeddings, without a graph.

    It is a method of each loss module, too.

    Parameters
    ----------
    loss : callable
        A function or module of this package.
    *inputs : tensors, sequences of tensors, or other arguments
        What the loss takes, in its order. Gradients are for tensors of floating-point
        numbers, alone or in a sequence; labels and masks are handed on as they are.

    Returns
    -------
    found : LossAndGrad
        A learned temperature gets its share in ``.grad``, as from ``loss.backward()``.

    Examples
    --------
    >>> from neuromm.losses import InfoNCE
    >>> rows = torch.eye(3)
    >>> loss, (grad_a, grad_b) = InfoNCE(0.1).loss_and_grad(rows, rows)
    >>> grad_a.shape
    torch.Size([3, 3])
    """
    leaves = [_leaves(x) for x in inputs]
    with torch.enable_grad():
        value = loss(*leaves)
        value.backward()
    found = [_gradient(leaf) for leaf in leaves if _is_embedding(leaf)]
    return LossAndGrad(value.detach(), tuple(found))


def _is_embedding(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return bool(x) and all(_is_embedding(one) for one in x)
    return isinstance(x, Tensor) and x.is_floating_point()


def _leaves(x: Any) -> Any:
    """Detached copies that collect gradients, of what has floating-point numbers."""
    if not _is_embedding(x):
        return x
    if isinstance(x, Tensor):
        return x.detach().requires_grad_(True)
    return type(x)(_leaves(one) for one in x)


def _gradient(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return torch.zeros_like(leaf.detach()) if leaf.grad is None else leaf.grad
    return tuple(_gradient(one) for one in leaf)

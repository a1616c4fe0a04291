"""Loss and gradients of embeddings without a graph, for batches beyond memory.

Embed the batch in parts without a graph, take loss and gradients here, then embed each
part again and call ``part.backward(gradient_of_part)``.

References
----------
Gao, Zhang, Han & Callan (2021) Scaling deep contrastive learning batch size under
memory limited setup. RepL4NLP (GradCache).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LossAndGrad", "gradients_of"]


class LossAndGrad(NamedTuple):
    """A loss and its gradients, none of which requires a gradient.

    Attributes
    ----------
    loss : tensor of shape ()
    grad_a, grad_b : tensors
        Of the shapes and precisions of the two inputs.
    """

    loss: Tensor
    grad_a: Tensor
    grad_b: Tensor


def gradients_of(
    loss: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor
) -> LossAndGrad:
    """Value of a loss of two inputs and its gradients for both.

    A learned temperature gets its share in ``.grad``, as from ``loss.backward()``.
    """
    leaf_a, leaf_b = (rows.detach().requires_grad_(True) for rows in (a, b))
    with torch.enable_grad():
        value = loss(leaf_a, leaf_b)
        value.backward()
    return LossAndGrad(value.detach(), leaf_a.grad, leaf_b.grad)

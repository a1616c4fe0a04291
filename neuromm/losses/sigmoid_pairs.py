"""SigLIP: every pair is asked on its own whether it belongs together.

References
----------
Zhai et al. (2023) Sigmoid loss for language image pre-training. ICCV.
"""

import math

import torch
from torch import Tensor, nn

from neuromm.kernels.pair_softplus import pair_softplus_sum
from neuromm.losses.gradient_caching import LossAndGrad, gradients_of
from neuromm.losses.positive_pairs import Pairs, positive_cosines
from neuromm.losses.row_checks import inverse_temperature
from neuromm.losses.temperature import Temperature

__all__ = ["SigLIP", "siglip"]


def siglip(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Sigmoid loss of all pairs of rows.

    Parameters
    ----------
    a, b : tensors of shape (n_samples, n_features)
        Rows need not be normalised. Half precision is widened to float32.
    temperature : float or tensor of shape ()
        Logits are cosines divided by it, plus the bias. The paper starts at 0.1.
    bias : float or tensor of shape ()
        The paper starts at -10: most pairs do not belong together.
    labels : tensor of int of shape (n_samples,), optional
        Stimulus of each sample: all pairs of one stimulus belong together.
    mask : tensor of bool of shape (n_samples,) or (n_samples, 2), optional
        Samples that count, or whether a sample has ``a`` and ``b``. Rows left out are
        not read.

    Returns
    -------
    loss : tensor of shape ()
        Sum over pairs in nats, divided by the number of rows of a; 0 without pairs.

    Raises
    ------
    TypeError, ValueError
        If shapes do not match, or a row that counts is zero or not finite.

    Notes
    -----
    With logits S and the pairs P that belong together, the loss is
    (sum_ij softplus(S_ij) - sum_P S_ij) / n, which is the paper's
    -sum_ij log sigmoid(z_ij S_ij) / n with z = 1 in P and -1 elsewhere.
    """
    pairs = Pairs.of(a, b, labels, mask)
    scale = inverse_temperature(temperature, pairs.a)
    offset = torch.as_tensor(bias, dtype=pairs.a.dtype, device=pairs.a.device)
    if offset.numel() != 1 or not bool(offset.isfinite()):
        raise ValueError(f"bias must be one finite number, got {bias}")
    if not len(pairs.a) or not len(pairs.b):
        return 0 * (pairs.a.sum() + pairs.b.sum() + scale)
    total = pair_softplus_sum(pairs.a, pairs.b, scale, offset.reshape(()))
    sums, counts = positive_cosines(pairs)
    together = scale * sums.sum() + offset.reshape(()) * counts.sum()
    return (total - together) / len(pairs.a)


class SigLIP(nn.Module):  # type: ignore[misc]
    """`siglip` with its settings; temperature and bias may be learned.

    Parameters
    ----------
    temperature, bias : float
    learnable : bool
        Learns the bias, and the logarithm of the temperature, kept within [0.01, 1].
    """

    bias: Tensor

    def __init__(
        self, temperature: float = 0.1, bias: float = -10.0, learnable: bool = False
    ) -> None:
        super().__init__()
        if not math.isfinite(bias):
            raise ValueError(f"bias must be one finite number, got {bias}")
        self.temperature = Temperature(temperature, learnable)
        value = torch.tensor(float(bias))
        if learnable:
            self.bias = nn.Parameter(value)
        else:
            self.register_buffer("bias", value)

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return siglip(a, b, self.temperature(), self.bias, labels, mask)

    def loss_and_grad(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> LossAndGrad:
        """Loss and its gradients for a and b, without a graph, for gradient caching."""
        return gradients_of(lambda a, b: self(a, b, labels, mask), a, b)

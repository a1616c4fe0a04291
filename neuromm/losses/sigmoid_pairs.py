"""SigLIP: every pair is asked on its own whether it belongs together.

References
----------
Zhai et al. (2023) Sigmoid loss for language image pre-training. ICCV.
"""

import math

import torch
from torch import Tensor, nn

from neuromm.kernels.pair_softplus import pair_softplus_sum
from neuromm.losses import gradient_caching
from neuromm.losses.gathering import (
    Gather,
    gather_rows,
    own_ids,
    ranks_of,
    share_of_mean,
)
from neuromm.losses.positive_pairs import Pairs, positive_cosines
from neuromm.losses.row_checks import inverse_temperature, no_loss
from neuromm.losses.temperature import Temperature

__all__ = ["SigLIP", "siglip"]


def siglip(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    gather: Gather = False,
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
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.
        Each rank compares its rows of a with all of b; labels name stimuli across
        ranks.

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
    group = ranks_of(gather)
    if gather is not False and labels is None:
        labels = own_ids(a, group)
    pairs = Pairs.of(a, b, labels, mask)
    if gather is not False:
        ids_b = gather_rows(pairs.ids_b, group)
        pairs = Pairs(pairs.a, gather_rows(pairs.b, group), pairs.ids_a, ids_b)
    scale = inverse_temperature(temperature, pairs.a)
    offset = torch.as_tensor(bias, dtype=pairs.a.dtype, device=pairs.a.device)
    if offset.numel() != 1 or not bool(offset.isfinite()):
        raise ValueError(f"bias must be one finite number, got {bias}")
    loss = _sum_of_losses(pairs, scale, offset.reshape(()))
    if gather is not False:
        return share_of_mean(loss, offset.new_tensor(len(pairs.a)), group)
    return loss / max(1, len(pairs.a))


class SigLIP(nn.Module):  # type: ignore[misc]
    """`siglip` with its settings; temperature and bias may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`; ``learnable`` makes the bias a parameter, too.
    bias, gather
        As in `siglip`.
    """

    bias: Tensor

    def __init__(
        self,
        temperature: float = 0.1,
        learnable: bool = False,
        bias: float = -10.0,
        gather: Gather = False,
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
        self.gather = gather

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return siglip(a, b, self.temperature(), self.bias, labels, mask, self.gather)

    loss_and_grad = gradient_caching.loss_and_grad


def _sum_of_losses(pairs: Pairs, scale: Tensor, bias: Tensor) -> Tensor:
    if not len(pairs.a) or not len(pairs.b):
        return no_loss(pairs.a, pairs.b, scale, bias)
    total = pair_softplus_sum(pairs.a, pairs.b, scale, bias)
    sums, counts = positive_cosines(pairs)
    return total - (scale * sums.sum() + bias * counts.sum())

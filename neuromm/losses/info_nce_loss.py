"""InfoNCE: a match of rows of two modalities against all other rows.

References
----------
van den Oord, Li & Vinyals (2018) Representation learning with contrastive predictive
coding. arXiv 1807.03748.
Khosla et al. (2020) Supervised contrastive learning. NeurIPS (several positives).
"""

from typing import Literal

from torch import Tensor, nn

from neuromm.kernels.pair_tiles import pair_log_sums
from neuromm.losses.gradient_caching import LossAndGrad, gradients_of
from neuromm.losses.positive_pairs import Pairs, positive_cosines
from neuromm.losses.row_checks import inverse_temperature
from neuromm.losses.temperature import Temperature

__all__ = ["InfoNCE", "info_nce"]

Direction = Literal["both", "a_to_b", "b_to_a"]


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor = 0.07,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    direction: Direction = "both",
) -> Tensor:
    """Contrastive loss of matched rows against all other rows of the batch.

    Parameters
    ----------
    a, b : tensors of shape (n_samples, n_features)
        Rows need not be normalised. Half precision is widened to float32.
    temperature : float or tensor of shape ()
        Logits are cosines divided by it.
    labels : tensor of int of shape (n_samples,), optional
        Stimulus of each sample: all samples of one stimulus are positives of each
        other. Without labels a sample belongs to itself alone.
    mask : tensor of bool of shape (n_samples,) or (n_samples, 2), optional
        Samples that count, or whether a sample has ``a`` and ``b``: a row without
        partner still serves as a negative of others. Rows left out are not read.
    direction : {"both", "a_to_b", "b_to_a"}
        Mean of the two directions, or one: ``a_to_b`` looks for b given a.

    Returns
    -------
    loss : tensor of shape ()
        In nats; log(n_samples) at chance. 0 if no row has a positive.

    Raises
    ------
    TypeError, ValueError
        If shapes do not match, or a row that counts is zero or not finite.

    Notes
    -----
    With logits S and positives P(i) of row i, the loss of a row is
    log sum_j exp(S_ij) - mean_{p in P(i)} S_ip: the mean of logarithms over positives
    (L_out of Khosla et al.), averaged over rows with positives. Its gradient for a
    positive, softmax - 1 / |P(i)|, is least when the softmax is equal over all
    positives: repeats of a stimulus are never pushed away as negatives are. The lowest
    value with r repeats is log(r), not 0.

    Memory grows with n_samples * n_features, and float32 resolves the loss to about
    1e-7 / temperature; see `neuromm.kernels.pair_tiles`.
    """
    if direction not in ("both", "a_to_b", "b_to_a"):
        raise ValueError(
            f"direction must be 'both', 'a_to_b' or 'b_to_a', got {direction!r}"
        )
    pairs = Pairs.of(a, b, labels, mask)
    scale = inverse_temperature(temperature, pairs.a)
    if not len(pairs.a) or not len(pairs.b):
        return pairs.a.sum() + pairs.b.sum()
    rows, columns = pair_log_sums(pairs.a, pairs.b, scale)
    backwards = Pairs(pairs.b, pairs.a, pairs.ids_b, pairs.ids_a)
    losses = []
    if direction != "b_to_a":
        losses.append(_mean_loss(rows, pairs, scale))
    if direction != "a_to_b":
        losses.append(_mean_loss(columns, backwards, scale))
    return sum(losses[1:], losses[0]) / len(losses)


class InfoNCE(nn.Module):  # type: ignore[misc]
    """`info_nce` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature : float
    learnable : bool
        Learns the logarithm of the temperature, kept within [0.01, 1].
    direction : {"both", "a_to_b", "b_to_a"}
        As in `info_nce`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        direction: Direction = "both",
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.direction = direction

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return info_nce(a, b, self.temperature(), labels, mask, self.direction)

    def loss_and_grad(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> LossAndGrad:
        """Loss and its gradients for a and b, without a graph, for gradient caching."""
        return gradients_of(lambda a, b: self(a, b, labels, mask), a, b)


def _mean_loss(log_sums: Tensor, pairs: Pairs, scale: Tensor) -> Tensor:
    sums, counts = positive_cosines(pairs)
    has = counts > 0
    losses = log_sums - scale * sums / counts.clamp_min(1)
    return losses[has].sum() / has.sum().clamp_min(1)

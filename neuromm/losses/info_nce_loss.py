"""InfoNCE: a match of rows of two modalities against all other rows.

References
----------
van den Oord, Li & Vinyals (2018) Representation learning with contrastive predictive
coding. arXiv 1807.03748.
Khosla et al. (2020) Supervised contrastive learning. NeurIPS (several positives).
"""

from typing import Any, Literal

from torch import Tensor, nn

from neuromm.kernels.pair_tiles import matched_log_sums, pair_log_sums
from neuromm.losses.gathering import gather_rows, own_ids, share_of_mean
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
    gather: bool = False,
    group: Any = None,
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
    gather : bool
        Whether the rows of all ranks of torch.distributed are negatives. Each rank
        compares its rows with all; the loss is that of the whole batch on all ranks,
        gradients are for DistributedDataParallel (see `neuromm.losses.gather_rows`).
        Labels then name stimuli across ranks.
    group : torch.distributed.ProcessGroup, optional
        Whose ranks are gathered, all by default.

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
    positive, ``softmax - 1 / |P(i)|``, is least when the softmax is equal over all
    positives: repeats of a stimulus are never pushed away as negatives are. The lowest
    value with r repeats is log(r), not 0.

    Memory grows with n_samples * n_features, and float32 resolves the loss to about
    1e-7 / temperature; see `neuromm.kernels.pair_tiles`.
    """
    if direction not in ("both", "a_to_b", "b_to_a"):
        raise ValueError(
            f"direction must be 'both', 'a_to_b' or 'b_to_a', got {direction!r}"
        )
    if gather:
        if labels is None:
            labels = own_ids(len(a), a.device, group)
        pairs = Pairs.of(a, b, labels, mask)
        return _gathered(pairs, temperature, direction, group)
    pairs = Pairs.of(a, b, labels, mask)
    scale = inverse_temperature(temperature, pairs.a)
    if not len(pairs.a) or not len(pairs.b):
        return 0 * (pairs.a.sum() + pairs.b.sum() + scale)
    if pairs.is_paired:
        rows, columns, matches = matched_log_sums(pairs.a, pairs.b, scale)
        own = scale * matches.mean()
        both = {"a_to_b": rows.mean(), "b_to_a": columns.mean()}
        return both.get(direction, (rows.mean() + columns.mean()) / 2) - own
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
    gather : bool
    group : torch.distributed.ProcessGroup, optional
        As in `info_nce`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        direction: Direction = "both",
        gather: bool = False,
        group: Any = None,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.direction = direction
        self.gather = gather
        self.group = group

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return info_nce(
            a,
            b,
            self.temperature(),
            labels,
            mask,
            self.direction,
            self.gather,
            self.group,
        )

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
    losses, count = _sum_of_losses(log_sums, pairs, scale)
    return losses / count.clamp_min(1)


def _sum_of_losses(
    log_sums: Tensor, pairs: Pairs, scale: Tensor
) -> tuple[Tensor, Tensor]:
    sums, counts = positive_cosines(pairs)
    has = counts > 0
    losses = log_sums - scale * sums / counts.clamp_min(1)
    return losses[has].sum(), has.sum()


def _gathered(
    own: Pairs, temperature: float | Tensor, direction: Direction, group: Any
) -> Tensor:
    """Loss of the rows of all ranks, of which each rank computes its own."""
    scale = inverse_temperature(temperature, own.a)
    ids_a, ids_b = gather_rows(own.ids_a, group), gather_rows(own.ids_b, group)
    sides = []
    if direction != "b_to_a":
        b = gather_rows(own.b, group)
        sides.append(Pairs(own.a, b, own.ids_a, ids_b))
    if direction != "a_to_b":
        a = gather_rows(own.a, group)
        sides.append(Pairs(own.b, a, own.ids_b, ids_a))
    losses = []
    for side in sides:
        if len(side.a) and len(side.b):
            rows, _ = pair_log_sums(side.a, side.b, scale)
            loss, count = _sum_of_losses(rows, side, scale)
        else:  # what was gathered stays in the graph: all ranks go backward together
            loss = 0 * (side.a.sum() + side.b.sum() + scale)
            count = scale.new_zeros(())
        losses.append(share_of_mean(loss, count, group))
    return sum(losses[1:], losses[0]) / len(losses)

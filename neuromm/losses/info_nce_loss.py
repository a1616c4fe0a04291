"""InfoNCE: a match of rows of two modalities against all other rows.

References
----------
van den Oord, Li & Vinyals (2018) Representation learning with contrastive predictive
coding. arXiv 1807.03748.
Khosla et al. (2020) Supervised contrastive learning. NeurIPS (several positives).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from neuromm.kernels.pair_tiles import matched_log_sums, pair_log_sums
from neuromm.losses import gradient_caching
from neuromm.losses.gathering import (
    Gather,
    gather_rows,
    own_ids,
    ranks_of,
    share_of_mean,
)
from neuromm.losses.positive_pairs import Pairs, positive_cosines
from neuromm.losses.resident_pairs import mean_loss, resident_sums, stay_resident
from neuromm.losses.row_checks import inverse_temperature, no_loss
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
    gather: Gather = False,
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
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.
        Each rank compares its own rows with all; labels name stimuli across ranks.

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
    if gather is not False:
        ids = own_ids(a, ranks_of(gather)) if labels is None else labels
        pairs = Pairs.of(a, b, ids, mask)
        return _gathered(pairs, temperature, direction, ranks_of(gather))
    if stay_resident(a, b):
        scale, by_a, by_b = resident_sums(a, b, temperature, labels, mask)
        sides = {"a_to_b": (by_a,), "b_to_a": (by_b,)}.get(direction, (by_a, by_b))
        return torch.stack([mean_loss(side, scale) for side in sides]).mean()
    pairs = Pairs.of(a, b, labels, mask)
    scale = inverse_temperature(temperature, pairs.a)
    if not len(pairs.a) or not len(pairs.b):
        return no_loss(pairs.a, pairs.b, scale)
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
    temperature, learnable
        As in `Temperature`.
    direction, gather
        As in `info_nce`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        direction: Direction = "both",
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.direction = direction
        self.gather = gather

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return info_nce(
            a, b, self.temperature(), labels, mask, self.direction, self.gather
        )

    loss_and_grad = gradient_caching.loss_and_grad


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
    own: Pairs, temperature: float | Tensor, direction: Direction, group: Gather
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
            loss = no_loss(side.a, side.b, scale)
            count = scale.new_zeros(())
        losses.append(share_of_mean(loss, count, group))
    return sum(losses[1:], losses[0]) / len(losses)

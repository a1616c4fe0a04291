"""GRAM: a contrastive loss on the volume that an anchor and other modalities span.

References
----------
Cicchetti, Grassucci, Sigillo & Comminiello (2025) Gramian multimodal representation
learning and alignment. ICLR, arXiv 2412.11959.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuromm.kernels.volume_softmax import (
    SQUARED_FLOOR,
    matched_volumes,
    pair_volumes,
    volume_normalisers,
)
from neuromm.losses import gradient_caching
from neuromm.losses.anchored import anchored_contrastive
from neuromm.losses.gathering import Gather, gather_batch
from neuromm.losses.positive_pairs import stimulus_counts, stimulus_ids
from neuromm.losses.row_checks import (
    check_batch,
    checked_mask,
    inverse_temperature,
    no_loss,
    unit_rows,
    widened,
)
from neuromm.losses.temperature import Temperature

__all__ = ["GramVolume", "gram_volume", "gram_volumes"]


def gram_volume(
    anchor: Tensor,
    others: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    anchor_weight: float = 1.0,
    label_smoothing: float = 0.0,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    gather: Gather = False,
) -> Tensor:
    """Contrastive loss of volumes, plus the InfoNCE of the anchor with each modality.

    Parameters
    ----------
    anchor : tensor of shape (n_samples, n_features)
        Rows need not be normalised.
    others : sequence of tensors of shape (n_samples, n_features)
        One a modality, fewer than ``n_features`` of them.
    temperature : float or tensor of shape ()
        Of both terms.
    anchor_weight : float
        Of the InfoNCE term, a mean over the modalities. At 0 nothing holds the
        modalities together but volumes, which also vanish for opposite or coplanar
        vectors: see Notes.
    label_smoothing : float
        In [0, 1), of the volume term; the authors use 0.1.
    mask : tensor of bool of shape (n_samples,) or (n_samples, n_others), optional
        Samples that count, or which modalities a sample has. Rows of absent ones are
        not read, and may hold anything.
    labels : tensor of int of shape (n_samples,), optional
        Stimulus of each sample: all samples of one stimulus are positives of each
        other, as in `info_nce`.
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.

    Returns
    -------
    loss : tensor of shape ()
        In nats, float32 at least; 0 if no sample has any other modality.

    Raises
    ------
    TypeError, ValueError
        If rows do not match, are not finite or are zero, or if there are too many
        modalities for their width.

    Notes
    -----
    V_ij in [0.001, 1] is the volume of the parallelotope of anchor i and the others of
    sample j, and the first term 1/2 [CE(-V / temperature) + CE(-V' / temperature)]
    with the matched sample as the class, or the mean over its positives. Volumes of
    different numbers of vectors are not comparable: samples with the same modalities
    form a group with a softmax of its own, and the groups are averaged by their numbers
    of samples.

    A volume is small whenever the vectors are linearly dependent: equal, opposite, or
    three in a plane. Trained on volumes alone, the cosines of the modalities stay near
    0 although the volumes retrieve well; hence the anchor term.

    Memory grows with n_samples * n_features * n_others: k products take the place of
    n_samples^2 determinants of k + 1 vectors.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    if not 0 <= anchor_weight < float("inf"):
        raise ValueError(f"anchor_weight must be >= 0, got {anchor_weight}")
    anchor = widened("anchor", anchor)
    others = [widened(name, rows) for name, rows in _named(others)]
    batch = gather_batch(gather, anchor, others, mask, labels)
    anchor, others, held, ids = _counted(*batch)
    rows = unit_rows(anchor)
    scale = inverse_temperature(temperature, rows)
    if not len(rows):
        return no_loss(rows, *others, scale)
    loss = _grouped_volume_loss(rows, others, held, ids, scale, label_smoothing)
    if anchor_weight:
        # Absent rows are not read, and their gradients are zero.
        anchored = anchored_contrastive(anchor, others, temperature, ids, held)
        loss = loss + anchor_weight * anchored
    return loss


def gram_volumes(
    anchor: Tensor, others: Sequence[Tensor], matched: bool = True
) -> Tensor:
    """Volumes that the anchor and the other modalities span, as a diagnostic.

    Read them beside the pairwise cosines: a small volume says that the vectors are
    linearly dependent, which equal vectors are, and opposite and coplanar ones too.

    Parameters
    ----------
    anchor : tensor of shape (n_anchors, n_features)
    others : sequence of tensors of shape (n_samples, n_features)
    matched : bool
        Of each sample (n_anchors = n_samples); False gives all pairs, whose rows rank
        samples for an anchor: the best match is the smallest.

    Returns
    -------
    volumes : tensor of shape (n_samples,) or (n_anchors, n_samples)
        In [0.001, 1], without gradient: 1 for orthogonal vectors; 0.001 stands for
        all below.
    """
    if matched:
        check_batch([("anchor", anchor), *_named(others)])
    else:
        check_batch([("anchor", anchor)])
        check_batch(_named(others))
    _check_width(anchor, others)
    with torch.no_grad():
        rows, stacked = _directions(anchor, others)
        return (matched_volumes if matched else pair_volumes)(rows, stacked)


class GramVolume(nn.Module):  # type: ignore[misc]
    """`gram_volume` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`.
    anchor_weight, label_smoothing, gather
        As in `gram_volume`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        anchor_weight: float = 1.0,
        label_smoothing: float = 0.0,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.anchor_weight = anchor_weight
        self.label_smoothing = label_smoothing
        self.gather = gather

    def forward(
        self,
        anchor: Tensor,
        others: Sequence[Tensor],
        mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return gram_volume(
            anchor,
            others,
            self.temperature(),
            self.anchor_weight,
            self.label_smoothing,
            mask,
            labels,
            self.gather,
        )

    loss_and_grad = gradient_caching.loss_and_grad


def _named(others: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    if isinstance(others, Tensor) or not len(others):
        raise ValueError("others must be a sequence of one tensor per modality")
    return [(f"others[{index}]", rows) for index, rows in enumerate(others)]


def _check_width(anchor: Tensor, others: Sequence[Tensor]) -> None:
    if anchor.shape[1] != others[0].shape[1]:
        raise ValueError(
            f"anchor and others must have the same width, got {anchor.shape[1]} and "
            f"{others[0].shape[1]}"
        )
    if len(others) >= anchor.shape[1]:
        raise ValueError(
            f"{len(others) + 1} vectors of width {anchor.shape[1]} span no volume: "
            "take wider embeddings or fewer modalities"
        )


def _counted(
    anchor: Tensor, others: Sequence[Tensor], mask: Tensor | None, labels: Tensor | None
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Samples with any other modality: anchor, others, who has what, and stimuli."""
    named = [("anchor", anchor), *_named(others)]
    if mask is None:
        check_batch(named)
        held = anchor.new_ones((len(anchor), len(others)), dtype=torch.bool)
    else:
        held = checked_mask(mask, "anchor", anchor, len(others))
        check_batch(named, [held.any(dim=1), *held.T])
    _check_width(anchor, others)
    used = held.any(dim=1)
    ids = stimulus_ids(labels, anchor)
    if used.all():
        return anchor, list(others), held, ids
    return anchor[used], [rows[used] for rows in others], held[used], ids[used]


def _directions(anchor: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Unit rows of the anchor, and of the others stacked, in one precision."""
    rows = unit_rows(anchor)
    # Normalised together: what is kept for the backward is the stack alone.
    stacked = unit_rows(torch.stack(list(others)))
    dtype = torch.promote_types(rows.dtype, stacked.dtype)
    return rows.to(dtype), stacked.to(dtype)


def _grouped_volume_loss(
    anchor: Tensor,
    others: Sequence[Tensor],
    held: Tensor,
    ids: Tensor,
    scale: Tensor,
    smoothing: float,
) -> Tensor:
    """Mean over samples, each in the softmax of those with the same modalities."""
    if held.all():
        return _volume_loss(*_directions(anchor, others), ids, scale, smoothing)
    patterns, group = held.unique(dim=0, return_inverse=True)
    parts = []
    for index, pattern in enumerate(patterns):
        member = group == index
        own = [rows[member] for rows, has in zip(others, pattern, strict=True) if has]
        rows, stacked = _directions(anchor[member], own)
        loss = _volume_loss(rows, stacked, ids[member], scale, smoothing)
        parts.append(loss * len(rows))
    return torch.stack(parts).sum() / len(anchor)


def _volume_loss(
    rows: Tensor, stacked: Tensor, ids: Tensor, scale: Tensor, smoothing: float
) -> Tensor:
    scale = scale.to(rows)
    by_row, by_column, sums, own = volume_normalisers(
        rows, stacked, scale, with_sums=smoothing > 0
    )
    matched = _mean_over_positives(rows, stacked, ids, own)
    # The target is 1 - smoothing on the match, and smoothing spread over all.
    expected = (1 - smoothing) * matched + smoothing * sums.mean() / len(rows)
    return (by_row.mean() + by_column.mean()) / 2 + scale * expected


def _mean_over_positives(
    rows: Tensor, stacked: Tensor, ids: Tensor, own: Tensor
) -> Tensor:
    """Mean over samples of their mean volume with all samples of their stimulus."""
    order = ids.argsort()
    ordered, counts = ids[order], stimulus_counts(ids).to(own)
    first, second = [], []
    for step in range(1, int(counts.max())):
        same = ordered[step:] == ordered[:-step]
        first += [order[step:][same], order[:-step][same]]
        second += [order[:-step][same], order[step:][same]]
    total = (own / counts).sum()
    if first:
        i, j = torch.cat(first), torch.cat(second)
        total = total + (_volumes_of_pairs(rows[i], stacked[:, j]) / counts[i]).sum()
    return total / len(rows)


def _volumes_of_pairs(rows: Tensor, stacked: Tensor) -> Tensor:
    """Volume of each row with those stacked at its place, by autograd.

    Repeats are few: the determinants of their pairs are taken in float64, where
    nothing cancels that float32 rows could tell apart.
    """
    vectors = torch.cat([rows[None], stacked]).double().transpose(0, 1)
    gram = vectors @ vectors.mT
    flat = torch.linalg.det(gram.detach()) <= SQUARED_FLOOR
    # Where the volume is raised to the floor its gradient is 0, not nan times 0.
    safe = torch.where(flat[:, None, None], torch.eye(len(stacked) + 1).to(gram), gram)
    squared = torch.linalg.det(safe).masked_fill(flat, SQUARED_FLOOR)
    return squared.sqrt().to(rows)

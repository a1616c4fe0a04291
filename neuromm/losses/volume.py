"""GRAM: a contrastive loss on the volume that an anchor and other modalities span.

References
----------
Cicchetti, Grassucci, Sigillo & Comminiello (2025) Gramian multimodal representation
learning and alignment. ICLR, arXiv 2412.11959.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuromm.kernels.pair_tiles import pair_log_sums
from neuromm.kernels.volume_softmax import (
    matched_volumes,
    pair_volumes,
    volume_normalisers,
)
from neuromm.losses.row_checks import check_batch, inverse_temperature, unit_rows
from neuromm.losses.temperature import Temperature

__all__ = ["GramVolume", "gram_volume", "gram_volumes"]


def gram_volume(
    anchor: Tensor,
    others: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    anchor_weight: float = 1.0,
    label_smoothing: float = 0.0,
    present: Tensor | None = None,
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
    present : tensor of bool of shape (n_samples, n_others), optional
        Which modalities a sample has. Rows of absent ones are not read, and may hold
        anything.

    Returns
    -------
    loss : tensor of shape ()
        In nats, float32 at least.

    Raises
    ------
    ValueError
        If rows do not match, are not finite or are zero, if no sample has any other
        modality, or if there are too many modalities for their width.

    Notes
    -----
    V_ij in [0.001, 1] is the volume of the parallelotope of anchor i and the others of
    sample j, and the first term 1/2 [CE(-V / temperature) + CE(-V' / temperature)]
    with the matched sample as the class. Volumes of different numbers of vectors are
    not comparable: samples with the same modalities form a group with a softmax of its
    own, and the groups are averaged by their numbers of samples.

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
    mask = _mask(anchor, others, present)
    rows, stacked = _directions(anchor, others, mask)
    scale = inverse_temperature(temperature, rows)
    loss = _grouped_volume_loss(rows, stacked, mask, scale, label_smoothing)
    if anchor_weight:
        loss = loss + anchor_weight * _anchor_loss(rows, stacked, mask, scale)
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
        rows = unit_rows("anchor", anchor)
        stacked = torch.stack([unit_rows(name, o) for name, o in _named(others)])
        stacked = stacked.to(torch.promote_types(rows.dtype, stacked.dtype))
        rows = rows.to(stacked.dtype)
        return (matched_volumes if matched else pair_volumes)(rows, stacked)


class GramVolume(nn.Module):  # type: ignore[misc]
    """`gram_volume` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature : float
    learnable : bool
        Learns the logarithm of the temperature, kept within [0.01, 1].
    anchor_weight, label_smoothing : float
        As in `gram_volume`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        anchor_weight: float = 1.0,
        label_smoothing: float = 0.0,
        learnable: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.anchor_weight = anchor_weight
        self.label_smoothing = label_smoothing

    def forward(
        self, anchor: Tensor, others: Sequence[Tensor], present: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return gram_volume(
            anchor,
            others,
            self.temperature(),
            self.anchor_weight,
            self.label_smoothing,
            present,
        )


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


def _mask(anchor: Tensor, others: Sequence[Tensor], present: Tensor | None) -> Tensor:
    """Who has what, (n_samples, n_others); checks shapes and the values that count."""
    named = _named(others)
    if present is None:
        check_batch([("anchor", anchor), *named])
        _check_width(anchor, others)
        return anchor.new_ones((len(anchor), len(others)), dtype=torch.bool)
    check_batch([("anchor", anchor)])
    if present.dtype != torch.bool or present.shape != (len(anchor), len(others)):
        raise ValueError(
            f"present must be boolean of shape ({len(anchor)}, {len(others)}), one row "
            f"per sample, got {present.dtype} of shape {tuple(present.shape)}"
        )
    mask = present.to(anchor.device)
    if not mask.any():
        raise ValueError("no sample has a modality beside the anchor: no loss")
    for (name, rows), has in zip(named, mask.T, strict=True):
        if rows.shape != anchor.shape:
            check_batch([("anchor", anchor), (name, rows)])
        if has.any():
            check_batch([(name, rows[has])])
    _check_width(anchor, others)
    return mask


def _directions(
    anchor: Tensor, others: Sequence[Tensor], mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Unit rows of the anchor, and of the others stacked; rows of ones if absent."""
    rows = unit_rows("anchor", anchor)
    raw = torch.stack(list(others))
    if not mask.all():
        raw = torch.where(mask.T[:, :, None], raw, 1)
    # Normalised together: what is kept for the backward is the stack alone.
    stacked = unit_rows("others", raw)
    dtype = torch.promote_types(rows.dtype, stacked.dtype)
    return rows.to(dtype), stacked.to(dtype)


def _grouped_volume_loss(
    rows: Tensor, stacked: Tensor, mask: Tensor, scale: Tensor, smoothing: float
) -> Tensor:
    if mask.all():
        return _volume_loss(rows, stacked, scale, smoothing)
    patterns, group = mask.unique(dim=0, return_inverse=True)
    loss = rows.new_zeros(())
    for index, pattern in enumerate(patterns):
        if pattern.any():
            member = group == index
            part = _volume_loss(
                rows[member], stacked[pattern][:, member], scale, smoothing
            )
            loss = loss + part * int(member.sum())
    return loss / int(mask.any(dim=1).sum())


def _volume_loss(
    rows: Tensor, stacked: Tensor, scale: Tensor, smoothing: float
) -> Tensor:
    by_row, by_column, sums, own = volume_normalisers(rows, stacked, scale)
    # The target is 1 - smoothing on the match, and smoothing spread over all.
    expected = (1 - smoothing) * own.mean() + smoothing * sums.mean() / len(rows)
    return (by_row.mean() + by_column.mean()) / 2 + scale * expected


def _anchor_loss(rows: Tensor, stacked: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    losses = []
    for modality, has in zip(stacked, mask.T, strict=True):
        if has.any():
            left, right = (rows, modality) if has.all() else (rows[has], modality[has])
            by_row, by_column = pair_log_sums(left, right, scale)
            own = scale * (left * right).sum(dim=1).mean()
            losses.append((by_row.mean() + by_column.mean()) / 2 - own)
    return torch.stack(losses).mean()

"""Contrastive loss of several modalities, each against one anchor.

References
----------
Thapa, Howlader, Bhattacharjee & Le (2024) MoRE: multi-modal contrastive pre-training
with transformers on X-rays, ECGs, and diagnostic report. arXiv 2410.16239.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuromm.losses import gradient_caching
from neuromm.losses.gathering import Gather, gather_batch
from neuromm.losses.info_nce_loss import info_nce
from neuromm.losses.row_checks import checked_mask, widened
from neuromm.losses.temperature import Temperature

__all__ = ["AnchoredContrastive", "anchored_contrastive"]


def anchored_contrastive(
    anchor: Tensor,
    others: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
    gather: Gather = False,
) -> Tensor:
    """Mean of the symmetric InfoNCE of an anchor with each other modality.

    Parameters
    ----------
    anchor : tensor of shape (n_samples, n_features)
        In MoRE the report.
    others : sequence of tensors of shape (n_samples, n_features)
        In MoRE the X-ray and the ECG.
    temperature : float or tensor of shape ()
        Logits are cosines divided by it. MoRE's code keeps it at 0.02.
    labels : tensor of int of shape (n_samples,), optional
        Stimulus or patient of each sample, as in `info_nce`.
    mask : tensor of bool of shape (n_samples,) or (n_samples, n_others), optional
        Samples that count, or which modalities a sample has; all have the anchor. A
        sample without a modality is left out of that term, and its row is not read.
    weights : sequence of float, optional
        One a modality, divided by their sum; equal by default.
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.

    Returns
    -------
    loss : tensor of shape ()
        Mean over the modalities that any sample has, in nats; 0 if there is none.

    Raises
    ------
    TypeError, ValueError
        As `info_nce`, or if weights are negative or all zero.
    """
    if isinstance(others, Tensor) or not len(others):
        raise ValueError("others must be a sequence of one tensor per modality")
    if mask is not None:
        mask = checked_mask(mask, "anchor", anchor, len(others))
    anchor = widened("anchor", anchor)
    shares = [1.0] * len(others) if weights is None else [float(w) for w in weights]
    if len(shares) != len(others) or min(shares) < 0 or not 0 < sum(shares) < torch.inf:
        raise ValueError(
            f"weights must be {len(others)} numbers >= 0, one per modality, not all "
            f"0, got {weights}"
        )
    (whole_mask,) = gather_batch(gather, mask)
    terms, whole = [], 0.0
    for index, (rows, share) in enumerate(zip(others, shares, strict=True)):
        has = None if mask is None else mask[:, index]
        term = info_nce(anchor, rows, temperature, labels, has, gather=gather)
        terms.append(share * term)
        whole += share if has is None or bool(whole_mask[:, index].any()) else 0.0
    return sum(terms[1:], terms[0]) / (whole or 1.0)


class AnchoredContrastive(nn.Module):  # type: ignore[misc]
    """`anchored_contrastive` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`.
    weights, gather
        As in `anchored_contrastive`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        weights: Sequence[float] | None = None,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.weights = weights
        self.gather = gather

    def forward(
        self,
        anchor: Tensor,
        others: Sequence[Tensor],
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return anchored_contrastive(
            anchor,
            others,
            self.temperature(),
            labels,
            mask,
            self.weights,
            self.gather,
        )

    loss_and_grad = gradient_caching.loss_and_grad

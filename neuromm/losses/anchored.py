"""Contrastive loss of several modalities, each against one anchor.

References
----------
Thapa, Howlader, Bhattacharjee & Le (2024) MoRE: multi-modal contrastive pre-training
with transformers on X-rays, ECGs, and diagnostic report. arXiv 2410.16239.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuromm.losses.gradient_caching import LossAndGrad, gradients_of
from neuromm.losses.info_nce_loss import info_nce
from neuromm.losses.temperature import Temperature

__all__ = ["AnchoredContrastive", "anchored_contrastive"]


def anchored_contrastive(
    anchor: Tensor,
    others: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
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
    mask : tensor of bool of shape (n_samples, n_others), optional
        Which modalities a sample has; all have the anchor. A sample without a modality
        is left out of that term, and its row is not read.
    weights : sequence of float, optional
        One a modality, divided by their sum; equal by default.

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
        mask = torch.as_tensor(mask, device=anchor.device)
        if mask.dtype != torch.bool or mask.shape != (len(anchor), len(others)):
            raise ValueError(
                f"mask must be boolean of shape ({len(anchor)}, {len(others)}), one "
                f"row per sample, got {mask.dtype} of shape {tuple(mask.shape)}"
            )
    shares = [1.0] * len(others) if weights is None else [float(w) for w in weights]
    if len(shares) != len(others) or min(shares) < 0 or not 0 < sum(shares) < torch.inf:
        raise ValueError(
            f"weights must be {len(others)} numbers >= 0, one per modality, not all "
            f"0, got {weights}"
        )
    terms, whole = [], 0.0
    for index, (rows, share) in enumerate(zip(others, shares, strict=True)):
        has = None if mask is None else mask[:, index]
        terms.append(share * info_nce(anchor, rows, temperature, labels, has))
        whole += share if has is None or bool(has.any()) else 0.0
    return sum(terms[1:], terms[0]) / (whole or 1.0)


class AnchoredContrastive(nn.Module):  # type: ignore[misc]
    """`anchored_contrastive` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature : float
    learnable : bool
        Learns the logarithm of the temperature, kept within [0.01, 1].
    weights : sequence of float, optional
        As in `anchored_contrastive`.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable)
        self.weights = weights

    def forward(
        self,
        anchor: Tensor,
        others: Sequence[Tensor],
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return anchored_contrastive(
            anchor, others, self.temperature(), labels, mask, self.weights
        )

    def loss_and_grad(
        self,
        anchor: Tensor,
        others: Sequence[Tensor],
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> LossAndGrad:
        """Loss and gradients without a graph; ``grad_b`` is (n_others, ...)."""
        return gradients_of(
            lambda a, b: self(a, list(b), labels, mask),
            anchor,
            torch.stack(list(others)),
        )

"""MixCo: a mixture of two recordings belongs to both their images, in proportion.

References
----------
Kim, Lee, Bae & Yun (2020) MixCo: mix-up contrastive learning for visual
representation. arXiv 2010.06300.
Scotti et al. (2023) Reconstructing the mind's eye: fMRI-to-image with contrastive
learning and diffusion priors. NeurIPS, arXiv 2305.18274 (settings, both directions).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuromm.kernels.pair_tiles import pair_log_sums
from neuromm.losses import gradient_caching
from neuromm.losses.gathering import Gather, first_row, gather_batch, ranks_of
from neuromm.losses.positive_pairs import stimulus_ids, stimulus_means
from neuromm.losses.row_checks import check_batch, inverse_temperature, unit_batch
from neuromm.losses.temperature import Temperature

__all__ = ["MixCo", "Mixing", "draw_mixing", "mixco"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """Who is mixed with whom: row i becomes w_i x_i + (1 - w_i) x_partner(i).

    Attributes
    ----------
    partner : tensor of int of shape (n_samples,)
        A permutation.
    weight : tensor of shape (n_samples,)
        In [0, 1], of the row itself; 1 leaves it as it is.
    """

    partner: Tensor
    weight: Tensor

    def apply(self, samples: Tensor) -> Tensor:
        """Mixed copies of samples of shape (n_samples, ...), before the encoder."""
        if len(samples) != len(self.partner):
            raise ValueError(
                f"this mixing is of {len(self.partner)} samples, got {len(samples)}"
            )
        weight = self.weight.to(samples).reshape(-1, *[1] * (samples.ndim - 1))
        partner = self.partner.to(samples.device)
        return weight * samples + (1 - weight) * samples[partner]


def draw_mixing(
    n_samples: int, generator: torch.Generator, alpha: float = 0.15, share: float = 0.5
) -> Mixing:
    """Random partners and weights.

    Parameters
    ----------
    n_samples : int
    generator : torch.Generator
        Seeded; the same state gives the same mixing. It is advanced.
    alpha : float
        Weights are of Beta(alpha, alpha): small values mix little, as a rule.
    share : float
        Probability that a sample is mixed.
    """
    if n_samples < 1 or not 0 < alpha < float("inf") or not 0 <= share <= 1:
        raise ValueError(
            "mixing needs n_samples >= 1, alpha > 0 and share in [0, 1], got "
            f"{n_samples}, {alpha} and {share}"
        )
    device = generator.device
    partner = torch.randperm(n_samples, generator=generator, device=device)
    # Beta as a quotient of gammas. torch.distributions takes no generator.
    log_gammas = _log_gammas(2 * n_samples, alpha, generator).reshape(2, n_samples)
    weight = log_gammas.softmax(dim=0)[0]
    kept = torch.rand(n_samples, generator=generator, device=device) >= share
    return Mixing(partner, weight.masked_fill_(kept, 1.0))


def mixco(
    brain: Tensor,
    image: Tensor,
    mixing: Mixing,
    temperature: float | Tensor = 0.006,
    labels: Tensor | None = None,
    gather: Gather = False,
) -> Tensor:
    """Contrastive loss of encoded mixtures against the images of both their parts.

    Parameters
    ----------
    brain : tensor of shape (n_samples, n_features)
        Embeddings of ``mixing.apply(recordings)``. Rows need not be normalised.
    image : tensor of shape (n_samples, n_features)
        Embeddings of the stimuli, not mixed.
    mixing : Mixing
        With which the recordings were mixed.
    temperature : float or tensor of shape ()
        0.006 as in MindEye and BrainFLORA.
    labels : tensor of int of shape (n_samples,), optional
        Stimulus of each sample, before mixing. A target is shared equally by all
        images of its stimulus.
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.

    Returns
    -------
    loss : tensor of shape ()
        In nats.

    Raises
    ------
    TypeError, ValueError
        If rows do not match, are not finite or are zero, or the mixing is of another
        batch.

    Notes
    -----
    Row i has the target w_i on image i and 1 - w_i on that of its partner. The other
    direction takes the same targets by columns, which do not sum to 1: with q_j the
    sum of column j of the targets P, and logits S, the loss is

    ``1/2 mean_i [LSE(S_i.) + q_i LSE(S_.i)] - mean_i sum_j P_ij S_ij``.

    A sample that is its own partner has the target 1. A sample without an image is
    left out before recordings are mixed.
    """
    check_batch([("brain", brain), ("image", image)])
    partner, weight = _checked(mixing, brain)
    if gather is not False:
        partner = partner + first_row(brain, ranks_of(gather))
    brain, image, partner, weight, labels = gather_batch(
        gather, brain, image, partner, weight, labels
    )
    b, v = unit_batch([("brain", brain), ("image", image)])
    weight, scale = weight.to(b), inverse_temperature(temperature, b)
    rows, columns = pair_log_sums(b, v, scale)
    mass = weight.index_add(0, partner, 1 - weight)
    targets = v
    if labels is not None:
        ids = stimulus_ids(labels, b)
        mass, targets = stimulus_means(ids, mass), stimulus_means(ids, v)
    expected = weight * (b * targets).sum(dim=1)
    expected = expected + (1 - weight) * (b * targets[partner]).sum(dim=1)
    return (rows.mean() + (mass * columns).mean()) / 2 - scale * expected.mean()


class MixCo(nn.Module):  # type: ignore[misc]
    """`mixco` with its settings; the temperature may be learned.

    Parameters
    ----------
    temperature, learnable
        As in `Temperature`, with bounds of 0.001 and 1.
    alpha, share
        As in `draw_mixing`.
    gather
        As in `mixco`.
    """

    def __init__(
        self,
        temperature: float = 0.006,
        learnable: bool = False,
        alpha: float = 0.15,
        share: float = 0.5,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable, bounds=(0.001, 1.0))
        self.alpha = alpha
        self.share = share
        self.gather = gather

    def mix(self, samples: Tensor, generator: torch.Generator) -> tuple[Tensor, Mixing]:
        """Mixed recordings, for the encoder, and how they were mixed."""
        mixing = draw_mixing(len(samples), generator, self.alpha, self.share)
        return mixing.apply(samples), mixing

    def forward(
        self,
        brain: Tensor,
        image: Tensor,
        mixing: Mixing,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return mixco(brain, image, mixing, self.temperature(), labels, self.gather)

    loss_and_grad = gradient_caching.loss_and_grad


def _log_gammas(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Logarithms of draws of Gamma(alpha), which may be too small for a float64.

    By Marsaglia & Tsang (2000, ACM Trans. Math. Softw. 26:363-372) for alpha + 1, by
    rejection, times U^(1 / alpha).
    """

    def draw(normal: bool, n: int) -> Tensor:
        make = torch.randn if normal else torch.rand
        return make(
            n, generator=generator, device=generator.device, dtype=torch.float64
        )

    d = alpha + 1 - 1 / 3
    found = draw(False, n).log() / alpha
    open_ = torch.arange(n, device=generator.device)
    while len(open_):
        x = draw(True, len(open_))
        v = (1 + x / (9 * d) ** 0.5) ** 3
        # nan, of v < 0, is no acceptance.
        taken = draw(False, len(open_)).log() < x * x / 2 + d - d * v + d * v.log()
        found[open_[taken]] += (d * v[taken]).log()
        open_ = open_[~taken]
    return found


def _checked(mixing: Mixing, rows: Tensor) -> tuple[Tensor, Tensor]:
    partner, weight = mixing.partner.to(rows.device), mixing.weight.to(rows.device)
    order = torch.arange(len(rows), device=rows.device)
    if weight.shape != order.shape or not torch.equal(partner.sort().values, order):
        raise ValueError(
            f"mixing must have a weight per sample and partners that are a permutation "
            f"of {len(rows)} samples, got {tuple(weight.shape)} weights and "
            f"{tuple(partner.shape)} partners"
        )
    if not bool(((weight >= 0) & (weight <= 1)).all()):
        raise ValueError("weights of a mixing must lie in [0, 1], and not be nan")
    return partner, weight

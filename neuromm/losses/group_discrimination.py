"""Instances of one modality against groups of the other.

References
----------
Song, Fan, Chang & Cai (2026) Gene-DML. WACV, arXiv 2507.14670.
Wang, Liu & Yu (2021) Unsupervised feature learning by cross-level instance-group
discrimination. CVPR.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from neuromm.kernels.batch_kmeans import (
    balanced_groups,
    batch_kmeans,
    group_means,
    spectral_groups,
)
from neuromm.kernels.tiling import full_precision
from neuromm.losses.row_checks import check_batch, inverse_temperature, unit_rows
from neuromm.losses.temperature import Temperature

__all__ = ["InstanceGroup", "instance_group"]

Method = Literal["kmeans", "spectral", "sinkhorn"]


def instance_group(
    image: Tensor,
    gene: Tensor,
    n_groups: int,
    temperature: float | Tensor = 0.1,
    method: Method = "kmeans",
    instances: tuple[Tensor, Tensor] | None = None,
    normalise_centres: bool = True,
    n_iterations: int = 10,
) -> Tensor:
    """Contrastive loss of samples against groups of the other modality.

    Parameters
    ----------
    image, gene : tensors of shape (n_samples, n_features)
        Rows that are grouped, each modality by itself; need not be normalised.
    n_groups : int
        At most ``n_samples``.
    temperature : float or tensor of shape ()
        0.1 as on the command line of Gene-DML.
    method : {"kmeans", "spectral", "sinkhorn"}
        k-means from the first rows; normalised cut of the absolute cosines; or groups
        balanced in size, by Sinkhorn's algorithm.
    instances : tuple of two tensors of shape (n_samples, n_features), optional
        Image and gene rows that are compared with the centres, taken as they are; the
        unit rows of ``image`` and ``gene`` by default. Gene-DML takes its fused image
        token, not normalised, and its normalised gene embedding.
    normalise_centres : bool
        Centres of norm 1; False leaves means of unit rows, as Gene-DML does.
    n_iterations : int
        Of k-means, in any method.

    Returns
    -------
    loss : tensor of shape ()
        Mean of both directions, in nats; log(n_groups) at chance.

    Raises
    ------
    TypeError, ValueError
        If rows do not match, are not finite or are zero, or there are more groups than
        samples.

    Notes
    -----
    With labels c_u and centres C_u of the images u, and c_w and C_w of the genes w, the
    loss is 1/2 [CE(u C_w' / temperature, c_w) + CE(w C_u' / temperature, c_u)]. Labels
    carry no gradient; centres, as means of their rows, do. An empty group keeps a zero
    centre and with it a logit of 0.

    Groups depend on the order of the rows: the first are the initial centres.
    """
    _check_settings(n_groups, len(image), method)
    check_batch([("image", image), ("gene", gene)])
    u, w = unit_rows("image", image), unit_rows("gene", gene)
    own_u, own_w = (u, w) if instances is None else _instances(instances, image)
    dtype = own_u.dtype
    for rows in (own_w, u, w):
        dtype = torch.promote_types(dtype, rows.dtype)
    own_u, own_w, u, w = (rows.to(dtype) for rows in (own_u, own_w, u, w))
    scale = inverse_temperature(temperature, u)
    with full_precision(u.device):
        losses = []
        for own, other in ((own_u, w), (own_w, u)):
            labels = _labels(other.detach(), n_groups, method, n_iterations)
            centres = group_means(other, labels, n_groups)
            if normalise_centres:
                centres = _directions(centres)
            losses.append(cross_entropy(scale * (own @ centres.T), labels))
    return (losses[0] + losses[1]) / 2


class InstanceGroup(nn.Module):  # type: ignore[misc]
    """`instance_group` with its settings; the temperature may be learned.

    Parameters
    ----------
    n_groups : int
    temperature : float
    method : {"kmeans", "spectral", "sinkhorn"}
    learnable : bool
        Learns the logarithm of the temperature, kept within [0.01, 1].
    normalise_centres : bool
    n_iterations : int
        As in `instance_group`.
    """

    def __init__(
        self,
        n_groups: int,
        temperature: float = 0.1,
        method: Method = "kmeans",
        learnable: bool = False,
        normalise_centres: bool = True,
        n_iterations: int = 10,
    ) -> None:
        super().__init__()
        _check_settings(n_groups, n_groups, method)
        self.n_groups = n_groups
        self.temperature = Temperature(temperature, learnable)
        self.method = method
        self.normalise_centres = normalise_centres
        self.n_iterations = n_iterations

    def forward(
        self,
        image: Tensor,
        gene: Tensor,
        instances: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Loss of a batch, of shape ()."""
        return instance_group(
            image,
            gene,
            self.n_groups,
            self.temperature(),
            self.method,
            instances,
            self.normalise_centres,
            self.n_iterations,
        )


def _check_settings(n_groups: int, n_samples: int, method: str) -> None:
    if method not in get_args(Method):
        known = ", ".join(f'"{name}"' for name in get_args(Method))
        raise ValueError(f"method must be one of {known}, got {method!r}")
    if n_groups < 1:
        raise ValueError(f"n_groups must be >= 1, got {n_groups}")
    if n_groups > n_samples:
        raise ValueError(
            f"{n_groups} groups need at least as many samples, got {n_samples}. Was "
            "the last, smaller batch kept? Drop it, or take fewer groups"
        )


def _instances(instances: tuple[Tensor, Tensor], like: Tensor) -> list[Tensor]:
    own_image, own_gene = instances
    check_batch([
        ("image", like),
        ("instances[0]", own_image),
        ("instances[1]", own_gene),
    ])  # fmt: skip
    return [
        rows if rows.dtype == torch.float64 else rows.float()
        for rows in (own_image, own_gene)
    ]


def _labels(rows: Tensor, n_groups: int, method: Method, n_iterations: int) -> Tensor:
    if method == "spectral":
        return spectral_groups(rows, n_groups, n_iterations)
    if method == "sinkhorn":
        return balanced_groups(rows, rows[:n_groups], n_iterations)
    return batch_kmeans(rows, rows[:n_groups], n_iterations)[0]


def _directions(centres: Tensor) -> Tensor:
    """Centres of norm 1; those of empty groups, or of rows that cancel, are zero."""
    norm = centres.detach().norm(dim=1, keepdim=True)
    none = norm < torch.finfo(centres.dtype).eps
    return normalize(centres.masked_fill(none, 0))

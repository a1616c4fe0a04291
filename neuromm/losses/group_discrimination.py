"""Instances of one modality against groups of the other.

References
----------
Song, Fan, Chang & Cai (2026) Gene-DML. WACV, arXiv 2507.14670.
Wang, Liu & Yu (2021) Unsupervised feature learning by cross-level instance-group
discrimination. CVPR.
"""

from collections.abc import Sequence
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
from neuromm.losses import gradient_caching
from neuromm.losses.gathering import Gather, gather_batch
from neuromm.losses.row_checks import (
    check_batch,
    checked_mask,
    inverse_temperature,
    unit_batch,
)
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
    mask: Tensor | None = None,
    gather: Gather = False,
) -> Tensor:
    """Contrastive loss of samples against groups of the other modality.

    Parameters
    ----------
    image, gene : tensors of shape (n_samples, n_features)
        Rows that are grouped, each modality by itself; need not be normalised.
    n_groups : int
        At most the number of samples that count.
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
    mask : tensor of bool of shape (n_samples,), optional
        Samples that have both. Rows of the others are not read.
    gather : bool or ProcessGroup
        Whose rows are compared, this process alone by default: see `gather_rows`.
        Groups are then those of the samples of all ranks.

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
    _check_method(n_groups, method)
    image, gene, instances, mask = gather_batch(gather, image, gene, instances, mask)
    held = None if mask is None else [checked_mask(mask, "image", image)[:, 0]] * 2
    u, w = unit_batch([("image", image), ("gene", gene)], held)
    if n_groups > len(u):
        raise ValueError(
            f"{n_groups} groups need at least as many samples, got {len(u)}. Was the "
            "last, smaller batch kept? Drop it, or take fewer groups"
        )
    own_u, own_w = u, w
    if instances is not None:
        own_u, own_w = _instances(instances, image, held)
        dtype = torch.promote_types(own_u.dtype, u.dtype)
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
    temperature, learnable
        As in `Temperature`.
    n_groups, method, normalise_centres, n_iterations, gather
        As in `instance_group`.
    """

    def __init__(
        self,
        n_groups: int,
        temperature: float = 0.1,
        learnable: bool = False,
        method: Method = "kmeans",
        normalise_centres: bool = True,
        n_iterations: int = 10,
        gather: Gather = False,
    ) -> None:
        super().__init__()
        _check_method(n_groups, method)
        self.n_groups = n_groups
        self.temperature = Temperature(temperature, learnable)
        self.method = method
        self.normalise_centres = normalise_centres
        self.n_iterations = n_iterations
        self.gather = gather

    def forward(
        self,
        image: Tensor,
        gene: Tensor,
        instances: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
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
            mask,
            self.gather,
        )

    loss_and_grad = gradient_caching.loss_and_grad


def _check_method(n_groups: int, method: str) -> None:
    if method not in get_args(Method):
        known = ", ".join(f'"{name}"' for name in get_args(Method))
        raise ValueError(f"method must be one of {known}, got {method!r}")
    if n_groups < 1:
        raise ValueError(f"n_groups must be >= 1, got {n_groups}")


def _instances(
    instances: Sequence[Tensor], like: Tensor, held: Sequence[Tensor] | None
) -> list[Tensor]:
    """Rows that count, as they are but in one precision, float32 at least."""
    named = [(f"instances[{index}]", rows) for index, rows in enumerate(instances)]
    masks = None if held is None else [held[0]] * (1 + len(named))
    check_batch([("image", like), *named], masks, directions=False)
    own = [rows if held is None else rows[held[0]] for rows in instances]
    wide = any(rows.dtype == torch.float64 for rows in own)
    return [rows.double() if wide else rows.float() for rows in own]


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

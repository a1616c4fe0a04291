"""k-means and its relatives on the rows of one batch, deterministic, by products.

Distances come from one product of rows and centres an iteration, and new centres from
one product of memberships and rows: no array of rows by groups by features.

References
----------
Lloyd (1982) Least squares quantization in PCM. IEEE Trans. Inf. Theory 28:129-137.
Shi & Malik (2000) Normalized cuts and image segmentation. IEEE PAMI 22:888-905.
Caron et al. (2020) Unsupervised learning of visual features by contrasting cluster
assignments (SwAV). NeurIPS (balanced assignment by Sinkhorn and Knopp's algorithm).
"""

from typing import Any

import torch
from torch import Tensor

from neuromm.kernels import gpu_groups
from neuromm.kernels.arrays import runs_kernels

__all__ = [
    "balanced_groups",
    "batch_kmeans",
    "group_means",
    "plain_kmeans",
    "spectral_groups",
]


def batch_kmeans(
    rows: Tensor, centres: Tensor, n_iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm, for a fixed number of iterations.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_features)
    centres : tensor of shape (n_groups, n_features)
        To start from.
    n_iterations : int
        At least 1.

    Returns
    -------
    labels : tensor of int of shape (n_samples,)
        Nearest centre in the last iteration, the first of equals.
    centres : tensor of shape (n_groups, n_features)
        Means of the rows with these labels; zero where a group is empty. An empty
        group stays in the game with its zero centre.
    """
    labels = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    for _ in range(_checked(n_iterations)):
        labels = _nearest(rows, centres)
        centres = group_means(rows, labels, len(centres))
    return labels, centres


def plain_kmeans(
    rows: Tensor, centres: Tensor, n_iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """`batch_kmeans` by its definition in float64, distance by distance."""
    rows, centres = rows.double(), centres.double().clone()
    labels = torch.zeros(len(rows), dtype=torch.long)
    for _ in range(_checked(n_iterations)):
        for index, row in enumerate(rows):
            distances = [float((row - centre).square().sum()) for centre in centres]
            labels[index] = distances.index(min(distances))
        for group in range(len(centres)):
            members = rows[labels == group]
            centres[group] = members.sum(dim=0) / max(1, len(members))
    return labels, centres


def group_means(rows: Tensor, labels: Tensor, n_groups: int) -> Tensor:
    """Mean row of each group, zero where it is empty; gradients reach the rows."""
    if runs_kernels(rows):
        means: Tensor = _MeansByKernel.apply(rows, labels, n_groups)
        return means
    # A product, as scattered additions have no fixed order on a GPU.
    member = torch.nn.functional.one_hot(labels, n_groups).to(rows.dtype)
    return (member.T @ rows) / member.sum(dim=0).clamp_min(1)[:, None]


def spectral_groups(rows: Tensor, n_groups: int, n_iterations: int = 10) -> Tensor:
    """Labels by the normalised cut of the absolute cosines.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_features)
        Rows of norm 1.
    n_groups : int
        Groups, and eigenvectors that tell them apart.
    n_iterations : int
        Of the k-means on the eigenvectors, from those of the first rows.

    Returns
    -------
    labels : tensor of int of shape (n_samples,)

    Notes
    -----
    Solves (D - A) y = e D y for A = abs(rows @ rows.T) and its row sums D. A matrix of
    n_samples x n_samples and its decomposition are unavoidable here: this is for
    batches of some thousand at most.
    """
    affinity = (rows @ rows.T).abs()
    root = affinity.sum(dim=1).rsqrt()
    balanced = root[:, None] * affinity * root
    # Ascending: the last vectors belong to the smallest cut.
    vectors = torch.linalg.eigh(balanced)[1][:, -n_groups:]
    embedded = root[:, None] * vectors
    return batch_kmeans(embedded, embedded[:n_groups], n_iterations)[0]


def balanced_groups(
    rows: Tensor,
    centres: Tensor,
    n_iterations: int = 10,
    smoothness: float = 0.05,
    n_balancings: int = 3,
) -> Tensor:
    """Labels by k-means on the sphere whose assignments are balanced over groups.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_features)
        Rows of norm 1.
    centres : tensor of shape (n_groups, n_features)
        To start from.
    n_iterations : int
        Assignments, each followed by new centres.
    smoothness : float
        Of the transport plan exp(cosine / smoothness), as in SwAV.
    n_balancings : int
        Rescalings of columns and rows in each assignment, as in SwAV. Three bring
        groups near equal size, not to it.

    Returns
    -------
    labels : tensor of int of shape (n_samples,)
    """
    labels = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    for _ in range(_checked(n_iterations)):
        directions = torch.nn.functional.normalize(centres)
        plan = (rows @ directions.T) / smoothness  # a logarithm: never underflows
        for _ in range(n_balancings):
            plan = plan - plan.logsumexp(dim=0, keepdim=True)
            plan = plan - plan.logsumexp(dim=1, keepdim=True)
        labels = plan.argmax(dim=1)
        centres = group_means(rows, labels, len(centres))
    return labels


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    if runs_kernels(rows):
        labels: Tensor = gpu_groups.nearest_centres(rows, centres)
        return labels
    # |x - c|^2 less |x|^2, which is the same for all centres.
    distance = torch.addmm(centres.square().sum(dim=1), rows, centres.T, alpha=-2)
    return distance.argmin(dim=1)


class _MeansByKernel(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, rows: Tensor, labels: Tensor, n_groups: int) -> Tensor:
        means, sizes = gpu_groups.member_means(rows, labels, n_groups)
        ctx.save_for_backward(labels, sizes)
        return means

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        labels, sizes = ctx.saved_tensors
        return (grad / sizes.clamp_min(1)[:, None])[labels], None, None


def _checked(n_iterations: int) -> int:
    if n_iterations < 1:
        raise ValueError(f"n_iterations must be >= 1, got {n_iterations}")
    return n_iterations

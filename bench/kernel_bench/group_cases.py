"""Kernels of groups of rows: volumes with several modalities, and k-means of a batch.

The launchers make the products of matrices that kernels take, tile by tile, so that
most of these cases have products within what is timed.
"""

import torch

from kernel_bench.case import Case
from kernel_bench.contrastive_cases import ROUNDING, SCALE
from neuromm.kernels import gpu_groups, gpu_volume
from neuromm.kernels.gpu_volume import SlopeWeights, Volumes

_FLOOR = 1e-6 * SCALE**2


def _volumes(draw, n_samples, n_features, n_others):
    """What follows from unit rows, in the unit of 1 / scale of the losses."""
    anchor = draw.unit(n_samples, n_features)
    others = draw.unit(n_samples, n_features, n_others).mT
    others = torch.nn.functional.normalize(others, dim=-1)
    axes, triangle = torch.linalg.qr(others.mT)
    roots = SCALE * triangle.diagonal(dim1=1, dim2=2).prod(dim=1).abs()
    axes = (axes * roots[:, None, None]).permute(2, 0, 1).contiguous()
    matched = roots**2 - torch.einsum("nd,mnd->mn", anchor, axes).square().sum(dim=0)
    return {
        "anchor": anchor,
        "axes": axes,
        "determinant": roots**2,
        "matched": matched.clamp_min(0),
    }


def _given(anchor, axes, determinant, matched):
    return Volumes(anchor, axes, determinant, matched, _FLOOR, SCALE / 2)


def _volume_sums(**made):
    return gpu_volume.log_sums(_given(**made), with_sums=True)


def _squared(anchor, axes, determinant, matched):
    """Squared volumes of all pairs, and products of anchors and axes."""
    products = anchor @ axes.mT
    squared = determinant - products.square().sum(dim=0)
    squared.diagonal().copy_(matched)
    return squared, products


def _plain_volume_sums(**made):
    squared, _ = _squared(**made)
    volumes = squared.clamp_min(_FLOOR).sqrt()
    return (-volumes).logsumexp(1), (-volumes).logsumexp(0), volumes.sum(1)


def _volumes_with_weights(draw, n_samples, n_features, n_others):
    made = _volumes(draw, n_samples, n_features, n_others)
    rows, columns, _ = gpu_volume.log_sums(_given(**made), with_sums=False)
    grads = draw.normal(4, n_samples) / n_samples
    logs = [one.float() for one in (rows, columns)]
    shift = SCALE / 2
    weights = [
        -0.5 * g * (-shift - one).exp() for g, one in zip(grads, logs, strict=False)
    ]
    return made | {"weights": (*weights, grads[2], grads[3], *logs)}


def _moments(weights, **made):
    return gpu_volume.moments(_given(**made), SlopeWeights(*weights), with_scale=True)


def _plain_moments(weights, **made):
    rows, columns, sums, own, _, _ = weights
    squared, products = _squared(**made)
    volumes = squared.clamp_min(_FLOOR).sqrt()
    slopes = (rows[:, None] + columns) * (SCALE / 2 - volumes).exp()
    of_scale = 2 * (slopes * volumes).sum(dtype=torch.float64)
    slopes += sums[:, None]
    slopes.diagonal().add_(own)
    slopes = torch.where(squared > _FLOOR, slopes / volumes, 0)
    heights = (slopes * squared).sum(dim=0, dtype=torch.float64)
    products *= slopes
    grad_anchor = -2 * (products @ made["axes"]).sum(dim=0)
    return grad_anchor, products.mT @ made["anchor"], heights, of_scale


def _rows(draw, n_samples, n_features, n_groups):
    rows = draw.unit(n_samples, n_features)
    return {"rows": rows, "centres": draw.unit(n_groups, n_features)}


def _nearest(rows, centres):
    return (gpu_groups.nearest_centres(rows, centres),)


def _plain_nearest(rows, centres):
    squares = centres.square().sum(dim=1)
    return (torch.addmm(squares, rows, centres.T, alpha=-2).argmin(dim=1),)


def _distances(inputs, labels):
    """Distance of each row to the centre that was chosen: labels may be a tie."""
    rows, centres = (inputs[name].double() for name in ("rows", "centres"))
    return ((rows - centres[labels]).square().sum(dim=1),)


def _members(draw, n_samples, n_features, n_groups):
    labels = draw.place(draw.host.integers(n_groups, size=n_samples))
    rows = draw.normal(n_samples, n_features)
    return {"rows": rows, "labels": labels, "n_groups": n_groups}


def _plain_means(rows, labels, n_groups):
    member = torch.nn.functional.one_hot(labels, n_groups).to(rows.dtype)
    sizes = member.sum(dim=0)
    return (member.T @ rows) / sizes.clamp_min(1)[:, None], sizes


_VOLUMES = "{n_samples} samples of {n_features} features, {n_others} others, "
_ROWS = "{n_samples} rows of {n_features} features, {n_groups} groups, "
_SMALL_VOLUMES = {"n_samples": 131, "n_features": 9, "n_others": 2}
_SMALL_ROWS = {"n_samples": 131, "n_features": 33, "n_groups": 5}

CASES = (
    Case(
        ("contrastive/volume.cu",),
        _VOLUMES + "sums",
        {"n_samples": 4096, "n_features": 256, "n_others": 3},
        _SMALL_VOLUMES,
        _volumes,
        _volume_sums,
        _plain_volume_sums,
        None,
        floor=ROUNDING,
        libraries=("torch",),
    ),
    Case(
        ("contrastive/volume.cu",),
        _VOLUMES + "slopes",
        {"n_samples": 4096, "n_features": 256, "n_others": 3},
        _SMALL_VOLUMES,
        _volumes_with_weights,
        _moments,
        _plain_moments,
        None,
        floor=ROUNDING,
        libraries=("torch",),
    ),
    Case(
        ("contrastive/assign.cu",),
        _ROWS + "nearest",
        {"n_samples": 65_536, "n_features": 512, "n_groups": 18},
        _SMALL_ROWS,
        _rows,
        _nearest,
        _plain_nearest,
        None,
        libraries=("torch",),
        seen=_distances,
    ),
    Case(
        ("contrastive/assign.cu",),
        _ROWS + "means",
        {"n_samples": 65_536, "n_features": 512, "n_groups": 18},
        _SMALL_ROWS,
        _members,
        gpu_groups.member_means,
        _plain_means,
        lambda n_samples, n_features, n_groups: 4 * n_samples * (n_features + 2),
        libraries=("torch",),
    ),
)

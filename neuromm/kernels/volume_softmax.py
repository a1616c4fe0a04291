"""Volumes spanned by a row and a group of rows, and the softmax over them, by tiles.

The volume of the parallelotope of a unit vector l and vectors o_1 … o_k is
sqrt(det(M) (1 - sum_m (q_m . l)^2)), where M is the Gram matrix of the o and the q are
an orthonormal basis of their span: k ordinary products of all rows, and no determinant
of k + 1 vectors for each pair.

References
----------
Cicchetti et al. (2025) Gramian multimodal representation learning and alignment.
ICLR, arXiv 2412.11959 (the volume; the rewriting is ours).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuromm.kernels import gpu_volume
from neuromm.kernels.arrays import is_on_gpu, runs_kernels
from neuromm.kernels.tiling import full_precision, panels, tiles

__all__ = ["SQUARED_FLOOR", "matched_volumes", "pair_volumes", "volume_normalisers"]

# Squared volumes below are raised to it and have gradient 0, as the square root is
# infinitely steep at 0.
SQUARED_FLOOR = 1e-6

_LARGEST_EXPONENT = 60.0  # sums of 2**30 such terms, and one over them, are float32
# A GPU is slowed by many small batches, not by what leaves its cache.
_GPU_PANEL_BYTES = 2**28
_TILE = 128, 512  # about eight are held at a time, in the cache of a core


def volume_normalisers(
    anchor: Tensor, others: Tensor, scale: Tensor, *, with_sums: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-sum-exp of -scale * volume over rows and columns, and what is left to know.

    Parameters
    ----------
    anchor : tensor of shape (n_samples, n_features)
        Rows of norm 1. The gradient is that along the sphere, plus a part along the
        row that normalising removes.
    others : tensor of shape (n_others, n_samples, n_features)
        Rows of norm 1; n_others < n_features.
    scale : tensor of shape ()
        Inverse temperature.
    with_sums : bool
        False leaves ``row_sums`` at 0.

    Returns
    -------
    rows, columns : tensors of shape (n_samples,)
        log sum_j exp(-scale V_ij), and log sum_i. V_ij is the volume of anchor i and
        the others of sample j.
    row_sums : tensor of shape (n_samples,)
        sum_j V_ij.
    matched : tensor of shape (n_samples,)
        V_ii, from residuals, which are exact where 1 - sum s^2 cancels.

    Notes
    -----
    With G_ij the gradient of V_ij^2 and s_ij = Q_j' l_i, anchor i has the gradient
    -2 sum_j G_ij D_j Q_j s_ij, and the others of j 2 D_j [e_j Q_j - H_j + Q_j Q_j' H_j]
    R_j^-T, with D_j = det(M_j), H_j = sum_i G_ij l_i s_ij' and e_j the sum over i of
    G_ij (1 - |s_ij|^2). Nothing passes through the QR decomposition.
    """
    rows, columns, row_sums, matched = _VolumeNormalisers.apply(
        anchor, others, scale, with_sums
    )
    return rows, columns, row_sums, matched


def matched_volumes(anchor: Tensor, others: Tensor) -> Tensor:
    """Volume of each anchor and the others of the same sample, (n_samples,)."""
    with full_precision(anchor.device):
        spans = _spans(others)
        squared = spans.determinant * _residual(anchor, spans)
    return squared.clamp_min(SQUARED_FLOOR).sqrt()


def pair_volumes(anchor: Tensor, others: Tensor) -> Tensor:
    """Volume of each anchor and the others of each sample, (n_anchors, n_samples)."""
    volumes = anchor.new_empty((len(anchor), others.shape[1]))
    with full_precision(anchor.device):
        spans = _spans(others)
        for part, other in tiles(len(anchor), others.shape[1], _TILE):
            _, squared = _squared(anchor, spans, part, other)
            volumes[part, other] = squared.clamp_min_(SQUARED_FLOOR).sqrt_()
    return volumes


@dataclass(frozen=True)
class _Spans:
    """The span of each sample's others: o_jm = sum_n q_jn triangle_jnm.

    Volumes are in a unit of 1 / scale. The axes are q_jn, of norm 1, times the root of
    the determinant: squared volumes are the determinant less the squared products with
    them.
    """

    axes: Tensor  # (n_others, n_samples, n_features)
    triangle: Tensor  # (n_samples, n_others, n_others), upper, without scale
    determinant: Tensor  # (n_samples,) of the Gram matrix, times scale^2
    scale: float

    @property
    def floor(self) -> float:
        """Least squared volume."""
        return SQUARED_FLOOR * self.scale**2

    @property
    def shift(self) -> float | None:
        """Shift of all exponents, None if terms would leave the range of float32.

        Volumes in units of the temperature are logits, up to their sign, between 0 and
        1 / temperature: shifted by the half of that, none is lost, but at temperatures
        that are lower than any in use.
        """
        shift = self.scale / 2
        return shift if shift <= _LARGEST_EXPONENT else None


def _spans(others: Tensor, scale: float = 1.0) -> _Spans:
    n_others, n_samples, _ = others.shape
    axes = torch.empty_like(others, memory_format=torch.contiguous_format)
    triangle = others.new_empty((n_samples, n_others, n_others))
    for part in _panels(others):
        q, triangle[part] = torch.linalg.qr(others[:, part].permute(1, 2, 0))
        axes[:, part] = q.permute(2, 0, 1)
    root = triangle.diagonal(dim1=1, dim2=2).prod(dim=1).abs_().mul_(scale)
    return _Spans(axes.mul_(root[:, None]), triangle, root.square(), scale)


def _panels(others: Tensor) -> Iterator[slice]:
    """Samples whose bases are found together."""
    n_others, n_samples, n_features = others.shape
    n_bytes = _GPU_PANEL_BYTES if is_on_gpu(others) else None
    return panels(n_samples, n_others * n_features, others.element_size(), n_bytes)


def _residual(anchor: Tensor, spans: _Spans) -> Tensor:
    """Squared distance of each anchor from the span of the others of its sample."""
    rest = anchor
    squared = spans.determinant.clamp_min(torch.finfo(anchor.dtype).tiny)[:, None]
    for axis in spans.axes:
        along = (axis * anchor).sum(dim=1, keepdim=True) / squared
        rest = rest - along * axis
    return rest.square().sum(dim=1)


def _squared(
    anchor: Tensor, spans: _Spans, part: slice, other: slice
) -> tuple[list[Tensor], Tensor]:
    """Products with each axis, and the squared volumes, of anchors by samples."""
    products = [anchor[part] @ axis[other].T for axis in spans.axes]
    squared = spans.determinant[other].expand_as(products[0])
    squared = torch.addcmul(squared, products[0], products[0], value=-1)
    for product in products[1:]:
        squared.addcmul_(product, product, value=-1)
    return products, squared


def _own(part: slice, other: slice) -> tuple[slice, slice, slice]:
    """Samples of which rows and columns of a tile hold the match, and its places."""
    same = slice(max(part.start, other.start), min(part.stop, other.stop))
    if same.start >= same.stop:
        return slice(0), slice(0), slice(0)
    rows = slice(same.start - part.start, same.stop - part.start)
    return same, rows, slice(same.start - other.start, same.stop - other.start)


def _log_sums(
    anchor: Tensor, spans: _Spans, matched: Tensor, with_sums: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exp of minus the volumes over rows and columns, and sums of rows."""
    n_samples, shift = len(anchor), spans.shift
    row_sums = anchor.new_zeros(n_samples)
    start = -torch.inf if shift is None else 0
    rows, columns = anchor.new_full((2, n_samples), start)
    for part, other in tiles(n_samples, n_samples, _TILE):
        _, squared = _squared(anchor, spans, part, other)
        same, i, j = _own(part, other)
        squared[i, j].diagonal().copy_(matched[same])
        volume = squared.clamp_min_(spans.floor).sqrt_()
        if with_sums:
            row_sums[part] += volume.sum(dim=1)
        if shift is None:
            logits = volume.neg_()
            rows[part] = rows[part].logaddexp(logits.logsumexp(dim=1))
            columns[other] = columns[other].logaddexp(logits.logsumexp(dim=0))
        else:
            terms = torch.sub(shift, volume, out=volume).exp_()
            rows[part] += terms.sum(dim=1)
            columns[other] += terms.sum(dim=0)
    if shift is not None:
        rows, columns = rows.log().sub_(shift), columns.log().sub_(shift)
    return rows, columns, row_sums


def _log_sums_by_kernel(
    anchor: Tensor, spans: _Spans, matched: Tensor, with_sums: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_log_sums`, in one pass over the products."""
    volumes = _volumes_on_gpu(anchor, spans, matched)
    rows, columns, sums = gpu_volume.log_sums(volumes, with_sums=with_sums)
    return rows.to(anchor), columns.to(anchor), sums.to(anchor)


def _volumes_on_gpu(
    anchor: Tensor, spans: _Spans, matched: Tensor
) -> gpu_volume.Volumes:
    return gpu_volume.Volumes(
        anchor, spans.axes, spans.determinant, matched, spans.floor, spans.shift
    )


class _VolumeNormalisers(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, others: Tensor, scale: Tensor, with_sums: bool
    ) -> Any:
        with full_precision(anchor.device):
            spans = _spans(others, float(scale))
            matched = spans.determinant * _residual(anchor, spans)
            log_sums = _log_sums_by_kernel if runs_kernels(anchor) else _log_sums
            rows, columns, row_sums = log_sums(anchor, spans, matched, with_sums)
        ctx.save_for_backward(
            anchor, spans.axes, spans.triangle, spans.determinant, scale, rows,
            columns, matched,
        )  # fmt: skip
        own = matched.clamp_min(spans.floor).sqrt_().div_(spans.scale)
        return rows, columns, row_sums.div_(spans.scale), own

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, of_rows: Tensor, of_columns: Tensor, of_sums: Tensor, of_own: Tensor
    ) -> Any:
        anchor, axes, triangle, determinant, scale = ctx.saved_tensors[:5]
        rows, columns, matched = ctx.saved_tensors[5:]
        spans = _Spans(axes, triangle, determinant, float(scale))
        of_sums, of_own = of_sums / spans.scale, of_own / spans.scale
        gradients = _Gradients(of_rows, of_columns, of_sums, of_own)
        with full_precision(anchor.device):
            moments_of = _moments_by_kernel if runs_kernels(anchor) else _moments
            grad_anchor, moments, heights, of_scale = moments_of(
                anchor, spans, matched, rows, columns, gradients,
                with_scale=ctx.needs_input_grad[2],
            )  # fmt: skip
            grad_others = _grad_of_others(spans, moments, heights)
        grad_scale = None
        if of_scale is not None:
            grad_scale = of_scale.div_(spans.scale).to(scale)
        return grad_anchor, grad_others, grad_scale, None


class _Gradients(NamedTuple):
    """Of what `volume_normalisers` returns, sums and own volumes in units of spans."""

    rows: Tensor
    columns: Tensor
    sums: Tensor
    own: Tensor


def _moments(
    anchor: Tensor,
    spans: _Spans,
    matched: Tensor,
    rows: Tensor,
    columns: Tensor,
    grad: _Gradients,
    *,
    with_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradient of the anchor, D_j H_j and D_j e_j of each sample.

    And, if asked for, the gradient of the logits times the volumes, in units of spans.
    """
    grad_anchor, moments = torch.zeros_like(anchor), torch.zeros_like(spans.axes)
    heights = torch.zeros_like(spans.determinant)
    of_scale = anchor.new_zeros(()) if with_scale else None
    has_sums = bool(grad.sums.any())
    slopes = _Slopes(spans.shift, rows, columns, grad)
    for part, other in tiles(len(anchor), len(anchor), _TILE):
        products, squared = _squared(anchor, spans, part, other)
        same, i, j = _own(part, other)
        squared[i, j].diagonal().copy_(matched[same])
        volume = squared.clamp_min(spans.floor).sqrt_()
        slope = slopes.of(volume, part, other)
        if of_scale is not None:
            of_scale += torch.linalg.vecdot(slope, volume).sum().mul_(2)
        if has_sums:
            slope.add_(grad.sums[part, None], alpha=0.5)
        slope[i, j].diagonal().add_(grad.own[same], alpha=0.5)
        # From V to V^2, with sub-gradient 0 at the floor.
        slope.div_(volume)
        if float(squared.min()) <= spans.floor:
            slope.masked_fill_(squared <= spans.floor, 0)
        heights[other] += torch.mul(slope, squared, out=squared).sum(dim=0)
        for product, axis, moment in zip(products, spans.axes, moments, strict=True):
            product.mul_(slope)
            grad_anchor[part].addmm_(product, axis[other], alpha=-2)
            moment[other].addmm_(product.T, anchor[part])
    moments.mul_(spans.determinant.sqrt()[:, None])
    return grad_anchor, moments, heights, of_scale


class _Slopes:
    """Half the gradient of the volumes of a tile, by the softmax of rows and columns.

    With a shift that no logit is lost by, one exponential a pair serves both.
    """

    def __init__(
        self, shift: float | None, rows: Tensor, columns: Tensor, grad: _Gradients
    ) -> None:
        self._shift = shift
        self.logs = rows, columns
        self.rows, self.columns = grad.rows * -0.5, grad.columns * -0.5
        if shift is not None:
            self.rows = self.rows.mul_((rows + shift).neg_().exp_())
            self.columns = self.columns.mul_((columns + shift).neg_().exp_())

    def of(self, volume: Tensor, part: slice, other: slice) -> Tensor:
        """Tile of the same shape as ``volume``."""
        if self._shift is not None:
            weight = self.rows[part, None] + self.columns[other]
            return weight.mul_(torch.sub(self._shift, volume).exp_())
        rows, columns = self.logs
        slope = (-rows[part, None] - volume).exp_().mul_(self.rows[part, None])
        of_column = (-columns[other] - volume).exp_()
        return slope.addcmul_(of_column, self.columns[other])


def _moments_by_kernel(
    anchor: Tensor,
    spans: _Spans,
    matched: Tensor,
    rows: Tensor,
    columns: Tensor,
    grad: _Gradients,
    *,
    with_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `_moments`, in one pass over the products between the matrix products."""
    slopes = _Slopes(spans.shift, rows, columns, grad)
    grad_anchor, moments, heights, of_scale = gpu_volume.moments(
        _volumes_on_gpu(anchor, spans, matched),
        gpu_volume.SlopeWeights(
            slopes.rows, slopes.columns, grad.sums * 0.5, grad.own * 0.5, *slopes.logs
        ),
        with_scale=with_scale,
    )
    moments.mul_(spans.determinant.sqrt()[:, None])
    return grad_anchor, moments, heights.to(anchor), of_scale


def _grad_of_others(spans: _Spans, moments: Tensor, heights: Tensor) -> Tensor:
    """Gradient of the others, which takes the place of ``moments``.

    ``moments`` holds D_j H_j, ``heights`` D_j e_j. A sample whose others span next to
    nothing has all its volumes at the floor, and gradient 0.
    """
    triangle = spans.triangle
    tiny = torch.finfo(triangle.dtype).tiny
    root = spans.determinant.clamp_min(tiny).sqrt()
    flat = spans.determinant <= spans.floor
    for part in _panels(moments):
        q = (spans.axes[:, part] / root[part, None]).permute(1, 2, 0)
        h = moments[:, part].permute(1, 2, 0)
        upper = triangle[part]
        upper = torch.where(
            flat[part, None, None],
            torch.eye(upper.shape[1], dtype=upper.dtype, device=upper.device),
            upper,
        )
        own = q.mT @ h
        own.diagonal(dim1=1, dim2=2).add_(heights[part, None])
        # X R^-T: solve X R' = inner, with R' lower triangular on the right.
        solved = torch.linalg.solve_triangular(
            upper.mT, (q @ own).sub_(h), upper=False, left=False
        ).mul_(2)
        solved.masked_fill_(flat[part, None, None], 0)
        moments[:, part] = solved.permute(2, 0, 1)
    return moments

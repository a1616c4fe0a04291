"""Log-sum-exp of all products of two sets, and its gradients, by kernels on a GPU.

What `neuromm.kernels.pair_tiles` defines, with the products left to cuBLAS and what
happens to them to the kernels of `neuromm.kernels.gpu_pairs`. Which path is taken
depends on sizes alone and on numbers that stay on the device: the host waits for none.

Up to 4096 rows a side, the products are made once and kept, and one launch gives the
sums. Beyond, products are made by tiles, and again in the backward.

Rows of half precision enter the products as they are, at the rate of tensor cores, and
are summed in float32. Statistics are of float32. Slopes are rounded to half precision,
after positives were subtracted, for the two products that make gradients of them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuromm.kernels import gpu_pairs
from neuromm.kernels.gpu_pairs import (
    COUNTS,
    LOG_SUMS,
    POSITIVES,
    Pairs,
    PairTotals,
    Side,
    Upstream,
)
from neuromm.kernels.tiling import full_precision, tiles

__all__ = ["HalfRows", "PairSums", "half_rows", "pair_sums"]

_SMALL_ROWS = 4096  # 64 MB of products are kept
_TILE = (2048, 4096)  # 32 MB of products stay in the cache of a large GPU
# A slope times the gain is at most this; float16 ends at 65504.
_LARGEST_SLOPE = 2.0**14


class HalfRows(NamedTuple):
    """Rows of half precision and what makes them unit rows.

    Attributes
    ----------
    rows : tensor of shape (n_rows, n_features)
    inverse_lengths : tensor of shape (n_rows,), float32
    """

    rows: Tensor
    inverse_lengths: Tensor


class PairSums(NamedTuple):
    """Of each row or each column: log-sum-exp, sum of cosines of positives, number.

    The last two are empty where no pairs match.
    """

    log_sums: Tensor
    positives: Tensor
    counts: Tensor


@dataclass(frozen=True)
class _Setting:
    """What is no subject of a derivative."""

    matching: str
    labels: tuple[Tensor | None, Tensor | None]
    present: tuple[Tensor | None, Tensor | None]
    halves: tuple[HalfRows, HalfRows] | None

    def pairs(self, factor: Tensor) -> Pairs:
        lengths = [None, None] if self.halves is None else [h[1] for h in self.halves]
        left, right = (
            Side(*known)
            for known in zip(lengths, self.labels, self.present, strict=True)
        )
        return Pairs(factor, left, right, self.matching)


def half_rows(rows: Tensor) -> HalfRows:
    """Rows of half precision times powers of 2, so that no product overflows.

    Products of these rows, which are exact, are those of unit rows times their lengths.
    """
    wide = rows.detach().float()
    exponent = torch.frexp(wide.abs().amax(dim=1)).exponent
    wide = torch.ldexp(wide, -exponent[:, None])
    return HalfRows(wide.to(rows.dtype), 1 / wide.norm(dim=1))


def pair_sums(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    matching: str = "none",
    labels: tuple[Tensor | None, Tensor | None] = (None, None),
    present: tuple[Tensor | None, Tensor | None] = (None, None),
    halves: tuple[HalfRows, HalfRows] | None = None,
) -> tuple[PairSums, PairSums]:
    """Sums of rows and columns of all pairs, with gradients.

    Parameters
    ----------
    left, right : tensors of shape (n_left, n_features) and (n_right, n_features)
        Of float32, on a CUDA device.
    scale : tensor of shape ()
        Inverse temperature.
    matching : {"none", "place", "label"}
        Which pairs are positives: none, row i and column i, or those of equal labels.
    labels : tuple of two tensors of int, optional
    present : tuple of two tensors of bool, optional
        Rows that are there. Others have log-sum-exp -inf, no positives and gradients of
        zero; they must be finite.
    halves : tuple of two HalfRows, optional
        The same rows in half precision, whose products are taken instead. Then ``left``
        and ``right`` are unit rows.

    Returns
    -------
    rows, columns : PairSums
    """
    setting = _Setting(matching, labels, present, halves)
    found = _GpuPairSums.apply(left, right, scale, setting)
    return PairSums(*found[:3]), PairSums(*found[3:])


class _GpuPairSums(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, scale: Tensor, setting: _Setting
    ) -> Any:
        factor = scale.to(left)
        pairs = setting.pairs(factor)
        used = _used(left, right, setting)
        with full_precision(left.device):
            if _is_small(left, right):
                kept = _products(*used)
                bound = torch.full_like(factor, torch.inf)
                results = gpu_pairs.small_pair_sums(kept, pairs)
            else:
                kept = None
                longest = left.norm(dim=1).amax() * right.norm(dim=1).amax()
                bound = factor.abs() * longest
                totals = PairTotals(len(left), len(right), pairs, bound)
                for part, other in tiles(len(left), len(right), _TILE):
                    tile = _products(used[0][part], used[1][other])
                    totals.add(tile, part.start, other.start)
                results = totals.rows, totals.columns
        ctx.setting = setting
        ctx.save_for_backward(left, right, scale, bound, *results, kept)
        outputs: list[Tensor] = []
        for one in results:
            outputs.append(one[LOG_SUMS].clone())
            lines = () if setting.matching == "none" else (POSITIVES, COUNTS)
            outputs += [one[line].clone() for line in lines] or [
                one.new_empty(0),
                one.new_empty(0),
            ]
        ctx.mark_non_differentiable(outputs[2], outputs[5])
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> Any:
        left, right, scale, bound, rows, columns, kept = ctx.saved_tensors
        setting = ctx.setting
        factor = scale.to(left)
        upstream = Upstream(grads[0], grads[3])
        if setting.matching != "none":
            upstream = Upstream(grads[0], grads[3], grads[1], grads[4])
        used = _used(left, right, setting)
        gain = None if setting.halves is None else _gain(upstream, factor)
        slopes = _Slopes(setting.pairs(factor), bound, (rows, columns), upstream, gain)
        with full_precision(left.device):
            if kept is None:
                of_left, of_right = _gradients_by_tiles(*used, slopes)
            else:  # a second backward needs the products again
                tile = slopes(kept, (0, 0), used[0].dtype, in_place=False)
                of_left, of_right = _product(tile, used[1]), _product(tile.T, used[0])
            if setting.halves is not None:
                for grad, half in zip((of_left, of_right), setting.halves, strict=True):
                    grad.div_(half.inverse_lengths[:, None] * gain)
            of_scale = None
            if ctx.needs_input_grad[2]:
                of_scale = _scale_slope(left, of_left, rows, columns, upstream)
                of_scale = (of_scale / factor).to(scale)
        return of_left, of_right, of_scale, None


@dataclass(frozen=True)
class _Slopes:
    """Slopes of tiles in the precision of the rows that they multiply."""

    pairs: Pairs
    bound: Tensor
    results: tuple[Tensor, Tensor]
    upstream: Upstream
    gain: Tensor | None

    def __call__(
        self,
        tile: Tensor,
        first: tuple[int, int],
        dtype: torch.dtype,
        in_place: bool = True,
    ) -> Tensor:
        """Slopes of a tile that starts at ``first``, in place if precisions allow."""
        out = None
        if dtype != torch.float32:
            out = torch.empty(tile.shape, dtype=torch.int16, device=tile.device)
        elif not in_place:
            out = torch.empty_like(tile)
        name = str(dtype).rpartition(".")[2]
        slopes: Tensor = gpu_pairs.pair_slopes(
            tile, self.pairs, self.bound, self.results, self.upstream, first,
            out, name, self.gain,
        )  # fmt: skip
        return slopes.view(dtype)


def _is_small(left: Tensor, right: Tensor) -> bool:
    return max(len(left), len(right)) <= _SMALL_ROWS


def _used(left: Tensor, right: Tensor, setting: _Setting) -> tuple[Tensor, Tensor]:
    """Rows whose products are taken."""
    if setting.halves is None:
        return left, right
    return setting.halves[0].rows, setting.halves[1].rows


def _products(left: Tensor, right: Tensor) -> Tensor:
    """All products of rows, summed and given in float32."""
    return _product(left, right.T)


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # torch has no such product on a CPU


def _gradients_by_tiles(
    left: Tensor, right: Tensor, slopes: _Slopes
) -> tuple[Tensor, Tensor]:
    """Slopes times rows, of float32, for rows that make the products."""
    of_left = torch.zeros_like(left, dtype=torch.float32)
    of_right = torch.zeros_like(right, dtype=torch.float32)
    for part, other in tiles(len(left), len(right), _TILE):
        tile = _products(left[part], right[other])
        tile = slopes(tile, (part.start, other.start), left.dtype)
        _add_product(of_left[part], tile, right[other])
        _add_product(of_right[other], tile.T, left[part])
    return of_left, of_right


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total.add_(_product(left, right))


def _gain(upstream: Upstream, factor: Tensor) -> Tensor:
    """Factor that lets no slope leave the range of float16, and few underflow.

    A slope of unit rows is at most scale (grad_left + grad_right) plus shares, and
    inverse lengths are at most 2.
    """
    of_sums = sum(grad.abs().amax() for grad in upstream[:2])
    of_shares = sum(share.abs().amax() for share in upstream[2:] if share is not None)
    largest = 4 * (factor.abs() * of_sums + of_shares)
    return _LARGEST_SLOPE / largest.clamp_min(torch.finfo(torch.float32).tiny * 2**20)


def _scale_slope(
    left: Tensor, of_left: Tensor, rows: Tensor, columns: Tensor, upstream: Upstream
) -> Tensor:
    """Slope for the scale, times the scale: that of all logits, without positives.

    The gradient of a row, times the row, is the sum of its slopes times cosines.
    """
    total = torch.linalg.vecdot(left, of_left).sum(dtype=torch.float64)
    for share, results in zip(upstream[2:], (rows, columns), strict=True):
        if share is not None:
            total = total - (share * results[POSITIVES]).sum(dtype=torch.float64)
    return total

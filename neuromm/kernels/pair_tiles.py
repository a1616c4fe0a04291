"""Log-sum-exp of rows and of columns of all products of two sets, by tiles.

One exponential a logit serves both directions: with logits S = scale * left @ right.T
and one shift c for the whole matrix, e = exp(S - c) is summed along rows and along
columns. A tile is made, used and dropped, and made again in the backward, which is
written out by hand, so that memory grows with the rows and not with their square.

The shift is 0 while no logit can leave the range of the exponential, and leaves 50 nats
above otherwise. A row or column of which all terms underflow is found by its sum, and
everything is then done again by running maxima, at two exponentials a logit.

Where float32 rows lie on a GPU and CuPy is installed, kernels do this, see
`neuromm.kernels.gpu_pair_tiles`.

References
----------
Cheng et al. (2024) Breaking the memory barrier: near infinite batch size scaling for
contrastive loss. arXiv 2410.17243.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuromm.kernels import gpu_pair_tiles
from neuromm.kernels.arrays import runs_kernels
from neuromm.kernels.gpu_pair_tiles import PairSums
from neuromm.kernels.tiling import full_precision, tiles

__all__ = [
    "matched_log_sums",
    "pair_log_sums",
    "plain_log_sums",
    "plain_pair_sums",
    "takes_pair_kernels",
]

_KEPT_BYTES = 2**24  # one tile of this size is kept for the backward, not made again
# Largest exponent that is let through, in nats. Sums of 2**30 such terms, and one over
# them times the weight of a sample, are normal numbers.
_CEILING = {torch.float32: 50.0, torch.float64: 500.0}


def pair_log_sums(left: Tensor, right: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row and each column of scale * left @ right.T.

    Parameters
    ----------
    left : tensor of shape (n_left, n_features)
        Of float32 or float64.
    right : tensor of shape (n_right, n_features)
    scale : tensor of shape ()
        Inverse temperature.

    Returns
    -------
    rows : tensor of shape (n_left,)
    columns : tensor of shape (n_right,)
        In nats.

    Raises
    ------
    TypeError
        If the precision is another: statistics of half precision are of no use.

    Notes
    -----
    A second derivative is refused by torch: the backward is once differentiable.
    """
    if left.dtype not in _CEILING or right.dtype != left.dtype:
        raise TypeError(
            "left and right must both be float32 or float64, got "
            f"{left.dtype} and {right.dtype}: widen half precision first"
        )
    if takes_pair_kernels(left):
        by_row, by_column = gpu_pair_tiles.pair_sums(left, right, scale)
        return by_row.log_sums, by_column.log_sums
    rows, columns, _ = _PairLogSums.apply(left, right, scale, False)
    return rows, columns


def takes_pair_kernels(rows: Tensor) -> bool:
    """Tell whether kernels on a GPU take rows; float64 is left to the plain version."""
    return rows.dtype == torch.float32 and runs_kernels(rows)


def matched_log_sums(
    left: Tensor, right: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `pair_log_sums` of as many rows, and the product of each row with its match.

    Returns
    -------
    rows, columns : tensors of shape (n_rows,)
    matches : tensor of shape (n_rows,)
        Row i of left times row i of right, without the scale. Gradients are added to
        those of the sums in place, which saves two sets of rows.
    """
    if takes_pair_kernels(left):
        by_row, by_column = gpu_pair_tiles.pair_sums(left, right, scale, "place")
        return by_row.log_sums, by_column.log_sums, by_row.positives
    rows, columns, matches = _PairLogSums.apply(left, right, scale, True)
    return rows, columns, matches


def plain_log_sums(left: Tensor, right: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Definition of `pair_log_sums`: in float64, with the whole matrix."""
    logits = scale.double() * (left.double() @ right.double().T)
    return logits.logsumexp(dim=1), logits.logsumexp(dim=0)


def plain_pair_sums(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    same: Tensor | None = None,
    counted: Tensor | None = None,
) -> tuple[PairSums, PairSums]:
    """Definition of `gpu_pair_tiles.pair_sums`: in float64, with whole matrices.

    Parameters
    ----------
    left, right, scale : tensors
    same, counted : tensors of bool of shape (n_left, n_right), optional
        Pairs that are positives, none by default, and pairs that are there, by default
        all.

    Returns
    -------
    rows, columns : PairSums
    """
    cosines = left.double() @ right.double().T
    counted = torch.ones_like(cosines).bool() if counted is None else counted
    same = torch.zeros_like(counted) if same is None else same & counted
    logits = (scale.double() * cosines).masked_fill(~counted, -torch.inf)
    positives = cosines.masked_fill(~same, 0)
    rows, columns = (
        PairSums(logits.logsumexp(axis), positives.sum(axis), same.sum(axis))
        for axis in (1, 0)
    )
    return rows, columns


class _PairLogSums(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, scale: Tensor, matched: bool
    ) -> Any:
        factor = scale.to(left)
        with full_precision(left.device):
            matches = torch.linalg.vecdot(left, right) if matched else left.new_empty(0)
            shift = _shift(left, right, factor)
            rows, columns, kept = _fixed_shift_sums(left, right, factor, shift)
            # Nothing underflows without a shift. With one, the host reads the sums.
            ctx.safe = bool(shift) and _underflows(rows, columns)
            ctx.shift = shift
            if ctx.safe:
                kept = None
                rows, columns = _running_log_sums(left, right, factor)
        ctx.save_for_backward(left, right, scale, rows, columns, kept)
        ctx.matched = matched
        if ctx.safe:
            return rows.clone(), columns.clone(), matches
        return rows.log().add_(shift), columns.log().add_(shift), matches

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, grad_rows: Tensor, grad_columns: Tensor, grad_matches: Tensor
    ) -> Any:
        left, right, scale, rows, columns, kept = ctx.saved_tensors
        factor = scale.to(left)
        grad_left, grad_right = torch.zeros_like(left), torch.zeros_like(right)
        with full_precision(left.device):
            if not ctx.safe:
                of_rows, of_columns = grad_rows / rows, grad_columns / columns
            for part, other in tiles(len(left), len(right)):
                if ctx.safe:
                    logits = (left[part] * factor) @ right[other].T
                    slope = (logits - rows[part, None]).exp_()
                    slope.mul_(grad_rows[part, None])
                    logits.sub_(columns[other]).exp_()
                    slope.addcmul_(logits, grad_columns[other])
                else:
                    slope = of_rows[part, None] + of_columns[other]
                    slope.mul_(
                        _terms(left[part], right[other], factor, ctx.shift)
                        if kept is None
                        else kept[part, other]
                    )
                grad_left[part].addmm_(slope, right[other])
                grad_right[other].addmm_(slope.T, left[part])
            grad_scale = torch.linalg.vecdot(left, grad_left).sum().to(scale)
        grad_left.mul_(factor)
        grad_right.mul_(factor)
        if ctx.matched:
            grad_left.addcmul_(right, grad_matches[:, None])
            grad_right.addcmul_(left, grad_matches[:, None])
        return grad_left, grad_right, grad_scale, None


def _underflows(rows: Tensor, columns: Tensor) -> bool:
    """Tell whether a sum is so small that its terms, or one over it, are not normal."""
    floor = torch.finfo(rows.dtype).tiny / torch.finfo(rows.dtype).eps
    lowest = min(float(rows.min()) / len(columns), float(columns.min()))
    return not lowest > floor * len(rows)


def _shift(left: Tensor, right: Tensor, factor: Tensor) -> float:
    longest = left.norm(dim=1).max() * right.norm(dim=1).max()
    bound = float(factor.abs() * longest)
    return max(0.0, bound - _CEILING[left.dtype])


def _terms(left: Tensor, right: Tensor, factor: Tensor, shift: float) -> Tensor:
    logits = (left * factor) @ right.T
    if shift:
        logits.sub_(shift)
    return logits.exp_()


def _fixed_shift_sums(
    left: Tensor, right: Tensor, factor: Tensor, shift: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sums of exp(logit - shift), and the terms themselves if they are few."""
    rows, columns = left.new_zeros(len(left)), left.new_zeros(len(right))
    kept = None
    if len(left) * len(right) * left.element_size() <= _KEPT_BYTES:
        kept = left.new_empty((len(left), len(right)))
    for part, other in tiles(len(left), len(right)):
        terms = _terms(left[part], right[other], factor, shift)
        rows[part] += terms.sum(dim=1)
        columns[other] += terms.sum(dim=0)
        if kept is not None:
            kept[part, other] = terms
    return rows, columns, kept


def _running_log_sums(
    left: Tensor, right: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp by running maxima: right whatever the logits."""
    rows = left.new_full((len(left),), -torch.inf)
    columns = left.new_full((len(right),), -torch.inf)
    for part, other in tiles(len(left), len(right)):
        logits = (left[part] * factor) @ right[other].T
        rows[part] = torch.logaddexp(rows[part], logits.logsumexp(dim=1))
        columns[other] = torch.logaddexp(columns[other], logits.logsumexp(dim=0))
    return rows, columns

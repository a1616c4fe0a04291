"""What the losses ask of their rows: finite, of one shape, and with a direction."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuromm.kernels.tiling import full_precision

__all__ = [
    "check_batch",
    "checked_mask",
    "inverse_temperature",
    "no_loss",
    "unit_batch",
    "unit_rows",
    "widened",
]

Named = Sequence[tuple[str, Tensor]]


def check_batch(
    named: Named, masks: Sequence[Tensor] | None = None, directions: bool = True
) -> None:
    """Raise unless all are batches of rows of the same samples.

    Parameters
    ----------
    named : sequence of (str, tensor)
        Each of shape (n_samples, n_features), with the name that errors say.
    masks : sequence of tensors of bool of shape (n_samples,), optional
        One a tensor: rows that count. The values of others are not looked at.
    directions : bool
        Whether a row of zeros is an error.

    Raises
    ------
    TypeError
        If one is not a tensor of floating-point numbers.
    ValueError
        If shapes or devices differ, the batch is empty, or a row that counts is not
        finite or is zero: it has no direction, so no cosine.
    """
    first_name, first = named[0]
    for name, rows in named:
        _check_kind(name, rows)
        _check_match(first_name, first, name, rows)
    held = [None] * len(named) if masks is None else masks
    wrong = [
        _wrong_rows(rows, counted, directions)
        for (_, rows), counted in zip(named, held, strict=True)
    ]
    # All in one number, as the host waits for each that it reads from a GPU.
    if bool(torch.stack([(bad | zero).any() for bad, zero in wrong]).any()):
        for (name, _), (bad, zero) in zip(named, wrong, strict=True):
            _refuse_rows(name, bad, zero)


def checked_mask(mask: Tensor, name: str, rows: Tensor, n_columns: int = 1) -> Tensor:
    """Which sample has what, (n_samples, n_columns), by a mask of samples or of all.

    Raises
    ------
    TypeError, ValueError
        If the mask is not boolean, or is of other samples or columns than ``rows``,
        which errors call ``name``.
    """
    _check_kind(name, rows)
    mask = torch.as_tensor(mask, device=rows.device)
    shapes = [(len(rows),), (len(rows), n_columns)]
    if mask.dtype != torch.bool or mask.shape not in shapes:
        either = " or ".join(str(shape) for shape in shapes)
        raise ValueError(
            f"mask must be boolean of shape {either}, one row per sample, got "
            f"{mask.dtype} of shape {tuple(mask.shape)}"
        )
    return mask[:, None].expand(-1, n_columns) if mask.ndim == 1 else mask


def unit_batch(named: Named, masks: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Rows that count of each tensor, checked by `check_batch`, with norm 1.

    Returns
    -------
    units : list of tensors of shape (n_counted, n_features)
        Of float32; of float64 if any is.
    """
    check_batch(named, masks)
    rows = [rows for _, rows in named]
    if masks is not None:
        rows = [one[held] for one, held in zip(rows, masks, strict=True)]
    units = [unit_rows(one) for one in rows]
    dtype = torch.float32
    for one in units:
        dtype = torch.promote_types(dtype, one.dtype)
    return [one.to(dtype) for one in units]


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of norm 1, in float32 at least; of shape (..., n_samples, n_features).

    Half precision is widened first: statistics of a loss need float32.
    """
    unit: Tensor = _UnitRows.apply(_widened(rows))
    return unit


def widened(name: str, rows: Tensor) -> Tensor:
    """Rows in float32 at least, so that gradients of several terms add up in it."""
    _check_kind(name, rows)
    return _widened(rows)


def inverse_temperature(temperature: float | Tensor, like: Tensor) -> Tensor:
    """1 / temperature as a tensor of shape (), through which gradients flow.

    Raises
    ------
    ValueError
        If the temperature is not one positive finite number.
    """
    value = torch.as_tensor(temperature, dtype=like.dtype, device=like.device)
    if isinstance(temperature, Tensor):
        good = value.numel() == 1 and bool((value > 0) & value.isfinite())
    else:  # a number that the host has: nothing is read from a GPU
        limits = torch.finfo(like.dtype)
        good = value.numel() == 1 and limits.tiny <= float(temperature) <= limits.max
    if not good:
        raise ValueError(
            f"temperature must be one positive finite number, got {temperature}"
        )
    return 1 / value.reshape(())


def no_loss(*tensors: Tensor) -> Tensor:
    """0 in the graph of finite tensors, whose gradients are then zero."""
    zeros = [0 * tensor.sum() for tensor in tensors]
    return sum(zeros[1:], zeros[0])


def _widened(rows: Tensor) -> Tensor:
    return rows if rows.dtype == torch.float64 else rows.float()


def _check_kind(name: str, rows: Tensor) -> None:
    if not isinstance(rows, Tensor) or not rows.is_floating_point():
        kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(
            f"{name} must have shape (n_samples, n_features) and at least one of "
            f"each, got {tuple(rows.shape)}"
        )


def _check_match(first_name: str, first: Tensor, name: str, rows: Tensor) -> None:
    if rows.shape != first.shape:
        raise ValueError(
            f"{first_name} and {name} must have one row per sample and the same "
            f"width, got {tuple(first.shape)} and {tuple(rows.shape)}. Was the "
            "same sample dropped from both?"
        )
    if rows.device != first.device:
        raise ValueError(
            f"{first_name} is on {first.device} and {name} on {rows.device}: move "
            "both to one device"
        )


def _wrong_rows(
    rows: Tensor, counted: Tensor | None, directions: bool
) -> tuple[Tensor, Tensor]:
    """Which rows that count are not finite, and which have no direction."""
    largest = _largest(rows)
    bad, zero = ~largest.isfinite(), (largest == 0) & directions
    if counted is not None:
        bad, zero = bad & counted, zero & counted
    return bad, zero


def _refuse_rows(name: str, bad: Tensor, zero: Tensor) -> None:
    if bad.any():
        raise ValueError(
            f"{name} has nan or infinite values in {int(bad.sum())} of {len(bad)} "
            f"rows, the first in row {int(bad.nonzero()[0])}. Was the learning rate "
            "too high, or half precision too narrow?"
        )
    if zero.any():
        raise ValueError(
            f"{name} has {int(zero.sum())} rows of zeros, the first at "
            f"{int(zero.nonzero()[0])}: a zero vector has no direction. Leave the "
            "sample out, or look for a dead layer"
        )


def _largest(rows: Tensor) -> Tensor:
    """Largest absolute value of each row; nan if any value is."""
    # No copy of all rows, as of their absolute values; and torch's norm of order
    # infinity takes ten times as long.
    rows = rows.detach()
    return torch.maximum(rows.amax(dim=-1), -rows.amin(dim=-1))


class _UnitRows(torch.autograd.Function):  # type: ignore[misc]
    """Rows over their norm; keeps its result alone for the backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        # Divided by its largest entry first, no row's norm over- or underflows.
        largest = _largest(rows)[..., None]
        unit = rows / largest
        norm = unit.norm(dim=-1, keepdim=True)
        unit /= norm
        ctx.save_for_backward(unit, norm, largest)
        return unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        # All losses pass here. The kernels behind would give 0 in silence, as torch
        # takes what they return for constants.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "these losses have first derivatives only, and create_graph=True asks "
                "for second ones: leave it out"
            )
        unit, norm, largest = ctx.saved_tensors
        with full_precision(grad.device):
            along = torch.linalg.vecdot(grad, unit)[..., None]
        return torch.addcmul(grad, unit, along, value=-1).div_(norm).div_(largest)

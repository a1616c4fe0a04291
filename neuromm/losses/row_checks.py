"""What the losses ask of their rows: finite, of one shape, and with a direction."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["check_batch", "inverse_temperature", "unit_rows"]


def check_batch(named: Sequence[tuple[str, Tensor]]) -> None:
    """Raise unless all are batches of rows of the same samples.

    Parameters
    ----------
    named : sequence of (str, tensor)
        Each of shape (n_samples, n_features), with the name that errors say.

    Raises
    ------
    TypeError
        If one is not a tensor of floating-point numbers.
    ValueError
        If shapes or devices differ, the batch is empty, or a value is not finite.
    """
    first_name, first = named[0]
    for name, rows in named:
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
        if rows.ndim != 2 or 0 in rows.shape:
            raise ValueError(
                f"{name} must have shape (n_samples, n_features) and at least one of "
                f"each, got {tuple(rows.shape)}"
            )
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
        _check_finite(name, rows)


def unit_rows(name: str, rows: Tensor) -> Tensor:
    """Rows of norm 1, in float32 at least; of shape (..., n_samples, n_features).

    Half precision is widened first: statistics of a loss need float32.

    Raises
    ------
    ValueError
        If a row is zero: it has no direction, so no cosine.
    """
    wide = rows if rows.dtype == torch.float64 else rows.float()
    largest = wide.detach().abs().amax(dim=-1, keepdim=True)
    _check_directions(name, largest)
    unit: Tensor = _UnitRows.apply(wide, largest)
    return unit


def inverse_temperature(temperature: float | Tensor, like: Tensor) -> Tensor:
    """1 / temperature as a tensor of shape (), through which gradients flow.

    Raises
    ------
    ValueError
        If the temperature is not one positive finite number.
    """
    value = torch.as_tensor(temperature, dtype=like.dtype, device=like.device)
    if value.numel() != 1 or not bool((value > 0) & value.isfinite()):
        raise ValueError(
            f"temperature must be one positive finite number, got {temperature}"
        )
    return 1 / value.reshape(())


def _check_directions(name: str, largest: Tensor) -> None:
    zero = largest[..., 0] == 0
    if zero.any():
        # Of a stack, the first member at fault and the row in it.
        *member, row = zero.nonzero()[0].tolist()
        where = "".join(f"[{index}]" for index in member)
        raise ValueError(
            f"{name}{where} has {int(zero.sum())} rows of zeros, the first at "
            f"{row}: a zero vector has no direction. Leave the "
            "sample out, or look for a dead layer"
        )


def _check_finite(name: str, rows: Tensor) -> None:
    bad = ~rows.detach().isfinite().all(dim=1)
    if bad.any():
        raise ValueError(
            f"{name} has nan or infinite values in {int(bad.sum())} of {len(rows)} "
            f"rows, the first in row {int(bad.nonzero()[0])}. Was the learning rate "
            "too high, or half precision too narrow?"
        )


class _UnitRows(torch.autograd.Function):  # type: ignore[misc]
    """Rows over their norm; keeps its result alone for the backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, largest: Tensor) -> Tensor:
        # Divided by its largest entry first, no row's norm over- or underflows.
        unit = rows / largest
        norm = unit.norm(dim=-1, keepdim=True)
        unit /= norm
        ctx.save_for_backward(unit, norm, largest)
        return unit

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        unit, norm, largest = ctx.saved_tensors
        along = (grad * unit).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad, unit, along, value=-1).div_(norm).div_(largest), None

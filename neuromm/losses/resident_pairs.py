"""Pairs of rows that stay where they are, on a GPU, also those that do not count.

`neuromm.losses.positive_pairs` takes rows out and looks labels up. On a GPU the host
would wait each time, for how many there are; kernels pass over them instead.
"""

import torch
from torch import Tensor

from neuromm.kernels.arrays import runs_kernels
from neuromm.kernels.gpu_pair_tiles import PairSums, half_rows, pair_sums
from neuromm.losses.positive_pairs import stimulus_ids
from neuromm.losses.row_checks import (
    check_batch,
    checked_mask,
    inverse_temperature,
    unit_rows,
)

__all__ = ["mean_loss", "resident_sums", "stay_resident"]

_HALF = (torch.float16, torch.bfloat16)


def stay_resident(a: Tensor, b: Tensor) -> bool:
    """Tell whether kernels take rows as they lie; none does in float64."""
    known = (torch.float32, *_HALF)
    return runs_kernels(a) and all(
        isinstance(rows, Tensor) and rows.dtype in known for rows in (a, b)
    )


def resident_sums(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, PairSums, PairSums]:
    """Inverse temperature, and sums of each row of a and of b over all of the other.

    Parameters
    ----------
    a, b, temperature, labels, mask
        As in `info_nce`, on a GPU.

    Raises
    ------
    TypeError, ValueError
        As `Pairs.of`.

    Notes
    -----
    Half precision enters the products as it is. The rest is of float32.
    """
    named = [("a", a), ("b", b)]
    held = None if mask is None else list(checked_mask(mask, "a", a, 2).T)
    check_batch(named, held)
    rows = [a, b]
    if held is not None:
        rows = [
            # What is left out may be nan, and is given some direction.
            one.masked_fill(~counted[:, None], 1.0)
            for one, counted in zip(rows, held, strict=True)
        ]
    unit_a, unit_b = (unit_rows(one) for one in rows)
    ids = None if labels is None else stimulus_ids(labels, a)
    halves = None
    if a.dtype == b.dtype and a.dtype in _HALF:
        halves = half_rows(rows[0]), half_rows(rows[1])
    scale = inverse_temperature(temperature, unit_a)
    by_a, by_b = pair_sums(
        unit_a,
        unit_b,
        scale,
        "place" if ids is None else "label",
        (ids, ids),
        (None, None) if held is None else (held[0], held[1]),
        halves,
    )
    return scale, by_a, by_b


def mean_loss(sums: PairSums, scale: Tensor) -> Tensor:
    """Mean over rows with positives of what `info_nce` says; 0 without any."""
    has = sums.counts > 0
    own = sums.log_sums - scale * sums.positives / sums.counts.clamp_min(1)
    return torch.where(has, own, 0).sum() / has.sum().clamp_min(1)

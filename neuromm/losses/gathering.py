"""Rows of all ranks of torch.distributed, through which gradients flow back.

Gradients follow the convention of DistributedDataParallel, which averages over ranks:
of a loss over gathered rows each rank gets, for its own rows, the number of ranks times
the gradient of one process with the whole batch, so that the average over ranks of the
gradients of the weights is that of one process.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "Gather",
    "first_row",
    "gather_batch",
    "gather_rows",
    "own_ids",
    "ranks_of",
    "share_of_mean",
]

Gather = Any  # a bool, or a torch.distributed.ProcessGroup


def gather_rows(rows: Tensor, group: Any = None) -> Tensor:
    """Rows of all ranks, one rank after the other.

    Parameters
    ----------
    rows : tensor of shape (n_rows, ...)
        Of this rank; ranks may have different numbers of rows.
    group : torch.distributed.ProcessGroup, optional
        All processes by default.

    Returns
    -------
    gathered : tensor of shape (sum of n_rows, ...)
        Its gradients are summed over ranks and handed back to the rank of each row:
        all ranks must call backward.

    Raises
    ------
    RuntimeError
        If no process group is initialised.

    Notes
    -----
    Every loss gathers by itself with ``gather=True``, or with a process group for those
    ranks alone. All ranks then give the same kinds of arguments, find the value of the
    whole batch and go backward together. `InfoNCE`, `SigLIP` and `AnchoredContrastive`
    share the work: each rank compares its own rows with all. Other losses need all rows
    with all, which each rank does.
    """
    _check_group()
    gathered: Tensor = _GatherRows.apply(rows, group)
    return gathered


def first_row(rows: Tensor, group: Any = None) -> int:
    """Place of this rank's first row among those of all ranks."""
    counts = gather_rows(torch.tensor([len(rows)], device=rows.device), group)
    return int(counts[: dist.get_rank(group)].sum())


def gather_batch(gather: Gather, *inputs: Any) -> tuple[Any, ...]:
    """Inputs of a loss with the rows of all ranks; as they are if ``gather`` is False.

    Parameters
    ----------
    gather : bool or torch.distributed.ProcessGroup
    *inputs : tensors of shape (n_rows, ...), sequences of such, or None
    """
    return inputs if gather is False else tuple(_gathered(gather, x) for x in inputs)


def ranks_of(gather: Gather) -> Any:
    """Process group that ``gather`` names; None for all ranks."""
    return None if gather is True else gather


def own_ids(rows: Tensor, group: Any = None) -> Tensor:
    """Numbers of the samples of this rank, which no other rank has."""
    _check_group()
    own = torch.arange(len(rows), device=rows.device)
    return own + (dist.get_rank(group) << 40)


def share_of_mean(losses: Tensor, counts: Tensor, group: Any = None) -> Tensor:
    """Mean over all ranks, with the gradient of this rank's share of it.

    Parameters
    ----------
    losses, counts : tensors of shape ()
        Sum of the losses of this rank's rows, and their number.
    group : torch.distributed.ProcessGroup, optional

    Returns
    -------
    mean : tensor of shape ()
        The same on all ranks; 0 if no rank has a row.
    """
    totals = torch.stack([losses.detach(), counts.to(losses)])
    dist.all_reduce(totals, group=group)
    share = losses / totals[1].clamp_min(1) * dist.get_world_size(group)
    return share + (totals[0] / totals[1].clamp_min(1) - share.detach())


def _gathered(gather: Gather, x: Any) -> Any:
    if x is None:
        return None
    if isinstance(x, Tensor):
        return gather_rows(x, ranks_of(gather))
    return [gather_rows(rows, ranks_of(gather)) for rows in x]


def _check_group() -> None:
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "gathering needs a process group, and none is initialised: call "
            "torch.distributed.init_process_group, or leave gather=False"
        )


class _GatherRows(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        own = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(counts, own, group=group)
        sizes = [int(count) for count in counts]
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        ctx.group = group
        ctx.start = sum(sizes[: dist.get_rank(group)])
        ctx.stop = ctx.start + len(rows)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.stop], None

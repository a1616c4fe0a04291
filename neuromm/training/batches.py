"""Batches in an order that a step's number alone decides, so that a run can go on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from neuromm.training.tasks import Batch, Samples

__all__ = ["read_batches", "step_rows", "step_seed"]


def step_rows(
    rows: NDArray[np.intp], step: int, batch_size: int, drop_last: bool, seed: int
) -> list[int]:
    """Rows of the batch of one step, counted from 0 over the whole run."""
    n_batches = batches_a_pass(len(rows), batch_size, drop_last)
    which_pass, place = divmod(step, n_batches)
    order = np.random.default_rng([seed, 1, which_pass]).permutation(len(rows))
    chosen = order[place * batch_size : (place + 1) * batch_size]
    return [int(row) for row in rows[chosen]]


def batches_a_pass(n_samples: int, batch_size: int, drop_last: bool) -> int:
    """Batches of one pass over the samples, at least one."""
    whole, rest = divmod(n_samples, batch_size)
    return max(1, whole + (rest > 0 and not drop_last))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of all that is random within one step, in one of several processes."""
    words = [seed, 2, step, rank] if rank else [seed, 2, step]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(state[0] >> 1)  # torch takes 63 bits


def read_batches(
    samples: Samples,
    batches: Sequence[Sequence[int]],
    n_workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Batches as tensors on a device, one row a sample."""
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=n_workers,
        pin_memory=device.type == "cuda",
        # Of its own: the loader would else draw from the numbers of the caller.
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        yield {
            name: value.to(device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, Tensor)
        }

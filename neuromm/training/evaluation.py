"""What a model scores on samples that it was not trained on."""

from collections.abc import Sequence

import torch
from torch import nn

from neuromm.core import UsageError
from neuromm.training.batches import read_batches
from neuromm.training.tasks import Batch, Samples, Task

__all__ = ["evaluate"]


def evaluate(
    model: nn.Module,
    data: Samples,
    *,
    task: Task,
    batch_size: int = 4,
    n_workers: int = 0,
    rows: Sequence[int] | None = None,
) -> dict[str, float]:
    """Loss and scores of a model in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        Its mode is put back at the end.
    data : Samples
    task : Task
    batch_size, n_workers : int
    rows : sequence of int, optional
        Samples that count, all by default.

    Returns
    -------
    scores : dict of str to float
        ``loss``, the mean over samples, and the scores of the task.

    Raises
    ------
    UsageError
        If there are no samples, or the task names a score ``loss``.
    """
    chosen = list(range(len(data))) if rows is None else [int(row) for row in rows]
    if not chosen:
        raise UsageError("there are no samples to evaluate")
    batches = [
        chosen[start : start + batch_size]
        for start in range(0, len(chosen), batch_size)
    ]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, measured = 0.0, []
    try:
        with torch.inference_mode():
            loaded = read_batches(data, batches, n_workers, device)
            for batch, of_rows in zip(loaded, batches, strict=True):
                total += float(task.loss(model, batch)) * len(of_rows)
                of_batch = task.measure(model, batch)
                measured.append({name: of_batch[name].cpu() for name in of_batch})
    finally:
        model.train(was_training)
    scores = task.scores(_together(measured))
    if "loss" in scores:
        raise UsageError("a task names its scores otherwise than 'loss'")
    return {"loss": total / len(chosen), **scores}


def _together(measured: list[Batch]) -> Batch:
    return {
        name: torch.cat([of_batch[name] for of_batch in measured])
        for name in measured[0]
    }

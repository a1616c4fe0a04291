"""One training run in several processes, each with its GPU, through accelerate.

Every process takes its part of each batch, and gradients are averaged over processes,
so the weights are those of one process with the whole batch. What a network knows of
its batch alone, such as the means of batch normalisation, is of a process's part.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuromm.core import UsageError

__all__ = ["Processes"]


class Processes:
    """The processes of a run; without an accelerator it is this one alone.

    Parameters
    ----------
    accelerator : accelerate.Accelerator, optional

    Raises
    ------
    UsageError
        If the accelerator has a precision or an accumulation of its own: those are
        settings of the run.
    """

    def __init__(self, accelerator: Any = None) -> None:
        if accelerator is not None and (
            accelerator.mixed_precision != "no"
            or accelerator.gradient_accumulation_steps != 1
        ):
            raise UsageError(
                "the accelerator must leave precision and accumulation to "
                "TrainingConfig, got mixed_precision="
                f"{accelerator.mixed_precision!r} and gradient_accumulation_steps="
                f"{accelerator.gradient_accumulation_steps}"
            )
        self._accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.rank: int = 0 if accelerator is None else accelerator.process_index

    @property
    def is_first(self) -> bool:
        """Whether this process writes, and scores the validation samples."""
        return self.rank == 0

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model to train: it averages gradients over processes."""
        if self._accelerator is None:
            return model
        model.to(self._accelerator.device)
        wrapped: nn.Module = self._accelerator.prepare_model(model)
        return wrapped

    def own_rows(self, rows: Sequence[int]) -> list[int]:
        """Rows of a batch for this process.

        All processes get as many, as each must take every step: where a batch cannot be
        divided, rows from its beginning are taken once more.
        """
        n_each = -(-len(rows) // self.count)
        places = range(self.rank * n_each, (self.rank + 1) * n_each)
        return [rows[place % len(rows)] for place in places]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes."""
        if self.count == 1:
            return values
        reduced: Tensor = self._accelerator.reduce(values, "mean")
        return reduced

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the buffers of the first, such as running means."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for buffer in model.buffers():
                buffer.copy_(broadcast(buffer.clone(), from_process=0))

    def told_by_first(self, content: Any) -> Any:
        """What the first process has, for all."""
        if self.count == 1:
            return content
        from accelerate.utils import broadcast_object_list

        held = [content]
        broadcast_object_list(held, from_process=0)
        return held[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()

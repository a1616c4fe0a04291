"""What a model is trained for: the loss of a batch, and what a set scores."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Augmentation", "Batch", "Samples", "Task"]

Batch = dict[str, Tensor]
# Changes a batch with numbers of the generator, and nothing else that is random.
Augmentation = Callable[[Batch, torch.Generator], Batch]


class Samples(Protocol):
    """Samples by number: a list, a NumPy-like view, or a torch ``Dataset``."""

    def __len__(self) -> int:
        """Give the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """Give one sample: arrays, tensors or numbers by name, equal in shape."""
        ...


class Task(Protocol):
    """What `fit` and `evaluate` ask of a task.

    A frozen dataclass makes a good one: its settings then tell one run from another.
    """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, of shape ()."""
        ...

    def measure(self, model: nn.Module, batch: Batch) -> Batch:
        """What the scores need of each sample, one row a sample.

        Rows of all batches are put together before they are scored, so that a score
        need not be a mean over batches.
        """
        ...

    def scores(self, measured: Batch) -> dict[str, float]:
        """Scores of a set of samples by name; empty if the loss is all."""
        ...

"""Settings of a training run, whatever the model."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from neuromm.core import UsageError

__all__ = ["TrainingConfig"]

Schedule = Literal["constant", "cosine"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Settings of `fit`.

    Parameters
    ----------
    n_epochs : int
        At most; early stopping may end the run before.
    batch_size : int
    steps_per_epoch : int, optional
        Steps between two looks at the validation set; one pass over the training
        samples by default. A pass that an epoch does not finish goes on in the next.
    drop_last : bool
        Leave out the last batch of a pass if it is smaller than the others.
    learning_rate : float
    betas : tuple of two floats
        Of AdamW; without weight decay it is Adam.
    weight_decay : float
        Of matrices and kernels; biases and normalisation are never decayed.
    schedule : {"constant", "cosine"}
        Of the learning rate after the warm-up; ``cosine`` ends at 0 with the run.
    warmup_steps : int
        Steps over which the learning rate rises linearly.
    max_grad_norm : float, optional
        Longer gradients are shortened to it; None leaves them.
    validation_fraction : float
        Part of the groups (patients, subjects) held out within the training data;
        0 trains on all of them to the last epoch.
    monitor : str
        Score of the validation groups that chooses the epoch: ``"loss"``, or one that
        the task names.
    higher_is_better : bool
        Of the monitored score.
    patience : int, optional
        Epochs without a better score after which the run ends.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere.
    n_workers : int
        Processes that read samples; 0 reads in this one.
    seed : int
        Of the split, the order, the augmentation and the dropout.
    """

    n_epochs: int = 100
    batch_size: int = 4
    steps_per_epoch: int | None = None
    drop_last: bool = False
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    max_grad_norm: float | None = 1.0
    validation_fraction: float = 0.2
    monitor: str = "loss"
    higher_is_better: bool = False
    patience: int | None = None
    precision: Precision = "auto"
    n_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "n_epochs": 1, "batch_size": 1, "steps_per_epoch": 1, "warmup_steps": 0,
            "patience": 1, "n_workers": 0, "seed": 0, "weight_decay": 0.0,
        }  # fmt: skip
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise UsageError(f"{name} must be at least {lowest}, got {value}")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name} must be a positive number, got {value}")
        if not 0 <= self.validation_fraction < 1:
            raise UsageError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction}"
            )
        if self.patience is not None and self.validation_fraction == 0:
            raise UsageError(
                "patience needs validation groups: set validation_fraction above 0"
            )
        for name, allowed in (
            ("schedule", get_args(Schedule)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} must be one of {', '.join(allowed)}, got "
                    f"{getattr(self, name)!r}"
                )

    def learning_rate_at(self, step: int, n_steps: int) -> float:
        """Learning rate of a step, from 0, of a run of ``n_steps``."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(1, n_steps - self.warmup_steps)
        return self.learning_rate * (1 + math.cos(math.pi * min(done, 1))) / 2

"""A plain training loop that all models share.

Every step draws its random numbers from the seed and its own number. So a run that was
killed goes on from its last whole epoch and, on the same machine, ends with the same
weights, bit for bit on a CPU.
"""

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuromm.core import DataError, UsageError
from neuromm.training.batches import (
    batches_a_pass,
    read_batches,
    step_rows,
    step_seed,
)
from neuromm.training.evaluation import evaluate
from neuromm.training.inner_split import inner_split
from neuromm.training.processes import Processes
from neuromm.training.tasks import Augmentation, Samples, Task
from neuromm.training.training_config import TrainingConfig
from neuromm.training.training_folder import RunState, TrainingFolder

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a run went; the weights are in the model.

    Attributes
    ----------
    best_epoch : int
        Counted from 1: the epoch whose weights the model has.
    best_score : float
        The monitored score of that epoch; nan without validation groups.
    history : list of dict
        One an epoch: ``epoch``, ``learning_rate`` and ``grad_norm`` (mean before
        clipping) of training, ``train_loss``, ``seconds``, and the validation's scores
        as ``validation_<name>``, None where one is not defined.
    validation : array of int
        Rows of the data that chose the epoch.
    """

    best_epoch: int
    best_score: float
    history: list[dict[str, Any]]
    validation: NDArray[np.intp]


def fit(
    model: nn.Module,
    data: Samples,
    config: TrainingConfig,
    *,
    task: Task,
    groups: Sequence[Any] | NDArray[Any],
    augmentations: Sequence[Augmentation] = (),
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    accelerator: Any = None,
) -> FitResult:
    """Train a model in place; it ends with the weights of its best epoch.

    Parameters
    ----------
    model : nn.Module
        Trained on the device where its parameters are.
    data : Samples
        Training samples alone. The epoch is chosen on groups held out of them, so
        the test set is never needed here.
    config : TrainingConfig
    task : Task
    groups : sequence of n_samples labels
        Patient or subject of each sample; ``range(n)`` says that all are independent.
    augmentations : sequence of callables (batch, generator) -> batch
        Applied in turn to each training batch, on its device; random numbers come from
        the generator, which is on the CPU.
    folder : path-like, optional
        Where the state is kept after each epoch. A run that is there with the same
        settings goes on; a finished one is read.
    progress : callable of (done, total), optional
        Told the step after each step.
    accelerator : accelerate.Accelerator, optional
        Of a script that ``accelerate launch`` runs in several processes: a batch is
        divided among them, the first one scores and writes. Extra ``train``.

    Returns
    -------
    result : FitResult

    Raises
    ------
    UsageError
        If groups and samples differ in number, the monitored score does not exist,
        the folder holds another run, or the accelerator has a precision of its own.
    DataError
        If the loss is not finite, or the files of the folder are damaged.
    """
    if len(groups) != len(data):
        raise UsageError(
            f"groups must name one patient or subject a sample, got {len(groups)} for "
            f"{len(data)} samples"
        )
    train, validation = inner_split(groups, config.validation_fraction, config.seed)
    processes = Processes(accelerator)
    run = _Run(
        model, data, config, task, train, validation, tuple(augmentations), processes
    )
    kept = None if folder is None else TrainingFolder(folder, run.settings(groups))
    state = RunState() if kept is None else kept.resume(model, run.optimizer)
    with _own_random_numbers(run.device):
        while not run.is_over(state):
            run.train_epoch(state, progress if processes.is_first else None)
            if kept is not None and processes.is_first:
                kept.save(state, model, run.optimizer)
    processes.wait()
    model.load_state_dict(state.best_weights)
    model.eval()
    score = math.nan if state.best_score is None else state.best_score
    return FitResult(state.best_epoch, score, state.history, validation)


class _Run:
    """What stays the same from epoch to epoch."""

    def __init__(
        self,
        model: nn.Module,
        data: Samples,
        config: TrainingConfig,
        task: Task,
        train: NDArray[np.intp],
        validation: NDArray[np.intp],
        augmentations: tuple[Augmentation, ...],
        processes: Processes,
    ) -> None:
        self.processes = processes
        self.trained = processes.prepared(model)
        self.model, self.data, self.config, self.task = model, data, config, task
        self.train, self.validation = train, validation
        self.augmentations = augmentations
        self.device = next(model.parameters()).device
        self.optimizer = _optimizer(model, config)
        self.n_steps = config.steps_per_epoch or batches_a_pass(
            len(train), config.batch_size, config.drop_last
        )

    def settings(self, groups: Sequence[Any] | NDArray[Any]) -> dict[str, Any]:
        """All that tells this run from another one."""
        labels = "\n".join(str(group) for group in groups)
        several = self.processes.count
        return {
            **({"n_processes": several} if several > 1 else {}),
            "training": dataclasses.asdict(self.config),
            "model": _described(getattr(self.model, "config", type(self.model))),
            "task": _described(self.task),
            "augmentations": [_described(one) for one in self.augmentations],
            "n_samples": len(self.data),
            "groups_sha256": hashlib.sha256(labels.encode()).hexdigest(),
        }

    def is_over(self, state: RunState) -> bool:
        patience = self.config.patience
        waited = state.n_epochs - state.best_epoch
        return state.n_epochs >= self.config.n_epochs or (
            patience is not None and waited >= patience
        )

    def train_epoch(
        self, state: RunState, progress: Callable[[int, int], None] | None
    ) -> None:
        """Train an epoch, score it, and enter it into the state."""
        started = time.perf_counter()
        line: dict[str, Any] = {"epoch": state.n_epochs + 1}
        line |= self._train_steps(state.n_epochs * self.n_steps, progress)
        scores = {}
        self.processes.share_buffers(self.model)
        if len(self.validation) and self.processes.is_first:
            with self._autocast():
                scores = evaluate(
                    self.model,
                    self.data,
                    task=self.task,
                    batch_size=self.config.batch_size,
                    n_workers=self.config.n_workers,
                    rows=self.validation.tolist(),
                )
        line |= {f"validation_{name}": _number(scores[name]) for name in scores}
        line["seconds"] = round(time.perf_counter() - started, 3)
        scores, line = self.processes.told_by_first((scores, line))
        state.n_epochs += 1
        state.history.append(line)
        if not scores or self._is_better(scores, state):
            state.best_epoch = state.n_epochs
            state.best_score = _number(scores.get(self.config.monitor))
            state.best_weights = {
                name: value.detach().cpu().clone()
                for name, value in self.model.state_dict().items()
            }

    def _train_steps(
        self, first: int, progress: Callable[[int, int], None] | None
    ) -> dict[str, float]:
        config, total = self.config, self.n_steps * self.config.n_epochs
        steps = range(first, first + self.n_steps)
        batches = [
            self.processes.own_rows(
                step_rows(
                    self.train, step, config.batch_size, config.drop_last, config.seed
                )
            )
            for step in steps
        ]
        losses = torch.zeros((), dtype=torch.float64, device=self.device)
        norms = torch.zeros((), dtype=torch.float64, device=self.device)
        self.model.train()
        loaded = read_batches(self.data, batches, config.n_workers, self.device)
        for step, batch in zip(steps, loaded, strict=True):
            seed = step_seed(config.seed, step, self.processes.rank)
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            for augment in self.augmentations:
                batch = augment(batch, generator)
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step, total)
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = self.task.loss(self.trained, batch)
            loss.backward()
            norms += nn.utils.clip_grad_norm_(
                self.model.parameters(), config.max_grad_norm or math.inf
            )
            self.optimizer.step()
            losses += loss.detach()
            if progress is not None:
                progress(step + 1, total)
        mean = float(self.processes.mean(losses)) / self.n_steps
        if not math.isfinite(mean):
            raise DataError(
                f"the loss of steps {first + 1} to {first + self.n_steps} is not "
                "finite: are there nan or infinite values in the data, or is the "
                "learning rate too high?"
            )
        return {
            "learning_rate": config.learning_rate_at(steps[-1], total),
            "train_loss": mean,
            "grad_norm": float(norms) / self.n_steps,
        }

    def _is_better(self, scores: dict[str, float], state: RunState) -> bool:
        if self.config.monitor not in scores:
            raise UsageError(
                f"monitor must be one of {', '.join(sorted(scores))}, got "
                f"{self.config.monitor!r}"
            )
        now, best = scores[self.config.monitor], state.best_score
        if best is None:
            return True
        return now > best if self.config.higher_is_better else now < best

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        wanted = self.config.precision
        if wanted == "auto":
            on_gpu = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            wanted = "bfloat16" if on_gpu else "float32"
        context: contextlib.AbstractContextManager[Any] = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=wanted == "bfloat16"
        )
        return context


def _optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UsageError("the model has no parameter that is trained: all are frozen")
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
    )


def _own_random_numbers(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Leave the caller's random numbers as they were."""
    devices = [device] if device.type == "cuda" else []
    return torch.random.fork_rng(devices)  # type: ignore[no-any-return]


def _number(value: float | None) -> float | None:
    """None for nan, which JSON has no word for."""
    return None if value is None or math.isnan(value) else float(value)


def _described(thing: Any) -> Any:
    """Settings of a dataclass, else a name: an address differs from run to run."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {"name": type(thing).__qualname__, **dataclasses.asdict(thing)}
    return getattr(thing, "__qualname__", type(thing).__qualname__)

"""A small regression with dropout, run by tests here and in processes that are killed.

``python regression_case.py FOLDER OUTPUT WHERE NUMBER`` trains and writes the weights.
WHERE is ``step`` or ``manifest``: before that one, counted from 1, the process kills
itself; 0 lets it live.
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from neuromm.models.checkpoint import write_tensors
from neuromm.training import TrainingConfig, fit, training_folder

CONFIG = TrainingConfig(
    n_epochs=4,
    batch_size=5,
    learning_rate=0.01,
    weight_decay=0.1,
    schedule="cosine",
    warmup_steps=3,
    validation_fraction=0.25,
    seed=7,
)
N_STEPS = 5  # of an epoch: 24 of 32 samples, 5 at a time


@dataclass(frozen=True)
class Regression:
    """Squared error, and the largest error of all samples."""

    def loss(self, model, batch):
        return (model(batch["x"]) - batch["y"]).square().mean()

    def measure(self, model, batch):
        return {"error": (model(batch["x"]) - batch["y"]).squeeze(1)}

    def scores(self, measured):
        return {"worst": float(measured["error"].abs().max())}


def noise(batch, generator):
    shift = torch.randn(batch["x"].shape, generator=generator)
    return {**batch, "x": batch["x"] + 0.1 * shift}


def samples(n: int = 32) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 6, generator=generator)
    y = x @ torch.randn(6, 1, generator=generator)
    return [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(16, 1),
    )  # fmt: skip


def trained(folder: Path | None, config=CONFIG, task=None, **options):
    data, model = samples(), network()
    options.setdefault("groups", range(len(data)))
    result = fit(
        model,
        data,
        config,
        task=task or Regression(),
        augmentations=[noise],
        folder=folder,
        **options,
    )
    return model, result


def _kill_before(function, number: int):
    calls = 0

    def counted(*arguments):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    counted.__qualname__ = function.__qualname__  # the settings name it
    return counted


if __name__ == "__main__":
    run_folder, output, where, number = sys.argv[1:]
    if where == "step":
        noise = _kill_before(noise, int(number))
    else:
        training_folder.write_json = _kill_before(
            training_folder.write_json, int(number)
        )
    write_tensors(output, trained(Path(run_folder))[0].state_dict())

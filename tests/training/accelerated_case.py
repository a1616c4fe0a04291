"""A regression that several processes train: started by test_processes.

``torchrun --nproc_per_node 2 -m tests.training.accelerated_case OUTPUT FOLDER`` trains
in float64 and writes the weights of each process; a second run reads the folder.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from neuromm.models.checkpoint import write_tensors
from neuromm.training import TrainingConfig, fit
from tests.training.regression_case import Regression, samples

CONFIG = TrainingConfig(
    n_epochs=3,
    batch_size=6,  # of 24 samples, three for each of two processes
    learning_rate=0.01,
    weight_decay=0.1,
    schedule="cosine",
    validation_fraction=0.25,
    precision="float32",
    seed=7,
)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def trained(folder: Path | None = None, accelerator=None, **changes):
    """Weights and history of a run."""
    data = [{name: v.double() for name, v in one.items()} for one in samples()]
    model = network()
    result = fit(
        model,
        data,
        replace(CONFIG, **changes),
        task=Regression(),
        groups=range(len(data)),
        folder=folder,
        accelerator=accelerator,
    )
    return model.state_dict(), result


def main(output: str, folder: str) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    weights, result = trained(Path(folder), accelerator)
    again, read = trained(Path(folder), accelerator)
    assert read.history == result.history
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    # Five rows for two processes: both take three, so that none waits for the other.
    uneven, _ = trained(None, accelerator, batch_size=5)
    assert all(torch.isfinite(value).all() for value in uneven.values())
    rank = accelerator.process_index
    write_tensors(Path(f"{output}-{rank}"), weights)


if __name__ == "__main__":
    main(*sys.argv[1:])

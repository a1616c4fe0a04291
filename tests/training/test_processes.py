"""Several processes of accelerate train what one process trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neuromm.core import UsageError
from neuromm.training.processes import Processes
from tests.training import accelerated_case

ROOT = Path(__file__).resolve().parents[2]


class Accelerator:
    """What `Processes` asks of accelerate's, for one of several processes."""

    def __init__(self, rank=0, count=1, precision="no", accumulation=1):
        self.process_index, self.num_processes = rank, count
        self.mixed_precision = precision
        self.gradient_accumulation_steps = accumulation


def test_each_process_takes_as_many_rows_and_no_row_is_left_out():
    for n_rows in (1, 2, 3, 5, 6):
        rows = list(range(10, 10 + n_rows))
        parts = [Processes(Accelerator(rank, 3)).own_rows(rows) for rank in range(3)]
        assert len({len(part) for part in parts}) == 1
        assert {row for part in parts for row in part} == set(rows)
        repeated = sum(map(len, parts)) - n_rows
        assert repeated < 3


def test_a_precision_of_the_accelerator_is_refused():
    with pytest.raises(UsageError, match="mixed_precision='bf16'"):
        Processes(Accelerator(precision="bf16"))
    with pytest.raises(UsageError, match="gradient_accumulation_steps=4"):
        Processes(Accelerator(accumulation=4))


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(tmp_path):
    one, _ = accelerated_case.trained()
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", "-m", "tests.training.accelerated_case"),
            *(str(tmp_path / "weights"), str(tmp_path / "run")),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    for rank in range(2):
        several = load_file(tmp_path / f"weights-{rank}")
        for name, value in one.items():
            # Sums of six numbers in another order, over twelve steps of AdamW.
            torch.testing.assert_close(several[name], value, rtol=1e-9, atol=1e-12)

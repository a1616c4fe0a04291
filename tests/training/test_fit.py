"""A run is decided by its settings and its seed, and a kill does not change it."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neuromm.core import DataError, UsageError
from neuromm.training import TrainingConfig, evaluate, fit
from neuromm.training.batches import step_rows
from neuromm.training.inner_split import inner_split
from tests.training.regression_case import (
    CONFIG,
    N_STEPS,
    Regression,
    network,
    samples,
    trained,
)

CASE = Path(__file__).with_name("regression_case.py")


def in_process(folder: Path, output: Path, where: str = "step", number: int = 0) -> int:
    arguments = [str(folder), str(output), where, str(number)]
    return subprocess.run(
        [sys.executable, str(CASE), *arguments], check=False, capture_output=True
    ).returncode


@pytest.mark.parametrize(
    ("where", "number"),
    # In the first epoch; half-way in the third; and with the files of the second
    # written, but not yet named by the manifest.
    [
        pytest.param("step", 3, marks=pytest.mark.slow),
        ("step", 2 * N_STEPS + 3),
        pytest.param("manifest", 2, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_with_the_same_weights(tmp_path, where, number):
    folder, output = tmp_path / "run", tmp_path / "killed.safetensors"
    assert in_process(folder, output, where, number) == -signal.SIGKILL
    assert not output.exists()
    assert in_process(folder, output) == 0
    assert in_process(tmp_path / "whole", tmp_path / "whole.safetensors") == 0
    assert output.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    logs = [
        [json.loads(line) for line in (at / "log.jsonl").read_text().splitlines()]
        for at in (folder, tmp_path / "whole")
    ]
    for lines in logs:
        for line in lines:
            del line["seconds"]
    assert logs[0] == logs[1]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_a_run_with_a_folder_is_a_run_without(tmp_path):
    first, _ = trained(None)
    second, result = trained(tmp_path)
    assert _same(first, second)
    again, read = trained(tmp_path)  # finished: read, not trained
    assert _same(again, second)
    assert read.history == result.history
    assert read.best_epoch == result.best_epoch


def test_another_seed_is_another_run_and_the_callers_numbers_are_left_alone():
    first, _ = trained(None)
    other, _ = trained(None, replace(CONFIG, seed=8))
    assert not _same(first, other)
    data, model = samples(), network()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, data, CONFIG, task=Regression(), groups=range(32))
    assert torch.equal(torch.rand(3), expected)


def _same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(
            first.state_dict().values(), second.state_dict().values(), strict=True
        )
    )


def test_a_folder_with_another_run_is_refused(tmp_path):
    trained(tmp_path)
    with pytest.raises(UsageError, match=r"learning_rate was 0\.01, now 0\.02"):
        trained(tmp_path, replace(CONFIG, learning_rate=0.02))
    with pytest.raises(UsageError, match="groups_sha256"):
        trained(tmp_path, groups=[0, 1, 2, 3] * 8)


def test_a_damaged_folder_is_told(tmp_path):
    trained(tmp_path)
    (state,) = tmp_path.glob("last-*.safetensors")
    whole = state.read_bytes()
    state.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(DataError, match="not as it was written"):
        trained(tmp_path)
    state.write_bytes(whole)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(DataError, match="0 lines for 4 epochs"):
        trained(tmp_path)
    (tmp_path / "training.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="damaged"):
        trained(tmp_path)


def test_the_epoch_is_chosen_by_held_out_groups_and_its_weights_are_kept():
    groups = np.repeat(range(8), 4)
    config = replace(CONFIG, n_epochs=8, learning_rate=0.3, schedule="constant")
    model, result = trained(None, config, groups=groups)
    held = {int(group) for group in groups[result.validation]}
    assert len(held) == 2
    assert len(result.validation) == 8
    losses = [line["validation_loss"] for line in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    scores = evaluate(
        model, samples(), task=Regression(), rows=result.validation.tolist()
    )
    # Batches of 4 rather than 5: the same sums in another order.
    assert scores["loss"] == pytest.approx(min(losses), rel=1e-5)
    assert result.best_score == min(losses)
    higher = replace(config, monitor="worst", higher_is_better=True)
    _, result = trained(None, higher, groups=groups)
    worst = [line["validation_worst"] for line in result.history]
    assert result.best_epoch == 1 + int(np.argmax(worst))


def test_a_run_stops_when_it_has_waited_long_enough():
    # Nothing is learned, so the first epoch stays the best.
    config = replace(CONFIG, n_epochs=50, patience=3, learning_rate=1e-30)
    model = nn.Linear(6, 1)
    result = fit(model, samples(), config, task=Regression(), groups=range(32))
    assert result.best_epoch == 1
    assert len(result.history) == 1 + 3


def test_without_validation_the_last_epoch_is_kept():
    _, result = trained(None, replace(CONFIG, validation_fraction=0))
    assert result.best_epoch == CONFIG.n_epochs
    assert math.isnan(result.best_score)
    assert len(result.validation) == 0


def test_no_group_is_on_both_sides():
    groups = ["b", "a", "b", "c", "d", "a", "c"]
    train, held = inner_split(groups, 0.5, seed=0)
    assert sorted([*train, *held]) == list(range(7))
    assert not {groups[row] for row in train} & {groups[row] for row in held}
    with pytest.raises(UsageError, match="1 group"):
        inner_split(["a"] * 5, 0.2, seed=0)


def test_each_pass_has_each_sample_once_wherever_epochs_end():
    rows = np.arange(10, 21)  # 11 samples: 4, 4 and 3
    one_pass = [step_rows(rows, step, 4, False, 0) for step in range(3)]
    assert sorted(chain(*one_pass)) == rows.tolist()
    assert [len(batch) for batch in one_pass] == [4, 4, 3]
    next_pass = [step_rows(rows, step, 4, False, 0) for step in range(3, 6)]
    assert sorted(chain(*next_pass)) == rows.tolist()
    assert next_pass != one_pass
    dropped = [step_rows(rows, step, 4, True, 0) for step in range(2)]
    assert [len(batch) for batch in dropped] == [4, 4]


def test_one_step_is_that_of_adam_by_hand():
    """After one step of Adam each weight has moved by the learning rate."""
    config = TrainingConfig(
        n_epochs=1, batch_size=32, validation_fraction=0, learning_rate=0.01
    )
    model = network()[0]
    head = nn.Sequential(model, nn.Flatten(0), nn.Unflatten(0, (32, 16)))
    before = model.weight.detach().clone()
    fit(head, samples(), config, task=_Sum(), groups=range(32))
    # The update is g / (|g| + eps) times the rate, eps being 1e-8.
    torch.testing.assert_close(
        (model.weight.detach() - before).abs(),
        torch.full_like(before, 0.01),
        rtol=1e-4,
        atol=0,
    )


class _Sum(Regression):
    def loss(self, model, batch):
        return model(batch["x"]).square().sum()


def test_gradients_are_shortened_to_the_norm_that_was_asked():
    # Without momentum or curvature in the way: the reported norm is before clipping.
    config = replace(CONFIG, max_grad_norm=None, n_epochs=1)
    _, free = trained(None, config)
    _, clipped = trained(None, replace(config, max_grad_norm=1e-9))
    assert free.history[0]["grad_norm"] > 1e-3
    # Adam divides by the size of the gradient, but eps is ten times the clipped one.
    assert clipped.history[0]["train_loss"] > free.history[0]["train_loss"]


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    config = TrainingConfig(learning_rate=1.0, warmup_steps=4, schedule="cosine")
    rates = [config.learning_rate_at(step, 104) for step in range(105)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[54] == pytest.approx(0.5)  # half of the cosine
    assert rates[104] == pytest.approx(0, abs=1e-12)


def test_progress_and_scores_are_told():
    told = []
    trained(None, replace(CONFIG, n_epochs=2), progress=lambda *x: told.append(x))
    assert told == [(step, 2 * N_STEPS) for step in range(1, 2 * N_STEPS + 1)]


def test_mistakes_are_clear_errors():
    with pytest.raises(UsageError, match="loss, worst, got 'dice'"):
        trained(None, replace(CONFIG, monitor="dice"))
    with pytest.raises(UsageError, match="got 3 for 32 samples"):
        trained(None, groups=[1, 2, 3])
    data = samples()
    data[0]["x"] = torch.full((6,), torch.nan)
    config = replace(CONFIG, validation_fraction=0)
    with pytest.raises(DataError, match="not finite"):
        fit(network(), data, config, task=Regression(), groups=range(32))
    with pytest.raises(UsageError, match="all are frozen"):
        frozen = network().requires_grad_(False)
        fit(frozen, data, config, task=Regression(), groups=range(32))
    with pytest.raises(UsageError, match="patience needs validation"):
        TrainingConfig(patience=2, validation_fraction=0)
    with pytest.raises(UsageError, match="no samples"):
        evaluate(network(), [], task=Regression())


@pytest.mark.parametrize(
    "settings",
    [
        {"n_epochs": 0},
        {"learning_rate": 0.0},
        {"max_grad_norm": math.inf},
        {"validation_fraction": 1.0},
        {"schedule": "step"},
        {"precision": "float16"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        TrainingConfig(**settings)

"""A unit finishes once, and says why it would have to be computed again."""

import subprocess
import sys

import pytest

from neuromm.core import ResourceLimitError, UsageError
from neuromm.core.files import write_text
from neuromm_pipelines.units import UnitState, locked

SETTINGS = {"model": {"seed": 0, "alphas": (1.0, 10.0)}, "trial_type": ()}
INPUTS = {"sub-01/func/bold.nii.gz": "10 bytes, 1"}


@pytest.fixture
def finished(tmp_path):
    output = write_text(tmp_path / "sub-01" / "scores.tsv", "r\n0.5\n")
    state = UnitState(tmp_path, "sub-01_func", SETTINGS, INPUTS)
    assert not state.is_done()
    state.finish([output])
    return tmp_path, output


def test_the_same_settings_and_inputs_are_done(finished):
    assert UnitState(finished[0], "sub-01_func", SETTINGS, INPUTS).is_done()


@pytest.mark.parametrize("damage", ["remove", "change"])
def test_a_unit_whose_file_was_lost_or_changed_is_computed_again(finished, damage):
    folder, output = finished
    output.unlink() if damage == "remove" else output.write_text("r\n0.9\n")
    assert not UnitState(folder, "sub-01_func", SETTINGS, INPUTS).is_done()


def test_another_setting_is_refused_by_its_name_and_both_values(finished):
    changed = {**SETTINGS, "model": {"seed": 1, "alphas": (1.0, 10.0)}}
    state = UnitState(finished[0], "sub-01_func", changed, INPUTS)
    with pytest.raises(
        UsageError, match=r"setting model\.seed was 0, now 1.*overwrite"
    ):
        state.is_done()


def test_another_input_is_refused_by_its_name(finished):
    changed = {"sub-01/func/bold.nii.gz": "11 bytes, 2"}
    state = UnitState(finished[0], "sub-01_func", SETTINGS, changed)
    with pytest.raises(UsageError, match=r"bold\.nii\.gz was changed"):
        state.is_done()


def test_forgetting_a_unit_removes_its_files_alone(finished):
    folder, output = finished
    other = write_text(folder / "sub-02" / "scores.tsv", "r\n")
    state = UnitState(folder, "sub-01_func", SETTINGS, INPUTS)
    state.forget()
    assert not state.is_done()
    assert not output.exists()
    assert other.exists()


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from neuromm_pipelines.units import locked\n"
        "with locked(Path(sys.argv[1]), 'unit'): print('held', flush=True); "
        "time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ResourceLimitError, match=f"process {holder.pid} on"),
            locked(tmp_path, "unit"),
        ):
            pass
        with locked(tmp_path, "another unit"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path, "unit"):
        pass

"""RidgeCV on targets larger than memory, on other arrays, and after a kill."""

import os
import signal
import subprocess
import sys
import textwrap

import h5py
import nibabel
import numpy as np
import pytest
import torch
import zarr

from neuromm.core import ResourceLimitError, UsageError
from neuromm.encoding import NiftiTargets, RidgeCV, plan

ALPHAS = np.geomspace(1e-1, 1e4, 7)
RESULTS = ("coef_", "intercept_", "best_alphas_", "cv_scores_", "valid_targets_")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*of the targets chose the", "ignore:.*targets are constant"
)


def problem(dtype="f8", n_targets=60):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 12))
    y = x @ rng.standard_normal((12, n_targets))
    y += rng.standard_normal(y.shape) * np.geomspace(0.1, 10, n_targets)
    y[3, 5] = np.nan
    y[:, 7] = 2.0
    return x.astype(dtype), y.astype(dtype)


def fit(x, y, **settings):
    return RidgeCV(alphas=ALPHAS, **settings).fit(x, y)


def assert_same(found, expected, rtol=1e-10):
    for name in RESULTS:
        values = getattr(found, name)
        values = values.numpy() if isinstance(values, torch.Tensor) else values
        np.testing.assert_allclose(
            values, getattr(expected, name), rtol=rtol, atol=1e-12
        )


@pytest.fixture(params=["memmap", "fortran memmap", "hdf5", "slabs", "zarr"])
def stored(request, tmp_path):
    _, y = problem()
    if "memmap" in request.param:
        order = "F" if "fortran" in request.param else "C"
        file = np.memmap(tmp_path / "y.dat", "f8", "w+", shape=y.shape, order=order)
        file[:] = y
        yield file
    elif request.param == "zarr":
        array = zarr.create_array(
            tmp_path / "y.zarr", shape=y.shape, chunks=(20, 16), dtype="f8"
        )
        array[:] = y
        yield array
    else:
        chunks = (80, 16) if request.param == "hdf5" else (4, 60)
        with h5py.File(tmp_path / "y.h5", "w") as file:
            yield file.create_dataset("y", data=y, chunks=chunks, compression="gzip")


def test_targets_on_disk_are_fitted_as_those_in_memory(stored):
    x, y = problem()
    assert_same(fit(x, stored, memory_limit="200KB"), fit(x, y))


def test_voxels_of_runs_are_fitted_as_the_masked_array(tmp_path):
    x, _ = problem("f4")
    rng = np.random.default_rng(1)
    runs = []
    for number, length in enumerate((30, 50)):
        image = nibabel.Nifti1Image(
            rng.standard_normal((4, 5, 3, length)).astype("f4"), np.eye(4)
        )
        runs.append(tmp_path / f"run-{number}_bold.nii.gz")
        nibabel.save(image, runs[-1])
    mask = rng.random((4, 5, 3)) > 0.4
    mask_img = nibabel.Nifti1Image(mask.astype("u1"), np.eye(4))
    y = np.concatenate([nibabel.load(run).get_fdata()[mask].T for run in runs])
    with NiftiTargets(runs, mask_img) as targets:
        found = fit(x, targets)
    assert_same(found, fit(x, y.astype("f4")), rtol=1e-5)


@pytest.mark.parametrize("n_features", [12, 150])
def test_torch_tensors_give_the_numbers_of_numpy_and_stay_tensors(n_features):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((80, n_features))
    _, y = problem()
    expected = fit(x, y)
    found = fit(torch.from_numpy(x), torch.from_numpy(y))
    assert isinstance(found.coef_, torch.Tensor)
    assert_same(found, expected, rtol=1e-8)
    prediction = found.predict(torch.from_numpy(x))
    np.testing.assert_allclose(prediction.numpy(), expected.predict(x), rtol=1e-8)
    assert found.score(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(
        expected.score(x, y)
    )
    # Targets of the host beside features elsewhere: results are the host's.
    beside = fit(torch.from_numpy(x), y)
    assert isinstance(beside.coef_, np.ndarray)
    assert_same(beside, expected, rtol=1e-8)


def test_a_tensor_that_cannot_be_fitted_is_refused():
    x, y = problem()
    with pytest.raises(ValueError, match="X contains NaN"):
        fit(torch.from_numpy(x * np.nan), y)
    with pytest.raises(ValueError, match="2-D, float32 or float64"):
        fit(torch.ones((80, 2), dtype=torch.int64), y)
    with pytest.raises(ValueError, match="one row per sample"):
        fit(torch.from_numpy(x), torch.from_numpy(y[1:]))


KILLED = """
    import os, signal, sys
    import numpy as np
    from neuromm.encoding import RidgeCV, fit_checkpoint
    x, y = np.load(sys.argv[1]), np.load(sys.argv[2], mmap_mode="r")
    store, count = fit_checkpoint.FitCheckpoint.store, 0
    def killed(self, *batch):
        global count
        store(self, *batch)
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    fit_checkpoint.FitCheckpoint.store = killed
    RidgeCV(alphas=np.geomspace(0.1, 1e4, 7), memory_limit="200KB",
            checkpoint=sys.argv[3]).fit(x, y)
"""


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tmp_path):
    x, y = problem(n_targets=400)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    stored = np.load(tmp_path / "y.npy", mmap_mode="r")
    folders = tmp_path / "killed", tmp_path / "whole"
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "x.npy",
         tmp_path / "y.npy", folders[0]],
        env=os.environ, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    done = []
    for folder in folders:
        model = RidgeCV(alphas=ALPHAS, memory_limit="200KB", checkpoint=folder)
        done.append(model.fit(x, stored))
    for name in RESULTS:
        np.testing.assert_array_equal(getattr(done[0], name), getattr(done[1], name))
        file = name.rstrip("_") + ".npy"
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    assert_same(done[0], fit(x, y))
    with pytest.raises(UsageError, match="alphas"):
        RidgeCV(alphas=ALPHAS[1:], checkpoint=folders[0]).fit(x, stored)


def test_results_on_disk_need_no_room_in_memory(tmp_path):
    """The limit is below the weights themselves: 40 features of 4000 targets."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 40))
    y = rng.standard_normal((80, 4000))
    weights = x.shape[1] * y.shape[1] * x.itemsize
    settings = {"alphas": ALPHAS, "memory_limit": int(0.8 * weights)}
    with pytest.raises(ResourceLimitError, match="memory_limit"):
        RidgeCV(**settings).fit(x, y)
    sizes = (*x.shape, y.shape[1])
    planned = plan(*sizes, n_alphas=7, memory_limit=int(0.8 * weights), checkpoint=True)
    assert planned.peak_memory <= 0.8 * weights
    stored = RidgeCV(**settings, checkpoint=tmp_path).fit(x, y)
    assert_same(stored, RidgeCV(alphas=ALPHAS).fit(x, y))

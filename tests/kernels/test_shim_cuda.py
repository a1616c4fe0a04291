"""The shim sees what a GPU would do wrong, and a data race."""

import re

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.kernels import gpu_columns, gpu_mixtures, gpu_permutation, gpu_ridge
from neuromm.kernels.gpu_launch import Launch
from tests.kernels import (
    assign_cases,
    column_cases,
    cuda_shim,
    mixture_cases,
    pair_cases,
    siglip_cases,
    soft_target_cases,
    volume_cases,
)
from tests.kernels import cuda_cases as cases

SOURCES = {path.stem: path for path in cuda_shim.sources()}

PRELUDE = '#include "../common.cuh"\nextern "C" __global__ void probe'


def barriers(name: str) -> int:
    return len(re.findall(r"__syncthreads\(\);", SOURCES[name].read_text()))


def path_sums_is_right() -> bool:
    inputs = cases.path_inputs(9, 70, 65, "float64", 0)
    found = gpu_ridge.path_sums(**inputs)
    return all(
        np.allclose(fast, exact, rtol=1e-10)
        for fast, exact in zip(found, cases.path_sums(**inputs), strict=True)
    )


def block_perm_is_right() -> bool:
    y, yhat, rows, orders = cases.permutation_inputs(300, 33, 17, 2, "float64")
    found = gpu_permutation.paired_null(y, yhat, rows, orders)
    rng = np.random.default_rng(0)
    groups = [(rows, orders, True), (rows, rng.permuted(orders, axis=1), True)]
    gain = sum(cases.permuted_gain(y, yhat, *group[:2]) for group in groups)
    count = gpu_permutation.count_exceeding(y, yhat, groups, 1.0)
    return bool(
        np.allclose(found, cases.permuted_gain(y, yhat, rows, orders), atol=1e-9)
        and np.array_equal(count, (gain >= -1e-12).sum(axis=0))
    )


def col_stats_is_right() -> bool:
    y, prediction = column_cases.pair(600, 33, "float64", 0)
    found = gpu_columns.column_moments(y, prediction)
    return np.allclose(found, column_cases.moments(y, prediction), rtol=1e-10)


def alpha_combine_is_right() -> bool:
    errors, mix = mixture_cases.mixtures(9, 40, 1, 9, 65, "float64", 0)
    found = gpu_mixtures.mixed_squares(errors, mix)
    exact = (np.tensordot(mix, errors, axes=1) ** 2).sum(axis=2)
    return np.allclose(found, exact, rtol=1e-10)


RIGHT = {
    "alpha_combine": alpha_combine_is_right,
    "path_sums": path_sums_is_right,
    "block_perm": block_perm_is_right,
    "col_stats": col_stats_is_right,
    "siglip": siglip_cases.is_right,
    "soft_target": soft_target_cases.is_right,
    "pair_stats": pair_cases.stats_are_right,
    "small_pairs": pair_cases.small_sums_are_right,
    "volume": volume_cases.kernels_are_right,
    "assign": assign_cases.kernels_are_right,
}


def probe(tmp_path, cuda_builds, text, **settings):
    """Launch a kernel that is written in a test."""
    home = tmp_path / "encoding"
    home.mkdir()
    (tmp_path / "common.cuh").write_text(
        (shared_folder("cuda") / "common.cuh").read_text()
    )
    (home / "probe.cu").write_text(PRELUDE + text)
    shim = cuda_shim.Shim(cuda_builds, source=home / "probe.cu", **settings)
    output = shim.empty((64,), "float64", np.empty(0))
    geometry = Launch("encoding/probe.cu", "probe", (1, 1, 1), (64, 1, 1), 64 * 8)
    shim.launch(geometry, [output], output)
    return output


def test_every_source_with_a_barrier_is_checked():
    assert {name for name in SOURCES if barriers(name)} == RIGHT.keys()


def test_every_launcher_runs_in_the_shim(shim):
    names = {module.__name__.rpartition(".")[2] for module in cuda_shim.launchers()}
    assert {"gpu_columns", "gpu_permutation", "gpu_ridge"} <= names
    for module in cuda_shim.launchers():
        assert module.launch == shim.launch


def test_a_changed_header_of_a_family_is_built_again(tmp_path, cuda_builds):
    home = tmp_path / "contrastive"
    home.mkdir()
    source, header = home / "probe.cu", home / "probe.cuh"
    text = '#include "probe.cuh"\nextern "C" __global__ void probe(double *out)'
    source.write_text(text + " { out[threadIdx.x] = VALUE; }")
    shim = cuda_shim.Shim(cuda_builds, source=source)
    for value in (1.0, 2.0):
        header.write_text(f"#define VALUE {value}\n")
        output = shim.empty((32,), "float64", np.empty(0))
        geometry = Launch("contrastive/probe.cu", "probe", (1, 1, 1), (32, 1, 1))
        shim.launch(geometry, [output], output)
        np.testing.assert_array_equal(output, value)


@pytest.mark.parametrize("name", RIGHT)
def test_kernels_are_right_before_anything_is_deleted(shim, name):
    assert RIGHT[name]()


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name in RIGHT for number in range(barriers(name))],
)
def test_each_barrier_is_missed_by_some_order_of_threads(
    name, number, cuda_builds, monkeypatch, tmp_path
):
    source = cuda_shim.without_barrier(SOURCES[name], number, tmp_path)
    shim = cuda_shim.patched(cuda_shim.Shim(cuda_builds, source=source), monkeypatch)
    right = []
    for schedule in cuda_shim.SCHEDULES:
        shim.schedule = schedule
        right.append(RIGHT[name]())
    assert not all(right)


@pytest.mark.parametrize("schedule", cuda_shim.SCHEDULES)
def test_a_barrier_that_some_threads_pass_by_is_an_error(
    schedule, tmp_path, cuda_builds
):
    text = (
        "(double *out) { if (threadIdx.x < 40) __syncthreads(); out[threadIdx.x] = 1; }"
    )
    with pytest.raises(cuda_shim.KernelError, match="barrier in line 2 that not all"):
        probe(tmp_path, cuda_builds, text, schedule=schedule)


def test_two_barriers_are_not_one(tmp_path, cuda_builds):
    text = """(double *out) {
      if (threadIdx.x % 2) __syncthreads();
      else
        __syncthreads();
      out[threadIdx.x] = 1;
    }"""
    with pytest.raises(
        cuda_shim.KernelError, match=r"barrier in line [35] that not all"
    ):
        probe(tmp_path, cuda_builds, text)


def test_a_shuffle_that_a_lane_misses_is_an_error(tmp_path, cuda_builds):
    text = """(double *out) {
      if (threadIdx.x == 33) return;
      out[threadIdx.x] = __shfl_xor_sync(NEUROMM_FULL_WARP, 1.0, 1);
    }"""
    with pytest.raises(cuda_shim.KernelError, match="a lane that is not there"):
        probe(tmp_path, cuda_builds, text, schedule="reverse")


def test_shared_memory_that_nobody_wrote_is_nan(tmp_path, cuda_builds):
    text = """(double *out) {
      __shared__ double fixed[64];
      NEUROMM_DYNAMIC_SHARED(double, sized);
      if (threadIdx.x % 4 == 0) fixed[threadIdx.x] = 1;
      if (threadIdx.x % 4 == 1) sized[threadIdx.x] = 1;
      out[threadIdx.x] = threadIdx.x % 2 ? sized[threadIdx.x] : fixed[threadIdx.x];
    }"""
    output = probe(tmp_path, cuda_builds, text)
    np.testing.assert_array_equal(np.isnan(output), np.arange(64) % 4 > 1)


def test_writing_behind_shared_memory_is_an_error(tmp_path, cuda_builds):
    text = """(double *out) {
      NEUROMM_DYNAMIC_SHARED(double, sized);
      sized[threadIdx.x + 1] = out[0];
    }"""
    with pytest.raises(cuda_shim.KernelError, match="behind its end"):
        probe(tmp_path, cuda_builds, text)


def test_writing_behind_an_output_is_seen(tmp_path, cuda_builds):
    text = "(double *out) { out[threadIdx.x + 1] = 1; }"
    with pytest.raises(AssertionError, match="behind an output"):
        probe(tmp_path, cuda_builds, text)


def test_shuffles_and_atomic_sums_do_as_on_a_gpu(tmp_path, cuda_builds):
    text = """(double *out) {
      const int lane = threadIdx.x % 32;
      const double down = __shfl_down_sync(NEUROMM_FULL_WARP, 1.0 * threadIdx.x, 5);
      const double up = __shfl_up_sync(NEUROMM_FULL_WARP, 1.0 * threadIdx.x, 3);
      const double first = __shfl_sync(NEUROMM_FULL_WARP, 1.0 * threadIdx.x, 0);
      NEUROMM_DYNAMIC_SHARED(double, total);
      if (threadIdx.x == 0) total[0] = 0;
      __syncthreads();
      atomicAdd(total, 1.0);
      __syncthreads();
      out[threadIdx.x] = lane < 16 ? down + 100 * first : up + 1e4 * total[0];
    }"""
    thread = np.arange(64)
    lane = thread % 32
    expected = np.where(
        lane < 16, thread + 5 + 100 * (thread - lane), thread - 3 + 1e4 * 64
    )
    for schedule in cuda_shim.SCHEDULES:
        folder = tmp_path / schedule
        folder.mkdir()
        output = probe(folder, cuda_builds, text, schedule=schedule)
        np.testing.assert_array_equal(output, expected)


@pytest.fixture
def threads(cuda_builds, monkeypatch, tmp_path):
    """Launchers that run kernels under ThreadSanitizer."""
    shim = cuda_shim.patched(cuda_shim.ThreadShim(cuda_builds), monkeypatch)
    try:
        cuda_shim.build(SOURCES["alpha_select"], cuda_builds, threads=True)
        gpu_ridge.select(np.zeros((1, 1)), np.zeros(1), 1.0, np.zeros(1))
    except (AssertionError, OSError, cuda_shim.KernelError) as error:
        if "tsan" in str(error) or "unexpected memory mapping" in str(error):
            pytest.skip(f"ThreadSanitizer does not run here: {error}")
        raise
    return shim


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_thread_sanitizer_finds_no_race(threads, name):
    assert RIGHT[name]()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("path_sums", 1), ("block_perm", 2)])
def test_thread_sanitizer_finds_a_missing_barrier(threads, name, number, tmp_path):
    threads.source = cuda_shim.without_barrier(SOURCES[name], number, tmp_path)
    with pytest.raises(cuda_shim.KernelError, match="data race"):
        RIGHT[name]()

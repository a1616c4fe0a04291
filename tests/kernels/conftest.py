"""CUDA kernels on the CPU: builds kept from run to run, three orders of threads."""

import pytest

from tests.kernels import cuda_shim


@pytest.fixture(scope="session")
def cuda_builds(pytestconfig):
    """Folder of what the shim builds, the same for all workers."""
    if cuda_shim.COMPILER is None:
        pytest.skip("no g++ to build CUDA kernels for the CPU")
    return pytestconfig.cache.mkdir("cuda")


@pytest.fixture(params=cuda_shim.SCHEDULES)
def shim(request, cuda_builds, monkeypatch):
    """Launchers of `neuromm.kernels` that run kernels on the CPU."""
    return cuda_shim.patched(
        cuda_shim.Shim(cuda_builds, schedule=request.param, seed=7), monkeypatch
    )

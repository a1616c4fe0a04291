"""Every kernel compiles with NVRTC, as in production, and the cache of what it gives.

`make test-kernels` runs this in an environment with CuPy and NVRTC, which need no GPU.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neuromm._resources import shared_folder
from neuromm.kernels import gpu_loader
from neuromm.kernels.gpu_loader import compile_cubin, cubin_path, has_cupy, has_gpu
from tests.kernels.cuda_shim import kernel_names, sources

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
STATIC_SHARED_BYTES = 48 * 1024
NVCC = shutil.which("nvcc")


@pytest.fixture(scope="session")
def nvrtc():
    if not has_cupy():
        pytest.skip("CuPy is not installed: `make test-kernels` compiles the kernels")
    try:
        gpu_loader._nvrtc()
    except ImportError as error:
        pytest.skip(f"NVRTC is not installed: {error}")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NEUROMM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cubins"


@pytest.fixture
def source(tmp_path) -> Path:
    """Copy of a source and its header, to be changed."""
    (tmp_path / "encoding").mkdir()
    cuda = shared_folder("cuda")
    shutil.copy(cuda / "common.cuh", tmp_path)
    return Path(
        shutil.copy(cuda / "encoding" / "alpha_select.cu", tmp_path / "encoding")
    )


def named(path: Path) -> str:
    return path.relative_to(shared_folder("cuda")).as_posix()


def test_sources_are_found_by_name():
    assert "encoding/path_sums.cu" in [named(path) for path in sources()]
    for path in sources():
        assert kernel_names(path), f"{path} has no kernel"


@pytest.mark.parametrize("path", sources(), ids=named)
def test_a_source_opens_with_formula_layout_launch_and_numerics(path):
    header = path.read_text().partition("\n#include")[0].partition("\ntemplate")[0]
    for part in ("// Layout ", "// Launch ", "// Numerics "):
        assert part in header


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("path", sources(), ids=named)
def test_nvrtc_compiles_every_source(path, arch):
    cubin = compile_cubin(path, arch=arch)
    assert cubin.startswith(b"\x7fELF")
    for name in kernel_names(path):
        assert name.encode() in cubin


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("path", sources(), ids=named)
def test_nvcc_agrees_and_nothing_spills(path, arch, tmp_path):
    done = subprocess.run(
        [NVCC, "-std=c++17", "-cubin", f"-arch={arch}", "-Werror", "all-warnings",
         "-Xptxas", "-v", "-o", tmp_path / "built.cubin", path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stacks = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        done.stderr,
    )
    assert len(stacks) == len(kernel_names(path))
    assert {number for stack in stacks for number in stack} == {"0"}
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", done.stderr)]
    assert len(registers) == len(stacks)
    assert max(registers) <= 255  # a block of 256 threads can run
    shared = [int(n) for n in re.findall(r"(\d+) bytes smem", done.stderr)]
    assert max(shared, default=0) <= STATIC_SHARED_BYTES


@pytest.mark.usefixtures("nvrtc")
def test_an_error_in_a_source_is_told_with_its_line(source):
    source.write_text(source.read_text() + "\nint broken = no_such_name;\n")
    with pytest.raises(
        RuntimeError, match=r"(?s)alpha_select.cu does not .*sm_90 with"
    ) as told:
        compile_cubin(source, arch="sm_90")
    assert "no_such_name" in str(told.value)


@pytest.mark.usefixtures("nvrtc")
def test_an_architecture_that_nvrtc_does_not_know_is_an_error(source):
    with pytest.raises(RuntimeError, match="does not compile for sm_11"):
        compile_cubin(source, arch="sm_11")


@pytest.mark.usefixtures("nvrtc")
def test_a_source_is_compiled_once(source, cache, monkeypatch):
    path = cubin_path(source, arch="sm_90")
    assert path.parent == cache
    assert path.read_bytes() == compile_cubin(source, arch="sm_90")

    def no_compiler(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr(gpu_loader, "compile_cubin", no_compiler)
    assert cubin_path(source, arch="sm_90") == path
    assert [found.name for found in cache.iterdir()] == [path.name]


@pytest.mark.usefixtures("nvrtc")
def test_a_change_of_source_header_option_or_architecture_is_compiled(source, cache):
    found = [cubin_path(source, arch="sm_90")]
    found.append(cubin_path(source, arch="sm_80"))
    found.append(cubin_path(source, arch="sm_90", options=("-DNDEBUG",)))
    header = source.parent.parent / "common.cuh"
    header.write_text(header.read_text() + "\n// changed\n")
    found.append(cubin_path(source, arch="sm_90"))
    source.write_text(source.read_text() + "\n// changed\n")
    found.append(cubin_path(source, arch="sm_90"))
    assert len(set(found)) == len(found) == len(list(cache.iterdir()))


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("damage", [b"", b"\x7fELF cut off"])
def test_a_damaged_file_is_compiled_again(source, cache, damage):
    path = cubin_path(source, arch="sm_90")
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert cubin_path(source, arch="sm_90").read_bytes() == whole


@pytest.mark.usefixtures("nvrtc")
def test_a_cache_that_cannot_be_written_names_the_variable(
    source, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NEUROMM_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OSError, match="NEUROMM_CACHE_DIR to a folder that can be"):
        cubin_path(source, arch="sm_90")


def test_the_cache_follows_the_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("NEUROMM_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gpu_loader.cache_folder() == tmp_path / "neuromm" / "cubins"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gpu_loader.cache_folder() == tmp_path / ".cache" / "neuromm" / "cubins"


def test_looking_for_a_gpu_imports_cupy_and_importing_the_loader_does_not():
    script = (
        "import sys\n"
        "import neuromm.kernels.gpu_loader as loader, neuromm.kernels.gpu_ridge\n"
        "import neuromm.kernels.gpu_permutation\n"
        "assert 'cupy' not in sys.modules\n"
        "print(loader.has_cupy(), loader.has_gpu(), 'cupy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(has_cupy()), str(has_gpu()), str(has_cupy())]


@pytest.mark.parametrize(("cupy", "gpu"), [(False, False), (True, False), (True, True)])
def test_cupy_and_gpu_are_two_flags(cupy, gpu, monkeypatch):
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: cupy)
    monkeypatch.setattr(gpu_loader, "has_gpu", lambda: gpu)
    assert gpu_loader.HAS_CUPY is cupy
    assert gpu_loader.HAS_GPU is gpu
    with pytest.raises(AttributeError, match="'HAS_TPU'"):
        _ = gpu_loader.HAS_TPU


@pytest.mark.skipif(has_cupy(), reason="CuPy is installed")
def test_a_kernel_without_cupy_names_the_extra():
    with pytest.raises(ImportError, match=r'pip install "neuromm\[gpu13\]"'):
        gpu_loader.kernel("alpha_select", sources()[0])

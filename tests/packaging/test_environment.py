"""What an installation must not bring."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CUDA = re.compile(r"(nvidia-|cuda-|cupy|triton$)")


def installed() -> set[str]:
    return {
        distribution.metadata["Name"].lower()
        for distribution in metadata.distributions()
    }


def test_no_cuda_package_is_installed_beside_a_cpu_build_of_torch():
    torch = metadata.version("torch")
    if Path(sys.prefix) != ROOT / ".venv" or not torch.endswith("+cpu"):
        pytest.skip(f"not the .venv of make with a CPU build (torch {torch})")
    assert [name for name in sorted(installed()) if CUDA.match(name)] == []


def test_torchvision_is_not_installed():
    assert "torchvision" not in installed()


def test_no_base_dependency_asks_for_cuda_or_for_what_needs_torchvision():
    required = [
        re.match(r"[\w.-]+", line)[0].lower()
        for line in metadata.requires("neuromm")
        if "extra ==" not in line
    ]
    assert "torch" in required
    unwanted = {"torchvision", "timm", "open-clip-torch", "lightning"}
    assert not [n for n in required if CUDA.match(n) or n in unwanted]


def test_torch_has_bounds_and_neither_a_pin_nor_a_local_version():
    (torch,) = [
        line for line in metadata.requires("neuromm") if re.match(r"torch\W", line)
    ]
    assert "==" not in torch
    assert "+" not in torch

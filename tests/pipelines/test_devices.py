"""--device and --backend: what runs where, and what is refused."""

import pytest

from neuromm.core import UsageError
from neuromm_pipelines import devices
from neuromm_pipelines.devices import chosen_device


@pytest.fixture
def gpu(monkeypatch, request):
    monkeypatch.setattr(devices, "_has_gpu", lambda backend: request.param)


@pytest.mark.parametrize(
    ("gpu", "asked", "chosen"),
    [
        (False, ("auto", "auto"), ("numpy", None)),
        (False, ("auto", "torch"), ("torch", None)),
        (False, ("cpu", "numpy"), ("numpy", None)),
        (True, ("auto", "auto"), ("torch", "cuda:0")),
        (True, ("auto", "numpy"), ("numpy", None)),
        (True, ("auto", "cupy"), ("cupy", "cuda:0")),
        (True, ("cuda:1", "auto"), ("torch", "cuda:1")),
        (True, ("cpu", "auto"), ("numpy", None)),
    ],
    indirect=["gpu"],
)
def test_the_gpu_is_taken_if_it_is_there_and_not_excluded(gpu, asked, chosen):
    assert chosen_device(*asked) == chosen


@pytest.mark.parametrize(
    ("gpu", "asked", "words"),
    [
        (False, ("cuda", "auto"), "no CUDA device that torch"),
        (False, ("cuda:0", "cupy"), "no CUDA device that CuPy"),
        (False, ("auto", "cupy"), "needs a CUDA device"),
        (True, ("cuda", "numpy"), "runs on the CPU"),
        (True, ("tpu", "auto"), "--device takes auto"),
    ],
    indirect=["gpu"],
)
def test_what_cannot_run_is_refused(gpu, asked, words):
    with pytest.raises(UsageError, match=words):
        chosen_device(*asked)

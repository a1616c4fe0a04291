"""The bench of the kernels on a GPU, with sizes that take no time."""

import json
from dataclasses import replace

import pytest

from neuromm.kernels.gpu_loader import has_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="GPU: not present"),
    pytest.mark.usefixtures("bench_folder"),
]


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_every_kernel_is_right_and_timed_on_this_gpu(library, tmp_path, monkeypatch):
    module = pytest.importorskip(library)
    if library == "torch" and not module.cuda.is_available():
        pytest.skip("GPU: not present for torch")
    import kernels
    from kernel_bench import device

    monkeypatch.setattr(device.Gpu, "share_of_time", 1e-3)
    path = tmp_path / "results.json"
    args = kernels.build_parser().parse_args([f"--json={path}"])
    cases = [replace(case, sizes=case.small) for case in kernels.CASES]
    kernels.run(cases, device.Gpu(library), args)
    rows = json.loads(path.read_text())["rows"]
    taken = [case for case in cases if library in case.libraries]
    # Cases that differ by their size alone are one here.
    wanted = list(dict.fromkeys((case.name, case.title) for case in taken))
    assert [(row["kernel"], row["title"]) for row in rows] == wanted
    for row in rows:
        assert row["right"]
        assert 0 < row["kernel_low_ms"] <= row["kernel_high_ms"]
        assert row.get("share", 1) > 0
        assert row["facts"]["copy_bytes_per_s"] > 1e9

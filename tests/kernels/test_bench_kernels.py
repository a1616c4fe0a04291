"""The bench of the kernels compares what is the same; its cases run on the CPU here."""

import json
import time

import pytest

from tests.kernels import cuda_shim

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("bench_folder")


class Host:
    """Takes the place of the GPU of a run."""

    library, where, share_of_time = "torch", "cpu", 1e-6

    def facts(self):
        return {"gpu": "none", "memory_bytes": 2**30, "copy_bytes_per_s": 1e9}

    def copy_rate(self):
        return 1e9

    def flush(self):
        pass

    def synchronize(self):
        pass

    def peak_bytes(self, work):
        work()

    def clocked(self, work):
        started = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - started)


@pytest.fixture
def on_host(cuda_builds, monkeypatch):
    """Kernels of the bench run in the shim."""
    return cuda_shim.patched(cuda_shim.Shim(cuda_builds), monkeypatch)


def cases():
    from kernel_bench.cases import CASES

    return CASES


def test_every_case_is_what_its_kernel_computes(on_host):
    from kernel_bench.case import Draw
    from kernel_bench.measure import errors

    for case in cases():
        inputs = case.make(Draw("torch", "cpu"), **case.small)
        on_host.launches.clear()
        found = errors(case, inputs)
        assert found["right"], (case.title, found)
        assert {one.source for one in on_host.launches} == set(case.sources)
        if case.traffic is None:
            continue
        # Inputs are read once and results written once; tables and orders are small.
        held = bytes_of(inputs.values()) + bytes_of(case.kernel(**inputs))
        assert 0.5 < case.traffic(**case.small) / held < 1.2, case.title


def bytes_of(values):
    return sum(
        bytes_of(one) if isinstance(one, list | tuple) else one.nbytes
        for one in values
        if isinstance(one, list | tuple | torch.Tensor)
    )


def test_every_source_has_a_case_and_no_two_are_alike():
    known = {source for case in cases() for source in case.sources}
    folder = cuda_shim.shared_folder("cuda")
    found = {path.relative_to(folder).as_posix() for path in cuda_shim.sources()}
    assert known == found
    assert len({(case.name, case.title) for case in cases()}) == len(cases())


def test_a_kernel_that_is_wrong_is_told(on_host, monkeypatch, capsys):
    import kernels

    from neuromm.kernels import gpu_mixtures

    right = gpu_mixtures.mixed_kernel
    monkeypatch.setattr(
        gpu_mixtures, "mixed_kernel", lambda *given: right(*given) * (1 + 1e-6)
    )
    with pytest.raises(SystemExit, match=r"wrong results of kernel_mix \(4 spaces"):
        run(kernels, "kernel_mix")
    assert "WRONG" in capsys.readouterr().out


def run(kernels, *names, **more):
    """Run the bench on small sizes, on the host."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
    args = kernels.build_parser().parse_args(["--cases", *names, *words])
    chosen = [small(case) for case in kernels.CASES if case.name in names]
    kernels.run(chosen, Host(), args)


def small(case):
    from dataclasses import replace

    return replace(case, sizes=case.small)


def test_a_run_keeps_what_it_found_and_a_later_one_takes_its_place(
    on_host, tmp_path, capsys
):
    import kernels

    path = tmp_path / "results.json"
    for _ in range(2):
        run(kernels, "col_stats", "shrink_gather", json=path)
    rows = json.loads(path.read_text())["rows"]
    assert [row["kernel"] for row in rows] == ["shrink_gather", "col_stats"]
    for row in rows:
        assert row["kernel_low_ms"] <= row["kernel_ms"] <= row["kernel_high_ms"]
        assert row["plain_ms"] > 0
        rate = row["bytes"] / row["kernel_ms"] * 1e3
        assert row["share"] == pytest.approx(rate / 1e9)
        assert row["kernel_repeats"] >= 3
        assert row["right"]
        assert row["facts"]["commit"]
    assert "col_stats: 600 samples, 33 targets" in capsys.readouterr().out


def test_a_case_that_does_not_fit_says_so(monkeypatch):
    from dataclasses import replace

    from kernel_bench.measure import measured
    from kernel_bench.tables import row_text

    def make(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    row = measured(replace(cases()[0], make=make), Host())
    assert row["failed"] == "out of memory"
    assert "out of memory" in row_text(row)


def test_the_table_of_the_documentation_holds_each_gpu(tmp_path):
    from kernel_bench.tables import BEGIN, END, write_docs

    row = {
        "kernel": "col_stats", "title": "9 samples", "library": "torch",
        "gpu": "A", "machine": "A, 80 GiB.", "kernel_ms": 0.5, "plain_ms": 2.0,
        "share": 0.91, "kernel_error": 1e-15, "plain_error": 2e-7, "right": True,
    }  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_docs(page, [row, {**row, "gpu": "B", "failed": "out of memory"}])
    text = page.read_text()
    assert "| `col_stats` | 9 samples | 0.5 | 2 | 4.0 | 91% | 1e-15 | 2e-07 |" in text
    assert text.count("A, 80 GiB. Arrays of torch.") == 2
    assert "| out of memory |" in text
    assert "old" not in text
    assert text.endswith(f"{END}\nafter\n")
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="has no lines"):
        write_docs(page, [row])


def test_without_a_gpu_one_line_says_so_and_nothing_is_timed(monkeypatch, capsys):
    import kernels

    from neuromm.kernels import gpu_loader

    monkeypatch.setattr(gpu_loader, "has_gpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not kernels.main([])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("GPU: not present: no kernel is timed")
    monkeypatch.setattr(gpu_loader, "has_cupy", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    kernels.main([])
    assert capsys.readouterr().out.startswith("CuPy: not installed")
    kernels.main(["--list", "--cases", "col_stats"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("col_stats: ")

"""One form of a loss on one case, in a process of its own.

Run by bench/losses.py as ``python -m loss_bench.measure SPEC.json``, to ``do`` one of
three things: "time", "memory", or "exact", which keeps the loss and gradients of
float64 rows in the folder of the spec, to which forms are compared.
"""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from loss_bench.forms import EXACT, FORMS, leaves_of, step

# Of glibc's mallopt: arrays from this size on are mapped, and unmapped when freed.
_M_MMAP_THRESHOLD, _SMALL_BYTES = -3, 2**16

_SECONDS = 1.5  # of all steps of a form, at least

BENCH = Path(__file__).resolve().parents[1]


def in_new_process(spec, folder):
    """What the process found; a form that fails says why instead."""
    written = Path(folder, "spec.json")
    written.write_text(json.dumps({**spec, "folder": str(folder)}))
    names = ("OMP", "OPENBLAS", "MKL")
    threads = {f"{name}_NUM_THREADS": str(spec["threads"]) for name in names}
    done = subprocess.run(
        [sys.executable, "-m", "loss_bench.measure", str(written)],
        cwd=BENCH, env={**os.environ, **threads}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return {"failed": last[:200]}
    return json.loads(Path(folder, "result.json").read_text())


def timed(spec):
    """Median seconds and errors of a form."""
    form, leaves = prepared(spec)
    kept = step(form, leaves)  # compiles, and finds the memory that steps will reuse
    found = errors(spec, *kept)
    del kept
    runs, started = [], time.perf_counter()
    # The first of short steps are slow, until threads have settled.
    while len(runs) < spec["repeats"] or time.perf_counter() - started < _SECONDS:
        runs.append(clocked(form, leaves))
    return found | {
        name: statistics.median(run[name] for run in runs) for name in runs[0]
    }


def weighed(spec):
    """Peak of the memory that a step holds, over what was resident before it.

    Arrays go back to the system as soon as they are freed, which takes time, and so is
    not done where time is measured; for the largest batch it is no matter.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
    form, leaves = prepared(spec)
    if spec["form"] == "compile":
        step(form, leaves)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    before = status_bytes("VmRSS")
    found = clocked(form, leaves)
    return found | {"extra_bytes": max(status_bytes("VmHWM") - before, 0)}


def clocked(form, leaves):
    wall, cpu = time.perf_counter(), time.process_time()
    step(form, leaves)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


def prepared(spec):
    torch.set_num_threads(spec["threads"])
    form = FORMS[spec["loss"]][spec["form"]]
    leaves = leaves_of(spec["loss"], spec["n_samples"], spec["width"])
    # Threads start, and libraries take their buffers.
    step(form, [rows.detach()[:1024].requires_grad_(True) for rows in leaves])
    if spec["form"] == "compile":
        form = torch.compile(form, dynamic=False)
    return form, leaves


def exact(spec):
    """Loss and gradients in float64, written to the folder."""
    torch.set_num_threads(spec["threads"])
    loss = spec["loss"]
    leaves = leaves_of(loss, spec["n_samples"], spec["width"], torch.float64)
    value, grads = step(EXACT[loss], leaves)
    np.save(Path(spec["folder"], "loss.npy"), value.numpy())
    for index, grad in enumerate(grads):
        np.save(Path(spec["folder"], f"grad{index}.npy"), grad.numpy())
    return {}


def errors(spec, loss, grads):
    """Relative errors of the loss, and of the worst gradient by its norm."""
    folder = Path(spec["folder"])
    right = float(np.load(folder / "loss.npy"))
    worst = 0.0
    for index, grad in enumerate(grads):
        exact = np.load(folder / f"grad{index}.npy")
        difference = np.linalg.norm(grad.numpy() - exact)
        worst = max(worst, float(difference / np.linalg.norm(exact)))
    return {
        "loss_error": abs(float(loss.double()) / right - 1),
        "gradient_error": worst,
    }


def status_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def main():
    spec = json.loads(Path(sys.argv[1]).read_text())
    result = {"exact": exact, "time": timed, "memory": weighed}[spec["do"]](spec)
    Path(spec["folder"], "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

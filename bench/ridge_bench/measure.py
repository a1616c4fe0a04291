"""One estimator on one job, in a process of its own: fresh memory, fixed threads.

Run by bench/ridge.py as ``python -m ridge_bench.measure SPEC.json``.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ridge_bench.estimators import ESTIMATORS, ignore_warnings
from ridge_bench.jobs import Job, himalaya_count, spread_columns

BENCH = Path(__file__).resolve().parents[1]

# Short fits are repeated and their median taken.
_MAX_REPEATS = 3
_REPEAT_SECONDS = 20.0
# Batch sizes are tuned on so many targets.
_TUNED_TARGETS = 2000
_FEW_TARGETS = 64
_TYPICAL_SHARE = 0.6
_MANY_ALPHAS = 200


def in_new_process(spec, folder, module="ridge_bench.measure"):
    """Result of `measure` (or that of another module) with the threads of ``spec``."""
    written = Path(folder, "spec.json")
    written.write_text(json.dumps({**spec, "folder": str(folder)}))
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
    threads = {f"{name}_NUM_THREADS": str(spec["threads"]) for name in names}
    subprocess.run(
        [sys.executable, "-m", module, str(written)],
        cwd=BENCH,
        env={**os.environ, **threads},
        check=True,
    )
    return json.loads(Path(folder, "result.json").read_text())


def measure(spec):
    """Time a fit and keep its results.

    Parameters
    ----------
    spec : dict
        ``folder`` holds x.npy and y.npy; ``job``, ``estimator``, ``n_alphas``; with
        ``tune`` the fastest batches are searched first; with ``repeat`` a short fit is
        repeated; a fit that would take longer than ``longest`` seconds is timed on two
        smaller numbers of targets.
    """
    import torch

    torch.set_num_threads(spec["threads"])
    ignore_warnings()
    folder = Path(spec["folder"])
    job = Job(**spec["job"])
    estimator = ESTIMATORS[spec["estimator"]]
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    ours = spec["estimator"] == "neuromm"

    def fit(n_targets=None, n_alphas=spec["n_alphas"], **options):
        part = y
        if n_targets and n_targets < job.n_targets:
            columns = spread_columns(job.n_targets, n_targets)
            part = np.ascontiguousarray(y[:, columns])
        return timed(
            lambda: estimator.fit(x, part, job.n_folds, n_alphas, options),
            repeat=n_targets is None and spec["repeat"],
        )

    warm_up = x[:200, :20].copy(), y[:200, :20].copy()
    estimator.fit(*warm_up, job.n_folds, spec["n_alphas"], estimator.options[0])
    rates = product_rates(job) if ours else {}
    options, predicted = estimator.options[0], None
    if "himalaya" in estimator.name:
        if spec["tune"]:
            options, predicted = tuned(fit, estimator, job)
        else:
            predicted = typical_seconds(estimator, job)
    sizes = sizes_to_run(estimator, job, predicted, spec["longest"])
    runs = []
    for size in sizes:
        whole = size == job.n_targets
        run, model = fit(None if whole else size, **options)
        runs.append(run)
    result = scaled(runs, sizes, job.n_targets)
    result |= {"options": options, "n_targets": sizes, "estimator": estimator.name}
    fitted = estimator.results(model, x)
    for name, values in vars(fitted).items():
        np.save(folder / f"{spec['estimator']}.{name}.npy", values)
    if ours:
        result |= details(job, model, fit, rates)
    return result


def tuned(fit, estimator, job):
    """Fastest batches on some of the targets, and the time that all will take."""
    n_targets = min(job.n_targets, _TUNED_TARGETS)
    tried = [
        (fit(n_targets, **options)[0]["wall_s"], number)
        for number, options in enumerate(estimator.options)
    ]
    seconds, number = min(tried)
    name = himalaya_name(estimator)
    growth = himalaya_count(name, job) / himalaya_count(name, job, n_targets)
    return estimator.options[number], seconds * growth


def typical_seconds(estimator, job):
    """Time of himalaya's operations at the share of the rate that it reaches."""
    rate = product_rates(job)["torch"]
    return himalaya_count(himalaya_name(estimator), job) / (_TYPICAL_SHARE * rate)


def himalaya_name(estimator):
    return "KernelRidgeCV" if "KernelRidgeCV" in estimator.name else "RidgeCV"


def sizes_to_run(estimator, job, predicted, longest):
    """All targets; or two smaller numbers, from which time is scaled."""
    v = job.n_targets
    if predicted and predicted > longest:
        large = max(int(v * longest / predicted / 2), min(v, _TUNED_TARGETS))
    elif estimator.per_targets > 1:
        large = max(v // estimator.per_targets, min(v, 50))
    else:
        return [v]
    # Nearly all of the smaller run is what does not grow with the targets.
    return sorted({min(_FEW_TARGETS, max(large // 4, 1)), large})


def scaled(runs, sizes, n_targets):
    """Time and memory for all targets: a line through two runs, unless there is one."""
    if len(runs) == 1 or runs[-1]["wall_s"] <= runs[0]["wall_s"]:
        share = n_targets / sizes[-1]
        return {name: value and value * share for name, value in runs[-1].items()}
    result = {}
    for name, last in runs[-1].items():
        first = runs[0][name]
        if last is None or first is None:
            result[name] = None
            continue
        slope = max(last - first, 0) / (sizes[-1] - sizes[0])
        result[name] = last + slope * (n_targets - sizes[-1])
    return result


def details(job, model, fit, rates):
    """What is told of our own fit alone: form, plan, set-up, many alphas, products."""
    from neuromm.encoding import plan

    form = model.solver_form_
    n, p, v = job.shape
    planned = plan(n, p, v, n_alphas=20, cv=job.n_folds, dtype=np.float32)
    few = min(_FEW_TARGETS, v)
    set_up, _ = fit(few, solver=form)
    many, many_model = fit(n_alphas=_MANY_ALPHAS)
    again = product_rates(job)
    counted = counted_products(job, form)
    return {
        "solver_form": form,
        "planned_s": planned.seconds,
        "planned_bytes": planned.peak_memory,
        "planned_form": planned.solver_form,
        "set_up_wall_s": set_up["wall_s"],
        "set_up_cpu_s": set_up["cpu_s"],
        "many_alphas": _MANY_ALPHAS,
        "many_alphas_s": many["wall_s"],
        "many_alphas_form": many_model.solver_form_,
        "sgemm_per_s": {name: max(rates[name], again[name]) for name in rates},
        "products": counted.products,
        "target_products": counted.targets,
    }


def counted_products(job, form):
    from neuromm.kernels import RidgeShape, Solver, operation_count

    shape = RidgeShape.of_equal_folds(
        *job.shape, n_alphas=20, n_folds=job.n_folds, itemsize=4
    )
    return operation_count(shape, Solver.named(form))


def product_rates(job):
    """Operations a second of float32 products of the job's largest kind, best of 5."""
    import torch

    n, p, v = job.shape
    rank = int(min(n - n / job.n_folds, p))
    width = min(v, 4000)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rank, rank), dtype=np.float32)
    b = rng.standard_normal((rank, width), dtype=np.float32)
    out = np.empty((rank, width), dtype=np.float32)
    ta, tb, tout = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out)
    work = {
        "numpy": lambda: np.matmul(a, b, out=out),
        "torch": lambda: torch.matmul(ta, tb, out=tout),
    }
    rates = {}
    for name, multiply in work.items():
        times = []
        for _ in range(6):  # the first starts threads
            start = time.perf_counter()
            multiply()
            times.append(time.perf_counter() - start)
        rates[name] = 2.0 * rank**2 * width / min(times[1:])
    return rates


def timed(work, repeat):
    """Median wall and CPU seconds, memory over what was there before, last result."""
    walls, cpus, peak = [], [], None
    started = time.perf_counter()
    while True:
        before = memory_before()
        cpu, start = cpu_seconds(), time.perf_counter()
        made = work()
        walls.append(time.perf_counter() - start)
        cpus.append(cpu_seconds() - cpu)
        if peak is None and before is not None:
            peak = max(status_bytes("VmHWM") - before, 0)
        used = time.perf_counter() - started
        if not repeat or len(walls) == _MAX_REPEATS or used > _REPEAT_SECONDS:
            break
        del made
    run = {"wall_s": float(np.median(walls)), "cpu_s": float(np.median(cpus))}
    return run | {"peak_bytes": peak}, made


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_before():
    """Bytes that are resident now, with the peak set back to them; None if unknown."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return status_bytes("VmRSS")


def status_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def main():
    spec = json.loads(Path(sys.argv[1]).read_text())
    result = measure(spec)
    Path(spec["folder"], "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

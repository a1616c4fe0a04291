"""The same jobs on a GPU, and the null of permuted blocks.

Each row runs in a process of its own, ``python -m ridge_bench.cuda SPEC.json``. It is
timed with features and targets starting, and results ending, on the host (targets in
pinned memory), and once more with everything on the device.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ridge_bench.agreement import agreement, complaint, kept
from ridge_bench.estimators import CUDA_ESTIMATORS, Fitted, host, ignore_warnings
from ridge_bench.jobs import Job, himalaya_count, make_data, spread_columns
from ridge_bench.measure import in_new_process

# (estimator, library of the arrays it is given, TF32 products allowed)
ROWS = (
    ("neuromm", "torch", False),
    ("neuromm", "cupy", False),
    ("himalaya-ridge-torch_cuda", "torch", False),
    ("himalaya-ridge-cupy", "cupy", False),
    ("himalaya-kernel-torch_cuda", "torch", False),
    ("himalaya-kernel-cupy", "cupy", False),
    ("neuromm", "torch", True),
    ("himalaya-ridge-torch_cuda", "torch", True),
)
NULL = {"n_samples": 2000, "block": 10, "n_targets": 200_000, "n_permutations": 1000}

_REPEATS = 5
_EXACT_TARGETS = 200
# In a decomposition on the host in float64, to which scores are compared.
_EXACT_FEATURES = 2000
_LOOPED_PERMUTATIONS = 50
_TUNED_TARGETS = 20_000


def require_device():
    """Name of the GPU; an error in words without one."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(
            "ridge.py: error: --device cuda needs an NVIDIA GPU and a CUDA build of "
            f"torch, and torch {torch.__version__} finds none. See what would run with "
            "--dry-run."
        )
    return torch.cuda.get_device_name()


def plan_text(jobs):
    """What would run, without a device."""
    lines = []
    for job in jobs:
        n, p, v = job.shape
        lines.append(
            f"{job.name}: targets {4e-9 * n * v:.1f} GB, weights {4e-9 * p * v:.1f} GB,"
            f" himalaya RidgeCV {himalaya_count('RidgeCV', job) / 1e12:.0f} TFLOP"
        )
        lines += [f"  {row_name(*row)}" for row in ROWS]
    lines.append("null of permuted blocks: " + str(NULL))
    return "\n".join(lines)


def row_name(estimator, library, tf32):
    name = CUDA_ESTIMATORS[estimator].name
    if estimator == "neuromm":
        name += f", {library}"
    return name + (", TF32" if tf32 else "")


def cuda_case(job, folder):
    """All rows of a job; what does not agree is in ``complaints``."""
    x, y = make_data(job)
    np.save(Path(folder, "x.npy"), x)
    np.save(Path(folder, "y.npy"), y)
    rows, complaints = [], []
    for estimator, library, tf32 in ROWS:
        spec = {"job": asdict(job), "estimator": estimator, "library": library}
        spec |= {"tf32": tf32, "threads": 16}
        row = in_new_process(spec, folder, module="ridge_bench.cuda")
        row["estimator"] = row_name(estimator, library, tf32)
        if "out_of_memory" not in row and not tf32:
            compared = agreement(kept(folder, "neuromm"), kept(folder, estimator))
            row |= compared
            wrong = complaint(compared)
            if wrong:
                complaints.append(f"{row['estimator']}: {wrong}")
        rows.append(row)
    return {"job": asdict(job), "device": "cuda", "rows": rows}, complaints


def cuda_text(case):
    """A case in lines; ratios are to the first row, the slower of its two times."""
    job = Job(**case["job"])
    first = case["rows"][0]
    heads = ("wall s", "on device", "peak MB", "ratio", "share", "dR2 f64")
    lines = [
        f"{job.name}, 20 alphas, float32, cuda",
        f"{'':38}" + "".join(f"{head:>10}" for head in heads),
    ]
    for row in case["rows"]:
        if "out_of_memory" in row:
            lines.append(f"{row['estimator']:38}{'OOM':>10}")
            continue
        line = f"{row['estimator']:38}{row['wall_s']:10.3f}{row['device_s']:10.3f}"
        line += f"{row['peak_bytes'] / 1e6:10.0f}"
        ratio = row["wall_s"] / first["wall_s"] if "wall_s" in first else float("nan")
        line += f"{ratio:10.1f}{row.get('share', float('nan')):10.0%}"
        lines.append(line + f"{row.get('exact_difference', float('nan')):10.0e}")
    return "\n".join(lines)


def measure(spec):
    """One row, on the device."""
    import torch

    ignore_warnings()
    torch.backends.cuda.matmul.allow_tf32 = spec["tf32"]
    if "null" in spec:
        return null_times(**spec["null"])
    folder = Path(spec["folder"])
    job = Job(**spec["job"])
    estimator = CUDA_ESTIMATORS[spec["estimator"]]
    move = mover(spec["library"])
    x = np.load(folder / "x.npy")
    y = torch.empty(job.n_samples, job.n_targets, pin_memory=True).numpy()
    y[:] = np.load(folder / "y.npy", mmap_mode="r")
    ours = spec["estimator"] == "neuromm"

    def from_host(options, columns=slice(None)):
        # himalaya moves its inputs itself; ours follows the features.
        features = move(x) if ours else x
        return estimator.fit(features, y[:, columns], job.n_folds, 20, options)

    few = slice(0, min(_TUNED_TARGETS, job.n_targets))
    try:
        tried = [
            (once(lambda o=options: from_host(o, few))[0], options)
            for options in estimator.options
        ]
        options = min(tried, key=lambda one: one[0])[1]
        reset_peak()
        seconds, model = median_seconds(lambda: from_host(options))
        result = {"wall_s": seconds, "options": options, "peak_bytes": peak_bytes()}
        save(estimator.results(model, x), folder / spec["estimator"])
        scores = host(model.cv_scores_)
        del model
        there = move(x), move(y)
        result["device_s"], _ = median_seconds(
            lambda: estimator.fit(*there, job.n_folds, 20, options)
        )
    except Exception as error:
        if "OutOfMemory" not in type(error).__name__:
            raise
        return {"out_of_memory": True}
    if ours:
        result |= against_ceiling(job, result["device_s"])
        if job.n_features <= _EXACT_FEATURES:
            result["exact_difference"] = exact_difference(job, x, y, scores)
    return result


def against_ceiling(job, seconds):
    """Share of the rate of a large float32 product, by the operations of our form."""
    import torch

    from ridge_bench.measure import counted_products

    a = torch.randn(8192, 8192, device="cuda")
    b = torch.randn(8192, 8192, device="cuda")
    fastest, _ = median_seconds(lambda: a @ b)
    rate = 2.0 * 8192**3 / fastest
    form = "primal" if job.n_features < job.n_samples * 0.8 else "dual"
    products = counted_products(job, f"{form}-divided-difference").products
    return {"gemm_per_s": rate, "share": products / seconds / rate}


def exact_difference(job, x, y, scores):
    """Largest difference of R2 to float64 on the host, of the same targets."""
    columns = spread_columns(job.n_targets, _EXACT_TARGETS)
    exact = CUDA_ESTIMATORS["neuromm"]
    part = y[:, columns].astype(np.float64)
    model = exact.fit(x.astype(np.float64), part, job.n_folds, 20, {})
    return float(np.abs(model.cv_scores_ - scores[columns]).max())


def null_times(n_samples, block, n_targets, n_permutations):
    """Block permutations by the kernel, and by a loop of torch."""
    import torch

    from neuromm.encoding import permutation_test

    generator = torch.Generator("cuda").manual_seed(0)
    shape = (n_samples, n_targets)
    y = torch.randn(shape, device="cuda", generator=generator)
    prediction = 0.03 * y + torch.randn(shape, device="cuda", generator=generator)
    rng = np.random.default_rng(0)

    def looped():
        moved = torch.arange(n_samples, device="cuda").reshape(-1, block)
        observed = (prediction * y).sum(0)
        count = torch.zeros(n_targets, device="cuda")
        for _ in range(_LOOPED_PERMUTATIONS):
            order = torch.from_numpy(rng.permutation(len(moved))).cuda()
            count += (prediction * y[moved[order].ravel()]).sum(0) >= observed
        return (1 + count) / (1 + _LOOPED_PERMUTATIONS)

    fused, result = median_seconds(
        lambda: permutation_test(
            prediction, y, rng=0, block=block, n_permutations=n_permutations
        )
    )
    seconds, p = median_seconds(looped)
    # Different permutations: p of both differ by their sampling alone.
    spread = 0.5 / _LOOPED_PERMUTATIONS**0.5
    return {
        "fused_s": fused,
        "loop_s": seconds * n_permutations / _LOOPED_PERMUTATIONS,
        "loop_scaled_from": _LOOPED_PERMUTATIONS,
        "agrees": bool(np.abs(result.p - host(p)).mean() < spread),
    }


def null_text(row):
    """The null in one line."""
    ratio = row["loop_s"] / row["fused_s"]
    return (
        f"null of permuted blocks, {NULL}: {row['fused_s']:.3f} s, torch in a loop "
        f"{row['loop_s']:.1f} s (scaled from {row['loop_scaled_from']} permutations): "
        f"{ratio:.0f} times"
    )


def mover(library):
    """Copy of a host array on the device, in torch or CuPy."""
    if library == "cupy":
        import cupy

        return cupy.asarray
    import torch

    return lambda array: torch.from_numpy(array).cuda()


def synchronize():
    import torch

    torch.cuda.synchronize()


def reset_peak():
    import torch

    torch.cuda.reset_peak_memory_stats()


def peak_bytes():
    """Of torch's allocator and CuPy's pool together."""
    import torch

    peak = torch.cuda.max_memory_allocated()
    if "cupy" in sys.modules:
        peak += sys.modules["cupy"].get_default_memory_pool().total_bytes()
    return int(peak)


def once(work):
    synchronize()
    start = time.perf_counter()
    made = work()
    synchronize()
    return time.perf_counter() - start, made


def median_seconds(work):
    """Median of five after a warm-up, and the last result."""
    made = work()
    times = []
    for _ in range(_REPEATS):
        del made
        seconds, made = once(work)
        times.append(seconds)
    return float(np.median(times)), made


def save(fitted: Fitted, stem):
    for name, values in vars(fitted).items():
        np.save(f"{stem}.{name}.npy", values)


def main():
    spec = json.loads(Path(sys.argv[1]).read_text())
    Path(spec["folder"], "result.json").write_text(json.dumps(measure(spec)))


if __name__ == "__main__":
    main()

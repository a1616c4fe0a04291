"""Time RidgeCV against himalaya and scikit-learn, and check that all agree.

Run: python bench/ridge.py [--shapes short|full|N,P,V[,FOLDS] ...] [--threads 1 2]
     [--device cpu|cuda] [--peers NAME ...] [--json FILE] [--write-docs]

Without arguments it runs the short form. Everybody does the same job in float32:
contiguous folds, 20 alphas, one alpha a target chosen by R2, intercept, weights of the
features (of KernelRidgeCV by its get_primal_coef: one product). Each estimator runs in
a process of its own. The better of himalaya's estimators and back ends counts: the one
it advises for the shape with torch and NumPy, with batch sizes tuned for it, and its
other one with torch (short form: the advised one with torch, untuned). scikit-learn has
no such estimator: its Ridge runs in a loop over folds and alphas. Where a peer would
take longer than --longest, and for scikit-learn, time and memory are those of two
smaller numbers of targets, continued in a line.

Memory is the peak of the process over what is resident before the fit, inputs
included. The rate of float32 products is measured beside our fit, at the size of its
largest kind of product. If somebody's numbers do not agree, the script fails.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from ridge_bench import cuda
from ridge_bench.agreement import agreement, complaint, kept
from ridge_bench.estimators import ESTIMATORS
from ridge_bench.jobs import himalaya_count, make_data, parse_jobs
from ridge_bench.measure import in_new_process
from ridge_bench.tables import case_text, merged, read_cases, write_docs

ROOT = Path(__file__).resolve().parents[1]
DOCS_PAGE = ROOT / "docs" / "ridge.md"
PEERS = [name for name in ESTIMATORS if name != "neuromm"]


def build_parser():
    parser = argparse.ArgumentParser(
        prog="ridge.py", description="Time RidgeCV against its peers."
    )
    parser.add_argument("--shapes", nargs="*", help="none: nothing is timed")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peers", nargs="*", choices=PEERS)
    parser.add_argument(
        "--longest", type=float, default=300, metavar="S", help="seconds of one peer"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="results, beside those it holds"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help=f"table of {DOCS_PAGE.name}"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, and stop"
    )
    return parser


def advised(job):
    """Which estimator himalaya advises for the shape: its other one is slower."""
    return "kernel" if job.n_features > job.n_samples else "ridge"


def default_peers(job, short):
    peers = [f"himalaya-{advised(job)}-torch", "scikit-learn"]
    if short:
        return peers
    other = "ridge" if advised(job) == "kernel" else "kernel"
    return [f"himalaya-{advised(job)}-numpy", f"himalaya-{other}-torch", *peers]


def main(argv=None):
    args = build_parser().parse_args(argv)
    words = args.shapes
    if words is None:
        words = ["full"] if args.device == "cuda" else ["short"]
    jobs = parse_jobs(words, args.device)
    short = words == ["short"]
    if args.dry_run:
        print(dry_run_text(jobs, args, short))
        return
    run = on_the_gpu(jobs) if args.device == "cuda" else on_the_cpu(jobs, args, short)
    cases, complaints = read_cases(args.json) if args.json else [], []
    for case, wrong in run:
        complaints += wrong
        cases = merged(cases, [case] if case else [])
        if args.json:  # after each case: a long run may be cut short
            args.json.write_text(json.dumps({"cases": cases}, indent=1) + "\n")
    if complaints:
        raise SystemExit("ridge.py: error: " + "; ".join(complaints))
    if args.write_docs:
        write_docs(DOCS_PAGE, cases)


def dry_run_text(jobs, args, short):
    if args.device == "cuda":
        return cuda.plan_text(jobs)
    lines = []
    for job in jobs:
        peers = args.peers if args.peers is not None else default_peers(job, short)
        lines.append(f"{job.name}, threads {args.threads}: {', '.join(peers)}")
    return "\n".join(lines)


def on_the_cpu(jobs, args, short):
    """Yield each case, and what does not agree in it, in words."""
    machine = machine_facts()
    print(facts_text(machine), flush=True)
    for job in jobs:
        peers = args.peers if args.peers is not None else default_peers(job, short)
        with tempfile.TemporaryDirectory() as folder:
            x, y = make_data(job)
            np.save(Path(folder, "x.npy"), x)
            np.save(Path(folder, "y.npy"), y)
            del x, y
            for threads in args.threads:
                spec = {"job": asdict(job), "threads": threads, "n_alphas": 20}
                spec |= {"repeat": not short, "longest": args.longest}
                case, wrong = cpu_case(job, peers, spec, folder)
                case["machine"] = machine
                print("\n" + case_text(case), flush=True)
                yield case, wrong


def cpu_case(job, peers, spec, folder):
    """All estimators on one job; what does not agree, in words."""
    ours = in_new_process({**spec, "estimator": "neuromm", "tune": False}, folder)
    rows, complaints = [], []
    for peer in peers:
        if job.by_model:
            row = by_model(job, peer, max(ours["sgemm_per_s"].values()))
            rows += [row] if row else []
            continue
        tune = spec["repeat"] and f"himalaya-{advised(job)}" in peer
        row = in_new_process({**spec, "estimator": peer, "tune": tune}, folder)
        compared = agreement(kept(folder, "neuromm"), kept(folder, peer))
        rows.append(row | compared)
        wrong = complaint(compared)
        if wrong:
            complaints.append(f"{job.name}: {row['estimator']}: {wrong}")
    case = {"job": asdict(job), "threads": spec["threads"], "device": "cpu"}
    return case | {"ours": ours, "peers": rows}, complaints


def by_model(job, peer, rate):
    """What himalaya takes at the full rate of products, which it does not reach."""
    estimator = ESTIMATORS[peer].name
    if not estimator.startswith("himalaya") or not estimator.endswith("torch"):
        return None
    name = estimator.split()[1].rstrip(",")
    return {
        "estimator": estimator,
        "wall_s": himalaya_count(name, job) / rate,
        "cpu_s": None,
        "peak_bytes": None,
        "by_model": True,
        "n_targets": [job.n_targets],
    }


def on_the_gpu(jobs):
    """Like `on_the_cpu`; the null of permuted blocks has no case, but may be wrong."""
    name = cuda.require_device()
    machine = machine_facts() | {"gpu": name}
    print(f"{name}\n{facts_text(machine)}", flush=True)
    for job in jobs:
        with tempfile.TemporaryDirectory() as folder:
            case, wrong = cuda.cuda_case(job, folder)
        case["machine"] = machine
        print("\n" + cuda.cuda_text(case), flush=True)
        yield case, wrong
    with tempfile.TemporaryDirectory() as folder:
        spec = {"null": cuda.NULL, "tf32": False, "threads": 16}
        null = in_new_process(spec, folder, module="ridge_bench.cuda")
    print("\n" + cuda.null_text(null))
    wrong = "the null of permuted blocks does not agree with the loop"
    yield None, [] if null["agrees"] else [wrong]


def machine_facts():
    packages = "neuromm", "numpy", "torch", "himalaya", "scikit-learn", "cupy-cuda13x"
    versions = {"Python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "versions": versions,
        "commit": commit(),
    }


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return named[0] if named else platform.processor() or platform.machine()


def commit():
    """Short hash, with a + if neuromm differs from it; "unknown" outside of git."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "neuromm"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed else "")


def facts_text(machine):
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores; {versions}; {machine['commit']}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Gene-DML where the truth is known, and what its training and prediction cost.

Run: python bench/express.py [JOB ...] [--json FILE] [--write-docs]

A job is planted:SEED, shuffled:SEED, step, section or her2st; planted and shuffled
without a number stand for five seeds, and no job for ``--write-docs`` alone. Each job
adds its results to the JSON file.

planted   target, + neighbour, + global, + contrastive losses, and a ridge regression of
          the patch vectors, on the same sections; retrieval of a spot's expression
shuffled  the same with expression, or the tiles around spots, of other spots
step      a training step of 512 spots and 250 genes beside one of the prediction alone
section   500 spots at the published size, 197 tokens of 1024 features
her2st    section A1: blocks of tissue left out beside random spots, the leak
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from express_bench import cost, her2st, planted, tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "express_results.json"
DOCS_PAGE = ROOT / "docs" / "gene_dml.md"
DATA = Path(os.environ.get("NEUROMM_TEST_DATA", ROOT.parent / "shared" / "data"))
N_SEEDS = 5


def build_parser():
    parser = argparse.ArgumentParser(prog="express.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("jobs", nargs="*")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--backbone", default="image-statistics")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--write-docs", action="store_true")
    return parser


def main():
    args = build_parser().parse_args()
    torch.set_num_threads(args.threads)
    for name, seed in expanded(args.jobs):
        start = time.perf_counter()
        result = run(name, seed, args)
        result["minutes"] = round((time.perf_counter() - start) / 60, 2)
        keep(args, name if seed is None else f"{name}:{seed}", result)
        print(name, "" if seed is None else seed, result, flush=True)
    if args.write_docs:
        tables.write(json.loads(args.json.read_text()), DOCS_PAGE)
    return 0


def expanded(jobs):
    for job in jobs:
        name, _, number = job.partition(":")
        if name in ("planted", "shuffled"):
            for seed in [int(number)] if number else range(N_SEEDS):
                yield name, seed
        elif name in ("step", "section", "her2st") and not number:
            yield name, None
        else:
            raise SystemExit(
                f"express.py: no job {job!r} (there are: planted[:SEED], "
                "shuffled[:SEED], step, section, her2st)"
            )


def run(name, seed, args):
    if name == "planted":
        return planted.scales(seed, args.epochs)
    if name == "shuffled":
        return planted.shuffled(seed, args.epochs)
    if name == "her2st":
        return her2st.run(args.data, backbone=args.backbone, n_epochs=args.epochs)
    return cost.step() if name == "step" else cost.section()


def keep(args, name, result):
    """Add one result; what the file holds of other jobs stays."""
    results = json.loads(args.json.read_text()) if args.json.exists() else {"jobs": {}}
    results["jobs"][name] = result
    results["machine"] = {
        "python": platform.python_version(),
        "threads": args.threads,
        **{name: version(name) for name in ("neuromm", "torch")},
    }
    args.json.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())

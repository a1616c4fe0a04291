"""IVD-Net where the truth is known, and on real scans, beside a U-Net of the same size.

Run: python bench/segment.py [JOB ...] [--width 4] [--epochs 40] [--data FOLDER]
     [--state FOLDER] [--json FILE] [--write-docs]

A job is planted:SEED, spider:FOLD, spider-all:FOLD (discs, vertebrae and canal) or
open-ms:SIDES (2 or 3); a name without its number stands for all of them, and no job for
``--write-docs`` alone. Each job adds its results to the JSON file; with ``--state`` a
job that was stopped goes on from its last epoch.

Both networks of a fold see the same samples for the same number of steps, with the same
augmentation and schedule; the epoch is chosen on patients inside of the training set.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from segment_bench import open_ms, planted, spider, tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "segment_results.json"
DOCS_PAGE = ROOT / "docs" / "ivdnet.md"
DATA = Path(os.environ.get("NEUROMM_TEST_DATA", ROOT.parent / "shared" / "data"))


def build_parser():
    parser = argparse.ArgumentParser(prog="segment.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("jobs", nargs="*")
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--step", type=int, default=4, help="pixels of SPIDER along one of a network"
    )
    parser.add_argument("--networks", nargs="+", default=["ivdnet", "unet"])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--write-docs", action="store_true")
    return parser


def main():
    args = build_parser().parse_args()
    torch.set_num_threads(args.threads)
    for job in expanded(args.jobs):
        run(job, args)
    if args.write_docs:
        tables.write(json.loads(args.json.read_text()), DOCS_PAGE)
    return 0


def expanded(jobs):
    numbers = {
        "planted": range(3),
        "spider": range(spider.N_FOLDS),
        "spider-all": range(spider.N_FOLDS),
        "open-ms": (2, 3),
    }
    for job in jobs:
        name, _, number = job.partition(":")
        if name not in numbers:
            sys.exit(f"segment.py: no job {name!r} (there are: {', '.join(numbers)})")
        for one in [int(number)] if number else numbers[name]:
            yield name, one


def run(job, args):
    kind, number = job
    if kind == "planted":
        for variant in planted.VARIANTS:
            result = planted.run(
                variant=variant,
                seed=number,
                width=args.width,
                n_epochs=args.epochs,
                learning_rate=args.learning_rate,
            )
            keep(args, f"planted:{number}:{variant}", result)
    elif kind == "open-ms":
        result = open_ms.run(
            args.data,
            n_dims=number,
            width=args.width,
            n_epochs=args.epochs,
            learning_rate=args.learning_rate,
        )
        keep(args, f"open-ms:{number}", result)
    else:
        for network in args.networks:
            run_spider(kind, number, network, args)


def run_spider(kind, fold, network, args):
    label = f"{kind}:{fold}:{network}"
    folder = None
    if args.state is not None:
        settings = f"{args.width}-{args.epochs}-{args.step}-{args.learning_rate:g}"
        folder = args.state / f"{label}-{settings}".replace(":", "-")
    result = spider.run(
        args.data / "spine" / "lumbar_spider_t2space",
        name=network,
        target="disc" if kind == "spider" else "all",
        width=args.width,
        n_epochs=args.epochs,
        fold=fold,
        folder=folder,
        step=args.step,
        learning_rate=args.learning_rate,
    )
    keep(args, label, result)


def keep(args, label, result):
    """Add a result to the file, which other jobs may have changed meanwhile."""
    path = args.json
    stored = json.loads(path.read_text()) if path.exists() else {}
    result = result | {
        "width": args.width,
        "learning_rate": args.learning_rate,
        "threads": args.threads,
    }
    stored.setdefault("jobs", {})[label] = result
    stored["machine"] = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("neuromm", "torch", "monai")},
    }
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(stored, indent=1) + "\n")
    os.replace(partial, path)
    print(label, result["dice"], f"{result['minutes']} min", flush=True)


if __name__ == "__main__":
    sys.exit(main())

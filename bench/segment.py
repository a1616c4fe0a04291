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

import json
import sys
from pathlib import Path

import torch
from job_bench.jobs import ROOT, expanded_jobs, job_parser, keep_result
from segment_bench import open_ms, planted, spider, tables

DOCS_PAGE = ROOT / "docs" / "ivdnet.md"
JOBS = {
    "planted": range(3),
    "spider": range(spider.N_FOLDS),
    "spider-all": range(spider.N_FOLDS),
    "open-ms": (2, 3),
}


def build_parser():
    parser = job_parser("segment.py", __doc__, n_epochs=40)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--step", type=int, default=4, help="pixels of SPIDER along one of a network"
    )
    parser.add_argument("--networks", nargs="+", default=["ivdnet", "unet"])
    parser.add_argument("--state", type=Path)
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
    return expanded_jobs("segment.py", jobs, JOBS)


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
    result = result | {
        "width": args.width,
        "learning_rate": args.learning_rate,
        "threads": args.threads,
    }
    keep_result(args, label, result, ("neuromm", "torch", "monai"))
    print(label, result["dice"], f"{result['minutes']} min", flush=True)


if __name__ == "__main__":
    sys.exit(main())

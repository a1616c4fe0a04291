"""Gene-DML where the truth is known, and what its training and prediction cost.

Run: python bench/express.py [JOB ...] [--json FILE] [--write-docs]

A job is planted:SEED, shuffled:SEED, step, section, her2st or published; planted and
shuffled without a number stand for five seeds, and no job for ``--write-docs`` alone.
Each job adds its results to the JSON file.

planted   target, + neighbour, + global, + contrastive losses, and ridge regressions of
          the patch vectors, without and with the tiles around, on the same sections;
          retrieval of a spot's expression
shuffled  the same with expression, or the tiles around spots, of other spots
step      a training step of 512 spots and 250 genes beside one of the prediction alone
section   500 spots at the published size, 197 tokens of 1024 features
her2st    section A1: blocks of tissue left out beside random spots, the leak; Gene-DML
          and two linear probes on each of ``--backbones``
"""

import json
import time

import torch
from express_bench import cost, her2st, planted, published, tables
from job_bench.jobs import ROOT, expanded_jobs, job_parser, keep_result

DOCS_PAGE = ROOT / "docs" / "gene_dml.md"
N_SEEDS = 5
JOBS = {
    "planted": range(N_SEEDS),
    "shuffled": range(N_SEEDS),
    "step": None,
    "section": None,
    "her2st": None,
    "published": None,
}


def build_parser():
    parser = job_parser("express.py", __doc__, n_epochs=25)
    parser.add_argument(
        "--backbones", nargs="+", default=["image-statistics", "colorstats"]
    )
    parser.add_argument("--model-dirs", nargs="+", default=[])
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
    return expanded_jobs("express.py", jobs, JOBS)


def run(name, seed, args):
    if name == "planted":
        return planted.scales(seed, args.epochs)
    if name == "shuffled":
        return planted.shuffled(seed, args.epochs)
    if name == "her2st":
        return her2st.run(args.data, backbones=args.backbones, n_epochs=args.epochs)
    if name == "published":
        return published.run(args.model_dirs)
    return cost.step() if name == "step" else cost.section()


def keep(args, name, result):
    keep_result(args, name, result, ("neuromm", "torch"))


if __name__ == "__main__":
    raise SystemExit(main())

"""Time each CUDA kernel against plain arrays on a GPU, and check it in the same run.

Run: python bench/kernels.py [--cases NAME ...] [--library torch|cupy] [--list]
     [--json FILE] [--write-docs]

Without a GPU it says so in a line, and times nothing. NAME is that of a source, such
as path_sums; all by default. The plain version is what the kernel takes the place of,
in arrays of the same library on the same GPU, products by cuBLAS in float32 (no TF32).

Inputs are random, float32 unless said. First both are compared with plain float64: a
kernel that errs more than twice as much as plain float32 is wrong, and the script
fails. Then both are timed by events of the GPU, launches from Python included, the L2
cache flushed before each call: median of at least 20 calls (3 where they are long)
after three others, and for the kernel the 10th and 90th percentile. GB/s counts what
cannot be spared, inputs read once and results written once; the share is of the rate
of a large copy, measured in the same run. Kernels that compute more than they move
(block_perm) stay far below it; where products of matrices are a part of what is timed,
there is no share.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from kernel_bench import tables
from kernel_bench.cases import CASES
from kernel_bench.device import Gpu, default_library, missing
from kernel_bench.measure import measured

ROOT = Path(__file__).resolve().parents[1]
DOCS_PAGE = ROOT / "docs" / "cuda.md"
RESULTS = ROOT / "bench" / "kernels_results.json"


def build_parser():
    parser = argparse.ArgumentParser(
        prog="kernels.py", description="Time CUDA kernels against plain arrays."
    )
    names = sorted({case.name for case in CASES})
    parser.add_argument("--cases", nargs="+", choices=names, metavar="NAME")
    parser.add_argument("--library", choices=["torch", "cupy"])
    parser.add_argument(
        "--list", action="store_true", help="say what would run, and stop"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="results, beside those it holds"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help=f"table of {DOCS_PAGE.name}, of --json or {RESULTS.name}",
    )
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    cases = [case for case in CASES if not args.cases or case.name in args.cases]
    if args.list:
        print("\n".join(f"{case.name}: {case.title}" for case in cases))
        return
    without = missing()
    if without:
        print(f"{without}: no kernel is timed. --list says what would be.")
        return
    run(cases, Gpu(args.library or default_library()), args)


def run(cases, device, args):
    """Measure and print each case, keep it in the file, fail if one is wrong."""
    facts = device.facts() | {"commit": commit()}
    print(tables.machine_text(facts), tables.head_text(), sep="\n\n", flush=True)
    path = args.json or (RESULTS if args.write_docs else None)
    rows, wrong = tables.read_rows(path) if path else [], []
    for case in cases:
        if device.library not in case.libraries:
            print(f"{case.name}: takes arrays of {' and '.join(case.libraries)} alone")
            continue
        row = measured(case, device)
        row |= {"gpu": facts["gpu"], "machine": tables.machine_text(facts)}
        row |= {"facts": facts}
        print(tables.row_text(row), flush=True)
        if not row.get("right", True):
            wrong.append(f"{case.name} ({row['title']})")
        rows = tables.merged(rows, [row])
        if path:  # after each case: a long run may be cut short
            path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if args.write_docs:
        tables.write_docs(DOCS_PAGE, rows)
    if wrong:
        raise SystemExit(f"kernels.py: error: wrong results of {', '.join(wrong)}")


def commit():
    """Commit of the checkout, with a + where it was changed."""
    found = git("rev-parse", "--short", "HEAD") or "unknown"
    return found + (
        "+" if git("status", "--porcelain", "--", "neuromm", "cuda") else ""
    )


def git(*words):
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

"""Time, memory and accuracy of the contrastive losses against other forms.

Run: python bench/losses.py [--cases short|full|memory|LOSS,N,D ...] [--threads 1 2]
     [--forms NAME ...] [--json FILE] [--write-docs]

Without arguments it runs the short form. LOSS is clip (symmetric InfoNCE), siglip,
levels (Gene-DML's three levels) or gram (volumes, without their anchor term). Each form
runs in processes of its own, forward and backward, float32 on the CPU: neuromm; eager,
which for InfoNCE is the form of open_clip (two products, two cross-entropies) and for
volumes the stacked determinant; eager under torch.compile; rows in chunks, each made
again in the backward; and GradCache's loss (the matrix of logits once, gradients of
the embeddings taken at once). All begin with rows that are not normalised.

Time is the median of the steps after a first one, which compiles. Memory, in a process
of its own, is the peak of a step over what is resident before it, inputs included;
freed arrays go back to the system at once there, so that it is what the step holds,
gradients included. Accuracy is
against float64: relative error of the loss, and of the worst gradient by its norm.
``memory`` measures InfoNCE at more sizes, for the plot; its times do not count. If our
form misses the accuracy that is asked for, the script fails.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from loss_bench import tables
from loss_bench.forms import FORMS, QUADRATIC
from loss_bench.measure import in_new_process

ROOT = Path(__file__).resolve().parents[1]
DOCS_PAGE = ROOT / "docs" / "losses.md"
FIGURE = ROOT / "docs" / "_static" / "losses" / "memory.svg"
RESULTS = ROOT / "bench" / "losses_results.json"

SETS = {
    "short": ["clip,2048,256", "levels,512,512", "gram,512,128"],
    "full": [
        "clip,8192,256", "clip,65536,256", "siglip,4096,256", "levels,512,512",
        "gram,2048,256",
    ],
    "memory": [f"clip,{n},256" for n in (512, 1024, 2048, 4096, 16384, 32768)],
}  # fmt: skip
# Forms with a matrix of all pairs would take more than 20 GB above.
_MOST_PAIRS = 16384
# From here on a step is done once, for memory and time, and not in float64.
_LARGE = 10_000
_REPEATS = 4


def build_parser():
    parser = argparse.ArgumentParser(
        prog="losses.py", description="Time the losses against other forms."
    )
    parser.add_argument("--cases", nargs="*", default=["short"])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--forms", nargs="+", choices=list(FORMS["clip"]))
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="results, beside those it holds"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help=f"table and figure of {DOCS_PAGE.name}, of --json or {RESULTS.name}",
    )
    return parser


def parse_cases(words):
    """Triples of loss, N and d, and whether their times count."""
    cases = []
    for word in words:
        for one in SETS.get(word, [word]):
            loss, _, sizes = one.partition(",")
            try:
                n_samples, width = (int(size) for size in sizes.split(","))
            except ValueError:
                n_samples = width = 0
            if loss not in FORMS or n_samples < 1 or width < 1:
                known = ", ".join([*SETS, *(f"{name},N,D" for name in FORMS)])
                raise SystemExit(f"losses.py: error: --cases takes {known}, got {word}")
            cases.append((loss, n_samples, width, word != "memory"))
    return cases


def main(argv=None):
    args = build_parser().parse_args(argv)
    machine = machine_text()
    print(machine, flush=True)
    path = args.json or (RESULTS if args.write_docs else None)
    rows, wrong = tables.read_rows(path) if path else [], []
    for case in parse_cases(args.cases):
        for found in run_case(*case, args):
            for row in found:
                row["machine"] = machine
            rows = tables.merged(rows, found)
            wrong += [words for words in complaints(found) if words not in wrong]
            if path:  # after each case: a long run may be cut short
                path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if args.write_docs:
        from loss_bench import figure

        tables.write_docs(DOCS_PAGE, rows, docs_machine(rows))
        figure.memory(rows, FIGURE)
    if wrong:
        raise SystemExit("losses.py: error: " + "; ".join(wrong))


def run_case(loss, n_samples, width, timed, args):
    """Yield the rows of all forms, for each number of threads."""
    spec = {"loss": loss, "n_samples": n_samples, "width": width, "timed": timed}
    large = n_samples > _LARGE
    forms = [
        form
        for form in FORMS[loss]
        if (not args.forms or form in args.forms)
        and not (form in QUADRATIC and n_samples > _MOST_PAIRS)
        and not (form == "chunked" and timed and large)
    ]
    with tempfile.TemporaryDirectory() as folder:
        if timed and not large:
            threads = max(args.threads)
            in_new_process({**spec, "do": "exact", "threads": threads}, folder)
        for threads in args.threads:
            print(f"\n{tables.case_title(spec | {'threads': threads})}")
            print(tables.head_text(), flush=True)
            found = []
            for form in forms:
                one = spec | {"form": form, "threads": threads}
                found.append(one | measured(one, folder, timed and not large))
                print(tables.row_text(found[-1]), flush=True)
            if timed:
                print(tables.goals_text(found), flush=True)
            yield found


def measured(spec, folder, with_time):
    """Memory of one form; time and errors in a process of their own, if they count."""
    found = in_new_process(spec | {"do": "memory"}, folder)
    if not with_time or "failed" in found:
        return found
    how = {"do": "time", "repeats": _REPEATS}
    return found | in_new_process(spec | how, folder)


def complaints(rows):
    return [
        f"{tables.case_title(rows[0])}: not {words}"
        for words, good in tables.goals(rows)
        if not good and ("within" in words or "runs" in words)
    ]


def docs_machine(rows):
    """Machines of the rows, most often one, and the commits that ran on each."""
    commits = {}
    for row in rows:
        if row["timed"]:
            machine, _, commit = row["machine"].partition("; commit ")
            commits.setdefault(machine, {})[commit.rstrip(".")] = None
    return " ".join(
        f"{machine}; commit {', '.join(names)}." for machine, names in commits.items()
    )


def machine_text():
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = "+" if git("status", "--porcelain", "--", "neuromm") else ""
    return (
        f"{cpu_model()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}; commit {commit}{changed}."
    )


def git(*words):
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return named[0] if named else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())

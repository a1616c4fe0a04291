"""Time, extra memory and accuracy of the contrastive losses against other forms.

Run: python bench/losses.py [--threads 2] [--cases NAME ...] [--json FILE]

Every form runs in a process of its own, forward and backward, float32 on the CPU:
neuromm; eager as open_clip has it (two products, two cross-entropies); that form under
torch.compile; and rows in chunks, each recomputed in the backward (checkpoints). Time
is the median of the repeats after one that is thrown away. Extra memory is the growth
of the peak of the resident set over what inputs take, so it includes the gradients.
Accuracy is against float64 autograd where N is at most 4096: relative error of the
loss, and of the gradients by norm. A form that fails or is killed is shown as such.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from neuromm.losses import info_nce, multi_level_contrastive, siglip

# name: (loss, N, d, repeats, forms)
CASES = {
    "gene-dml": ("levels", 512, 512, 15, ("neuromm", "eager", "compile")),
    "clip-4096": ("clip", 4096, 256, 3, ("neuromm", "eager", "compile", "chunked")),
    "clip-8192": ("clip", 8192, 256, 3, ("neuromm", "eager", "compile", "chunked")),
    "clip-65536": ("clip", 65536, 256, 1, ("neuromm",)),
    "siglip-4096": ("siglip", 4096, 256, 3, ("neuromm", "eager")),
}
TAU = 0.07


def eager_clip(a, b):
    a, b = normalize(a), normalize(b)
    match = torch.arange(len(a))
    by_row = cross_entropy(a @ b.T / TAU, match)
    return (by_row + cross_entropy(b @ a.T / TAU, match)) / 2


def chunked_clip(a, b, n_rows=512):
    def one(rows, others, start):
        match = torch.arange(start, start + len(rows))
        return cross_entropy(rows @ others.T / TAU, match, reduction="sum")

    a, b = normalize(a), normalize(b)
    total = 0.0
    for start in range(0, len(a), n_rows):
        for left, right in ((a, b), (b, a)):
            rows = left[start : start + n_rows]
            total = total + checkpoint(one, rows, right, start, use_reentrant=False)
    return total / (2 * len(a))


def eager_levels(gene, *levels):
    gene, losses = normalize(gene), []
    for rows in levels:
        image = normalize(rows)
        logits = gene @ image.T / TAU
        target = ((image @ image.T + gene @ gene.T) / (2 * TAU)).softmax(dim=-1)
        by_gene = (-target * logits.log_softmax(dim=-1)).sum(dim=1)
        by_image = (-target.T * logits.T.log_softmax(dim=-1)).sum(dim=1)
        losses.append(((by_gene + by_image) / 2).mean())
    return sum(losses) / len(losses)


def eager_siglip(a, b):
    logits = normalize(a) @ normalize(b).T / TAU - 10
    sign = 2 * torch.eye(len(a), dtype=a.dtype) - 1
    return -torch.nn.functional.logsigmoid(sign * logits).sum() / len(a)


EAGER = {"clip": eager_clip, "levels": eager_levels, "siglip": eager_siglip}
OURS = {
    "clip": lambda a, b: info_nce(a, b, TAU),
    "levels": lambda gene, *levels: multi_level_contrastive(gene, levels, TAU),
    "siglip": lambda a, b: siglip(a, b, TAU),
}


def form_of(loss, form):
    if form == "neuromm":
        return OURS[loss]
    if form == "chunked":
        return chunked_clip
    return torch.compile(EAGER[loss]) if form == "compile" else EAGER[loss]


def inputs_of(loss, n_samples, width):
    generator = torch.Generator().manual_seed(0)
    n_sets = 4 if loss == "levels" else 2
    sets = [torch.randn((n_samples, width), generator=generator) for _ in range(n_sets)]
    for rows in sets[1:]:
        rows.add_(sets[0], alpha=0.3)
    return [rows.requires_grad_(True) for rows in sets]


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def relative(found, right):
    return float((found.double() - right).norm() / right.norm())


def measure(case, form, threads):
    """One form of one case, in this process."""
    loss, n_samples, width, repeats, _ = CASES[case]
    torch.set_num_threads(threads)
    # Libraries, threads and their workspaces are loaded before memory is read.
    form_of(loss, "eager")(*inputs_of(loss, 64, width)).backward()
    inputs = inputs_of(loss, n_samples, width)
    function = form_of(loss, form)
    before = peak_mb()
    walls, cpus = [], []
    for _ in range(repeats + 1):
        for rows in inputs:
            rows.grad = None
        wall, cpu = time.perf_counter(), time.process_time()
        value = function(*inputs)
        value.backward()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    found = {
        "wall_s": statistics.median(walls[1:]),
        "cpu_s": statistics.median(cpus[1:]),
        "extra_mb": peak_mb() - before,
    }
    if n_samples <= 4096:
        wide = [rows.detach().double().requires_grad_(True) for rows in inputs]
        right = EAGER[loss](*wide)
        right.backward()
        found["loss_error"] = relative(value.detach(), right.detach())
        found["gradient_error"] = max(
            relative(rows.grad, other.grad)
            for rows, other in zip(inputs, wide, strict=True)
        )
    return found


def in_process(case, form, threads):
    command = [sys.executable, __file__, "--one", case, form, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"rc {done.returncode}"])[-1]
        return {"failed": last[:200]}
    return json.loads(done.stdout.splitlines()[-1])


def row_of(case, form, found):
    if "failed" in found:
        return f"{case:12} {form:8} failed: {found['failed']}"
    errors = "".join(
        f" {found[name]:10.1e}" if name in found else f" {'':>10}"
        for name in ("loss_error", "gradient_error")
    )
    times = f"{found['wall_s']:9.4f} {found['cpu_s']:9.4f} {found['extra_mb']:9.0f}"
    return f"{case:12} {form:8} {times}{errors}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--forms", nargs="+")
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.threads)))
        return
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(f"{args.threads} threads, float32, forward + backward")
    print(
        f"{'case':12} {'form':8} {'wall s':>9} {'cpu s':>9} {'extra MB':>9} "
        f"{'loss':>10} {'gradients':>10}"
    )
    results = []
    for case in args.cases:
        for form in CASES[case][-1]:
            if args.forms and form not in args.forms:
                continue
            found = in_process(case, form, args.threads)
            print(row_of(case, form, found), flush=True)
            results.append({"case": case, "form": form, **found})
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"threads": args.threads, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()

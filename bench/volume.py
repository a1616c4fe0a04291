"""Time, memory and accuracy of the volume loss against stacked determinants.

Run: python bench/volume.py [--n-samples 2048] [--width 256] [--n-others 3]

Forward and backward of the volume term in float32, in a process of its own each. Memory
is the growth of the resident set at its peak in the first call, over what embeddings
and libraries hold. Threads are as many as OMP_NUM_THREADS says. Both losses are held to
float64 at 128 samples. On an idle machine under a minute. Prints a table, and JSON with
--json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch.nn.functional import cross_entropy, normalize

from neuromm.losses.volume import gram_volume

TEMPERATURE = 0.07


def stacked_determinants(anchor, others):
    """The loss as the authors compute it: an (n, n, k + 1, k + 1) Gram tensor."""
    first = normalize(anchor)
    units = [normalize(rows) for rows in others]
    n = len(first)
    cross = [first @ unit.T for unit in units]
    rows = [torch.stack([torch.ones_like(cross[0]), *cross], dim=-1)]
    for unit, own in zip(units, cross, strict=True):
        inner = [(unit * other).sum(1).expand(n, n) for other in units]
        rows.append(torch.stack([own, *inner], dim=-1))
    volume = torch.stack(rows, dim=-2).det().abs().clamp_min(1e-6).sqrt()
    logits = -volume / TEMPERATURE
    match = torch.arange(n)
    return (cross_entropy(logits, match) + cross_entropy(logits.T, match)) / 2


def by_products(anchor, others):
    return gram_volume(anchor, others, TEMPERATURE, anchor_weight=0.0)


FORMS = {"determinants": stacked_determinants, "products": by_products}


def embeddings(n_samples, width, n_others, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_others + 1, n_samples, width, generator=generator).to(dtype)
    return [row.requires_grad_() for row in rows]


def measured(form, n_samples, width, n_others, n_repeats):
    """Median seconds and peak bytes of one form, in this process."""
    rows = embeddings(n_samples, width, n_others)
    # Warms up: libraries take their own buffers once, whatever the loss.
    FORMS[form](rows[0][:128], [row[:128] for row in rows[1:]]).backward()
    for row in rows:
        row.grad = None
    (rows[0].detach() @ rows[1].detach()[:512].T).sum()
    before = peak_bytes()
    seconds = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        loss = FORMS[form](rows[0], rows[1:])
        torch.autograd.grad(loss, rows)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            extra = peak_bytes() - before
    return {
        "form": form,
        "seconds": sorted(seconds)[n_repeats // 2],
        "extra_mb": extra / 1e6,
        "loss": loss.item(),
    }


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def accuracy(form, width, n_others):
    """Relative errors of loss and gradients in float32 against float64."""
    single = embeddings(128, width, n_others)
    double = [row.detach().double().requires_grad_() for row in single]
    loss = FORMS[form](single[0], single[1:])
    exact = stacked_determinants(double[0], double[1:])
    grads = torch.cat(torch.autograd.grad(loss, single)).double()
    exact_grads = torch.cat(torch.autograd.grad(exact, double))
    return {
        "loss_error": abs(loss.item() / exact.item() - 1),
        "grad_error": float((grads - exact_grads).norm() / exact_grads.norm()),
    }


def in_own_process(form, args):
    command = [
        sys.executable, __file__, "--only", form, "--n-samples", str(args.n_samples),
        "--width", str(args.width), "--n-others", str(args.n_others),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-samples", type=int, default=2048)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--n-others", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        repeats = 1 if args.only == "determinants" else 5
        row = measured(args.only, args.n_samples, args.width, args.n_others, repeats)
        print(json.dumps(row | accuracy(args.only, args.width, args.n_others)))
        return 0
    rows = [in_own_process(form, args) for form in FORMS]
    slow, fast = rows
    if args.json:
        print(json.dumps(vars(args) | {"rows": rows}))
    print(
        f"n_samples {args.n_samples}, width {args.width}, {args.n_others} others, "
        f"float32, CPU, {torch.get_num_threads()} thread(s)"
    )
    print(f"{'form':14}{'s':>8}{'extra MB':>10}{'loss err':>10}{'grad err':>10}")
    for row in rows:
        print(
            f"{row['form']:14}{row['seconds']:8.3f}{row['extra_mb']:10.1f}"
            f"{row['loss_error']:10.1e}{row['grad_error']:10.1e}"
        )
    print(
        f"products: {slow['seconds'] / fast['seconds']:.1f} times as fast, 1/"
        f"{slow['extra_mb'] / fast['extra_mb']:.0f} of the memory"
    )
    agree = abs(slow["loss"] / fast["loss"] - 1) < 1e-5
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())

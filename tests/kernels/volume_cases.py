"""Inputs of the kernels of volumes, and their definition by stacked determinants.

Shared by the tests that run them on the CPU and by those that run them on a GPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from neuromm.kernels import volume_softmax
from neuromm.kernels.volume_softmax import SQUARED_FLOOR, volume_normalisers

# Of products, so that few samples make several tiles.
TILE = 80, 144

# Samples and other modalities: 1, around a warp, a block of 64 rows and 128 columns and
# a tile, primes.
SIZES = [
    (1, 1),
    (2, 3),
    (31, 2),
    (32, 1),
    (33, 3),
    (63, 1),
    (64, 2),
    (65, 3),
    (79, 2),
    (81, 1),
    (127, 2),
    (128, 1),
    (129, 3),
    (193, 2),
]

# Inverse temperatures: a usual one, the lowest usual one, one beyond the fixed shift.
SCALES = [1 / 0.07, 100.0, 500.0]

Compute = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def rows(n_samples: int, n_others: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Anchor (n_samples, 8) and others (n_others, n_samples, 8), of any length."""
    generator = torch.Generator().manual_seed(100 * n_samples + n_others)
    shape = n_others + 1, n_samples, 8
    both = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return both[0], both[1:]


def hard_rows(
    n_samples: int, n_others: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Rows with repeats, matches that nearly coincide, and volumes at the floor."""
    anchor, others = rows(n_samples, n_others, dtype)
    anchor[::7], others[:, ::9] = anchor[0], others[:, :1].clone()
    others[0, 1::5] = anchor[1::5] + 0.01 * others[0, 1::5]
    anchor[3] = others[:, 3].sum(dim=0)
    if n_others > 1:
        others[1, 5] = -2 * others[0, 5]
    return anchor, others


def by_determinants(
    anchor: Tensor, others: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`volume_normalisers` with a determinant of k + 1 vectors for each pair."""
    n = len(anchor)
    first = anchor[:, None].expand(n, n, -1)
    rest = [one[None].expand(n, n, -1) for one in others]
    vectors = torch.stack([first, *rest], dim=2)
    squared = torch.linalg.det((vectors @ vectors.mT).flatten(0, 1)).view(n, n)
    low = squared.detach() <= SQUARED_FLOOR
    volumes = squared.masked_fill(low, SQUARED_FLOOR).sqrt()
    logits = -scale * volumes
    return (
        logits.logsumexp(dim=1),
        logits.logsumexp(dim=0),
        volumes.sum(dim=1),
        volumes.diagonal(),
    )


def results(
    compute: Compute, anchor: Tensor, others: Tensor, scale: float
) -> list[Tensor]:
    """Four outputs, and gradients of a sum of them by rows before they are unit."""
    given = [x.detach().clone() for x in (anchor, others)]
    given += [anchor.new_tensor(scale)]
    given = [x.requires_grad_() for x in given]
    unit = [normalize(x, dim=-1) for x in given[:2]]
    outputs = compute(*unit, given[2])
    generator = torch.Generator().manual_seed(1)
    shape = len(outputs), len(anchor)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    total = sum(
        (weight.to(output) * output).sum()
        for weight, output in zip(weights, outputs, strict=True)
    )
    found = [*outputs, *torch.autograd.grad(total, given)]
    return [x.detach().double().cpu() for x in found]


def check(
    found: list[Tensor],
    plain: list[Tensor],
    anchor: Tensor,
    others: Tensor,
    scale: float,
) -> None:
    """Hold results to the definition: no worse than twice the plain version."""
    exact = results(by_determinants, anchor.double(), others.double(), scale)
    eps = torch.finfo(anchor.dtype).eps
    names = ("rows", "columns", "row_sums", "matched", "anchor", "others", "scale")
    for name, mine, rounded, wanted in zip(names, found, plain, exact, strict=True):
        assert mine.isfinite().all(), name
        error, allowed = (float((x - wanted).abs().max()) for x in (mine, rounded))
        # A few roundings of the result and of logits, where the plain version has luck.
        size = 0.0 if name in ("row_sums", "matched") else scale
        floor = 4 * eps * (float(wanted.abs().max()) + size)
        assert error <= max(2 * allowed, floor), (name, error, allowed, floor)


def plain_results(anchor: Tensor, others: Tensor, scale: float) -> list[Tensor]:
    """`results` of the plain version, on the CPU, in the precision of the rows."""
    return results(volume_normalisers, anchor, others, scale)


def kernels_are_right() -> bool:
    """Whether sums and gradients are the plain ones, with a shift and without."""
    anchor, others = (normalize(x, dim=-1) for x in rows(70, 2, torch.float64))
    ones = volume_softmax._Gradients(*torch.ones(4, len(anchor), dtype=anchor.dtype))
    right = True
    for scale in (10.0, 500.0):
        spans = volume_softmax._spans(others, scale)
        matched = spans.determinant * volume_softmax._residual(anchor, spans)
        given = anchor, spans, matched
        plain = volume_softmax._log_sums(*given, True)
        found = volume_softmax._log_sums_by_kernel(*given, True)
        given = *given, *plain[:2], ones
        plain += volume_softmax._moments(*given, with_scale=True)
        found += volume_softmax._moments_by_kernel(*given, with_scale=True)
        right &= all(
            torch.allclose(one, other, rtol=1e-9, atol=1e-11 * scale)
            for one, other in zip(found, plain, strict=True)
        )
    return right

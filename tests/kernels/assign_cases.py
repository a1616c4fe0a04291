"""Inputs of the kernels of in-batch k-means, and their definition row by row.

Shared by the tests that run them on the CPU and by those that run them on a GPU.
"""

import torch
from torch import Tensor

from neuromm.kernels import gpu_groups
from neuromm.kernels.batch_kmeans import plain_kmeans

# Samples, features, groups: 1, around a warp, the 128 rows of a part, the 32 features
# of a block (one of which counts) and its 16 groups, primes.
SIZES = [
    (1, 1, 1),
    (31, 30, 15),
    (32, 31, 16),
    (33, 32, 17),
    (127, 33, 2),
    (128, 5, 3),
    (129, 64, 33),
    (257, 2, 5),
    (521, 37, 18),
]


def rows(n_samples: int, n_features: int, dtype: torch.dtype) -> Tensor:
    """Rows with repeats, of which every third is far from 0."""
    generator = torch.Generator().manual_seed(1000 * n_samples + n_features)
    shape = n_samples, n_features
    made = torch.randn(shape, generator=generator, dtype=torch.float64)
    made[::3] += 5
    made[n_samples // 2 :: 7] = made[0].clone()
    return made.to(dtype)


def labels(n_samples: int, n_groups: int) -> Tensor:
    """Labels of which the last group has none, if there are several."""
    generator = torch.Generator().manual_seed(n_samples)
    return torch.randint(max(1, n_groups - 1), (n_samples,), generator=generator)


def plain_nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """Labels by products, as the plain version has them, in the precision of rows."""
    squares = centres.square().sum(dim=1)
    return torch.addmm(squares, rows, centres.T, alpha=-2).argmin(dim=1)


def check_nearest(found: Tensor, rows: Tensor, centres: Tensor) -> None:
    """Hold labels to the distances: no farther than twice what the plain version errs.

    A label may differ where two centres are nearly as far.
    """
    assert found.dtype == torch.int64
    distance = (rows.double()[:, None] - centres.double()).square().sum(dim=2)
    least = distance.min(dim=1).values
    plain = plain_nearest(rows, centres)
    excess, allowed = (
        float((distance.gather(1, one.cpu()[:, None])[:, 0] - least).max())
        for one in (found, plain)
    )
    # Roundings of a product and a square, where the plain version has luck.
    size = float(rows.double().square().sum(dim=1).max())
    assert excess <= max(2 * allowed, 4 * torch.finfo(rows.dtype).eps * size)


def exact_means(rows: Tensor, labels: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Means and sizes in float64, group by group; 0 where a group is empty."""
    means = rows.new_zeros((n_groups, rows.shape[1]), dtype=torch.float64)
    for group in range(n_groups):
        members = rows[labels == group].double()
        means[group] = members.sum(dim=0) / max(1, len(members))
    return means, labels.bincount(minlength=n_groups).double()


def check_means(
    found: tuple[Tensor, Tensor], rows: Tensor, labels: Tensor, n_groups: int
) -> None:
    """Hold means to the definition: sums are double, so a mean is rounded once."""
    means, sizes = (one.cpu() for one in found)
    exact, numbers = exact_means(rows, labels, n_groups)
    assert means.dtype == sizes.dtype == rows.dtype
    assert torch.equal(sizes.double(), numbers)
    assert not means[numbers == 0].any()
    # Of float64 data the sums of the definition have roundings, too.
    eps = torch.finfo(rows.dtype).eps
    more = 1e-14 * float(rows.abs().max())
    assert ((means - exact).abs() <= 0.5 * eps * exact.abs() + more).all()


def check_kmeans(
    found: tuple[Tensor, Tensor], rows: Tensor, n_groups: int, n_iterations: int
) -> None:
    """Hold labels and centres of separated groups to distance by distance."""
    labels, centres = plain_kmeans(rows, rows[:n_groups], n_iterations)
    assert torch.equal(found[0].cpu(), labels)
    eps = torch.finfo(rows.dtype).eps
    torch.testing.assert_close(
        found[1].cpu().double(), centres, rtol=0, atol=8 * eps * float(rows.abs().max())
    )


def kernels_are_right() -> bool:
    """Whether means of groups over two parts of the rows are those of float64."""
    given = rows(139, 33, torch.float64), labels(139, 17), 17
    found = gpu_groups.member_means(*given)
    exact = exact_means(*given)
    return all(
        torch.allclose(one, other, rtol=1e-12)
        for one, other in zip(found, exact, strict=True)
    )

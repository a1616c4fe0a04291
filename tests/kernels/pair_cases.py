"""Inputs of the kernels of pairs, and their definition in the precision of the inputs.

Shared by the tests that run them on the CPU and by those that run them on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuromm.kernels import gpu_pairs

# Rows and columns: 1, around a warp, around the 64 x 128 logits of a block, a prime.
SIZES = [
    (1, 1),
    (1, 129),
    (31, 33),
    (32, 32),
    (33, 31),
    (63, 127),
    (64, 128),
    (65, 129),
    (131, 67),
]
# Temperatures of 0.07 and 0.01: the second needs two exponentials a logit.
SCALES = [14.3, 100.0]
KINDS = ["random", "repeated", "opposite"]


@dataclass(frozen=True)
class PairCase:
    """Unit rows of two sides in one precision, and which pairs are what."""

    left: np.ndarray
    right: np.ndarray
    scale: np.ndarray
    matching: str = "none"
    labels: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    present: tuple[np.ndarray | None, np.ndarray | None] = (None, None)

    def to(self, dtype: str) -> "PairCase":
        return replace(
            self,
            left=self.left.astype(dtype),
            right=self.right.astype(dtype),
            scale=self.scale.astype(dtype),
        )

    @property
    def bound(self) -> np.ndarray:
        """Not less than any logit in size."""
        return np.array(self.scale * 1.00001, dtype=np.float32)

    @property
    def counted(self) -> np.ndarray:
        shape = len(self.left), len(self.right)
        held = [
            np.ones(n, dtype=bool) if one is None else one
            for n, one in zip(shape, self.present, strict=True)
        ]
        return held[0][:, None] & held[1]

    @property
    def same(self) -> np.ndarray:
        """Pairs that are counted and positives."""
        if self.matching == "none":
            return np.zeros_like(self.counted)
        ids = self.labels
        if self.matching == "place":
            ids = np.arange(len(self.left)), np.arange(len(self.right))
        return (ids[0][:, None] == ids[1]) & self.counted


def case(
    n_left: int,
    n_right: int,
    scale: float,
    kind: str = "random",
    matching: str = "none",
    masked: bool = False,
    width: int = 12,
) -> PairCase:
    """Seeded rows of float32; some absent and some labels equal."""
    rng = np.random.default_rng([n_left, n_right])
    left, right = (rng.standard_normal((n, width)) for n in (n_left, n_right))
    if kind == "repeated":
        left, right = left[: (n_left + 2) // 3], right[: (n_right + 2) // 3]
        left, right = np.tile(left, (3, 1))[:n_left], np.tile(right, (3, 1))[:n_right]
    if kind == "opposite":  # of one row and of one column, each to all of the others
        right = right[:1] + 0.1 * right
        left[n_left // 2] = -right[0]
        right[n_right // 3] = -right[0] + 0.01
        others = np.arange(n_left) != n_left // 2
        left[others] = right[0] + 0.1 * left[others]
    left, right = (
        (one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32)
        for one in (left, right)
    )
    labels = present = (None, None)
    if matching == "label":
        labels = tuple(rng.integers(-3, 9, n) for n in (n_left, n_right))
    if masked:
        present = tuple(rng.random(n) < 0.7 for n in (n_left, n_right))
    return PairCase(left, right, np.array(scale, np.float32), matching, labels, present)


def sums(given: PairCase) -> tuple[np.ndarray, np.ndarray]:
    """Lines log_sums, positives, counts of rows and of columns."""
    cosines = given.left @ given.right.T
    logits = np.where(given.counted, given.scale * cosines, -np.inf)
    found = []
    for axis in (1, 0):
        top = np.max(logits, axis=axis, keepdims=True)
        safe = np.where(np.isfinite(top), top, 0)
        with np.errstate(divide="ignore"):
            total = np.log(np.exp(logits - safe).sum(axis=axis))
        positives = np.where(given.same, cosines, 0).sum(axis=axis)
        counts = given.same.sum(axis=axis).astype(positives.dtype)
        found.append(np.stack([total + np.squeeze(safe, axis), positives, counts]))
    return found[0], found[1]


def upstream(given: PairCase) -> list[np.ndarray]:
    """Gradients of both log_sums and of both sums of positives."""
    rng = np.random.default_rng(5)
    sizes = [len(given.left), len(given.right)] * 2
    return [rng.standard_normal(n).astype(np.float32) / n for n in sizes]


def slopes(given: PairCase, gradients: list[np.ndarray]) -> np.ndarray:
    """Gradient of the cosines."""
    logits = given.scale * (given.left @ given.right.T)
    (rows, *_), (columns, *_) = sums(given)
    grad_left, grad_right, share_left, share_right = (
        one.astype(logits.dtype) for one in gradients
    )
    with np.errstate(invalid="ignore", over="ignore"):
        found = given.scale * (
            grad_left[:, None] * np.exp(logits - rows[:, None])
            + grad_right * np.exp(logits - columns)
        )
    found = found + np.where(given.same, share_left[:, None] + share_right, 0)
    return np.where(given.counted, found, 0)


def check(found: np.ndarray, plain: np.ndarray, exact: np.ndarray, size: float) -> None:
    """Hold results to the definition: no worse than twice plain float32.

    What is plainly right by luck is let off with roundings of its ``size``.
    """
    found, plain = found.astype(np.float64), plain.astype(np.float64)
    held = np.isfinite(exact)
    np.testing.assert_array_equal(found[~held], exact[~held])
    found, plain, exact = found[held], plain[held], exact[held]
    error = abs(found - exact).max(initial=0)
    allowed = 2 * abs(plain - exact).max(initial=0)
    assert error <= max(allowed, 4 * np.finfo(np.float32).eps * size)


def stats_are_right() -> bool:
    """Sums by tiles, with either number of exponentials."""
    return all(_is_right((40, 33), scale, _sums_by_tiles) for scale in SCALES)


def small_sums_are_right() -> bool:
    """Sums in one launch."""
    return _is_right((5, 33), SCALES[1], gpu_pairs.small_pair_sums)


def _is_right(size: tuple[int, int], scale: float, compute: Callable[..., Any]) -> bool:
    given = case(*size, scale, "random", "label")
    pairs = gpu_pairs.Pairs(
        given.scale, *(gpu_pairs.Side(labels=one) for one in given.labels), "label"
    )
    found = compute(given.left @ given.right.T, pairs)
    lines = [gpu_pairs.LOG_SUMS, gpu_pairs.POSITIVES, gpu_pairs.COUNTS]
    return all(
        np.allclose(one[lines], exact, rtol=1e-4, atol=1e-4)
        for one, exact in zip(found, sums(given.to("float64")), strict=True)
    )


def _sums_by_tiles(products: np.ndarray, pairs: Any) -> tuple[np.ndarray, np.ndarray]:
    bound = np.array(pairs.scale * 1.00001, dtype=np.float32)
    totals = gpu_pairs.PairTotals(*products.shape, pairs, bound)
    totals.add(products, 0, 0)
    return totals.rows, totals.columns

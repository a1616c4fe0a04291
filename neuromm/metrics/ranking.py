"""Whether an embedding finds what belongs to it among many.

Candidates are ordered by cosine. Those that are equally near stand in random order, and
each score is its expectation over these orders: embeddings that are all the same score
chance, neither 1, as where a tie counts as found, nor 0.

References
----------
Hodosh, Young & Hockenmaier (2013) Framing image description as a ranking task. Journal
of Artificial Intelligence Research 47:853-899 (recall at k, median rank).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

__all__ = ["RetrievalScores", "k_way", "retrieval"]

Counts = NDArray[np.int64]
Labels = Sequence[Any] | NDArray[Any]

# Cosines of equal rows differ by rounding; half of 1e-12 of a cosine is no evidence.
_TIE = 1e-12

# Cosines of a tile of rows; with what is counted in it, about 40 MB.
_TILE_CELLS = 2**21


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """How often, and how early, the right item is found.

    Attributes
    ----------
    recall : dict of int to float
        R@k for each k: share of queries with a right item among the first k.
    chance : dict of int to float
        R@k of embeddings that know nothing: k / n_candidates with one right item.
    median_rank : int
        Fewest candidates to look at for half of the queries to have found a right one.
    chance_rank : int
        The same of embeddings that know nothing.
    n_queries : int
    """

    recall: dict[int, float]
    chance: dict[int, float]
    median_rank: int
    chance_rank: int
    n_queries: int


def retrieval(
    queries: ArrayLike,
    items: ArrayLike,
    *,
    groups: Labels | None = None,
    ks: Sequence[int] = (1, 5, 10),
    labels: Labels | None = None,
) -> RetrievalScores:
    """Recall at k and median rank of the items that belong to queries.

    Parameters
    ----------
    queries, items : arrays of shape (n_samples, n_features)
        ``queries[i]`` belongs to ``items[i]``. Lengths do not count; a row of zeros has
        the cosine 0 with all. Exchange the two for the other direction.
    groups : sequence of n_samples labels, optional
        Candidates of a query are the items of its group, such as the spots of its
        section. Without it, what tells sections apart counts as finding spots.
    ks : sequence of int
    labels : sequence of n_samples labels, optional
        All candidates with the query's label are right, such as pictures of one concept
        or records of one patient. Without it, its own row is.

    Returns
    -------
    scores : RetrievalScores
        Chance is the mean over queries of what their numbers of candidates and of right
        ones give. Read the scores beside it: a small gallery is an easy one.

    Raises
    ------
    UsageError
        If rows, groups or labels do not match, values are not finite, or a k is below
        1.

    Notes
    -----
    With b wrong candidates nearer than the nearest right one, and w wrong and r right
    ones as near as that, a query has found one at k with the probability
    1 - C(w, m) / C(w + r, m), where m = k - b (0 at least): that of m draws from the
    tied ones which are not all wrong. For r = 1 this is m / (w + 1).

    Cosines are made tile by tile, in about 40 MB beside the rows.

    Examples
    --------
    >>> scores = retrieval([[1, 0], [0, 1], [1, 1]], [[2, 0], [0, 2], [1, -1]], ks=[1])
    >>> round(scores.recall[1], 3), round(scores.chance[1], 3)
    (0.667, 0.333)
    """
    if not ks or min(ks) < 1:
        raise UsageError(f"ks must be numbers of candidates, 1 at least, got {ks}")
    found = _places(queries, items, groups, labels)
    # Where nothing is known, all candidates are as near as the right ones.
    nothing = (np.zeros_like(found.above), found.n_wrong, found.n_right)
    places = (found.above, found.wrong, found.right)
    return RetrievalScores(
        recall={int(k): _hit_rate(k, *places) for k in ks},
        chance={int(k): _hit_rate(k, *nothing) for k in ks},
        median_rank=_median_rank(*places),
        chance_rank=_median_rank(*nothing),
        n_queries=len(found.above),
    )


def k_way(
    queries: ArrayLike, items: ArrayLike, k: int, *, groups: Labels | None = None
) -> float:
    """Share of choices between the right item and k - 1 others that are right.

    Parameters
    ----------
    queries, items, groups
        As in `retrieval`.
    k : int
        Items to choose from, the right one with them.

    Returns
    -------
    accuracy : float
        In [0, 1], 1 / k by chance. Exact: the mean over all sets of k - 1 others of the
        group, none of which is drawn. ``k=2`` is the share of pairs that are in order,
        a tie counting half; with all candidates of a group it is R@1.

    Raises
    ------
    UsageError
        As in `retrieval`, or if a group has fewer than k items.

    Notes
    -----
    If b of n others are nearer than the right one, it wins in C(n - b, k - 1) of the
    C(n, k - 1) sets. A tie with t others has b, b + 1, …, b + t before it alike.

    Examples
    --------
    >>> k_way([[1, 0], [0, 1], [1, 1]], [[2, 0], [0, 2], [1, 1]], 2)
    1.0
    >>> k_way([[1, 0], [1, 0]], [[0, 1], [0, 1]], 2)
    0.5
    """
    found = _places(queries, items, groups, None)
    fewest = int(found.n_wrong.min()) + 1
    if not 2 <= k <= fewest:
        raise UsageError(
            f"k must be 2 at least, and at most the {fewest} items of the smallest "
            f"group, got {k}: choose a smaller k, or leave small groups out"
        )
    won = 0.0
    for n_others in np.unique(found.n_wrong):
        own = found.n_wrong == n_others
        won += _won(found.above[own], found.wrong[own], int(n_others), k).sum()
    return float(won / len(found.above))


class _Places(NamedTuple):
    """Counts of candidates, each of shape (n_queries,)."""

    above: Counts  # wrong ones nearer than the nearest right one
    wrong: Counts  # wrong ones as near as that
    right: Counts  # right ones as near as that, itself with them
    n_wrong: Counts
    n_right: Counts


def _places(
    queries: ArrayLike, items: ArrayLike, groups: Labels | None, labels: Labels | None
) -> _Places:
    ours, theirs = _unit_rows(queries, "queries"), _unit_rows(items, "items")
    if ours.shape != theirs.shape or not ours.size:
        raise UsageError(
            "queries and items must have one shape (n_samples, n_features) and belong "
            f"together row by row, got {ours.shape} and {theirs.shape}"
        )
    n_samples = len(ours)
    group = np.zeros(n_samples, int) if groups is None else _codes(groups, n_samples)
    label = np.arange(n_samples) if labels is None else _codes(labels, n_samples)
    places = np.empty((len(_Places._fields), n_samples), dtype=np.int64)
    order = np.argsort(group, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        candidates = theirs[own]
        for rows in _tiles(own):
            places[:, rows] = _counted(
                ours[rows] @ candidates.T, label[rows, None] == label[own]
            )
    return _Places(*places)


def _counted(cosine: NDArray[np.float64], right: NDArray[np.bool_]) -> list[Counts]:
    best = cosine.max(axis=1, where=right, initial=-np.inf, keepdims=True)
    cosine -= best
    level = np.abs(cosine) <= _TIE
    return [
        np.count_nonzero(~right & (cosine > _TIE), axis=1),
        np.count_nonzero(~right & level, axis=1),
        np.count_nonzero(right & level, axis=1),
        np.count_nonzero(~right, axis=1),
        np.count_nonzero(right, axis=1),
    ]


def _hit_rate(k: int, above: Counts, wrong: Counts, right: Counts) -> float:
    """Mean probability that a right candidate is among the first k."""
    from scipy.special import gammaln

    drawn = np.clip(k - above, 0, wrong + right)
    # C(wrong, drawn) / C(wrong + right, drawn); gammaln(0) is inf, which gives 0.
    missed = np.exp(
        gammaln(wrong + 1)
        - gammaln(np.maximum(wrong - drawn + 1, 0))
        + gammaln(wrong + right - drawn + 1)
        - gammaln(wrong + right + 1)
    )
    # Without rounding where there is one right item.
    hit = np.where(right == 1, drawn / (wrong + 1), 1 - missed)
    return float(hit.mean())


def _median_rank(above: Counts, wrong: Counts, right: Counts) -> int:
    low, high = 1, int((above + wrong).max()) + 1  # by then, all have found one
    while low < high:
        middle = (low + high) // 2
        # gammaln rounds in the tenth digit where there are 1e5 candidates.
        if _hit_rate(middle, above, wrong, right) >= 0.5 - 1e-9:
            high = middle
        else:
            low = middle + 1
    return low


def _won(above: Counts, tied: Counts, n_others: int, k: int) -> NDArray[np.float64]:
    """Share of sets of k - 1 others in which none stands before the right item."""
    left = n_others - np.arange(n_others)
    shares = np.cumprod(np.concatenate([[1.0], np.maximum(left - (k - 1), 0) / left]))
    summed = np.concatenate([[0.0], np.cumsum(shares)])
    mean = (summed[above + tied + 1] - summed[above]) / (tied + 1)
    # Differences of sums round; a place of its own needs none.
    won: NDArray[np.float64] = np.where(tied == 0, shares[above], mean)
    return won


def _unit_rows(rows: ArrayLike, name: str) -> NDArray[np.float64]:
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2:
        raise UsageError(
            f"{name} must have shape (n_samples, n_features), got {table.shape}"
        )
    if not np.isfinite(table).all():
        raise UsageError(f"{name} hold nan or infinity: did training diverge?")
    length = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(length == 0, 1, length)


def _codes(names: Labels, n_samples: int) -> Counts:
    given = np.asarray(names)
    if given.shape != (n_samples,):
        raise UsageError(
            f"groups and labels must name one a row, got shape {given.shape} for "
            f"{n_samples} rows"
        )
    codes: Counts = np.unique(given, return_inverse=True)[1]
    return codes


def _tiles(rows: Counts) -> Iterator[Counts]:
    height = max(1, _TILE_CELLS // len(rows))
    for start in range(0, len(rows), height):
        yield rows[start : start + height]

"""Retrieval and k-way identification: ties, galleries, and what chance is."""

import tracemalloc
from importlib import import_module
from itertools import combinations, permutations
from math import comb
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuromm.metrics
from neuromm.core import UsageError
from neuromm.metrics import k_way, retrieval

DIRECTIONS = np.array([[1, 0], [0, 1], [1, 1], [-1, 2], [0, 0]], dtype=float)


def pairs(n_rows, seed=0, noise=1.0, n_features=8):
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((n_rows, n_features))
    return items + noise * rng.standard_normal(items.shape), items


def tied_pairs(n_rows, seed):
    """Few directions, so that most candidates are as near as others."""
    rng = np.random.default_rng(seed)
    return (DIRECTIONS[rng.integers(0, len(DIRECTIONS), n_rows)] for _ in range(2))


def cosines(queries, items):
    unit = []
    for rows in (queries, items):
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit.append(rows / np.where(length == 0, 1, length))
    return (unit[0] @ unit[1].T).round(9)


def enumerated_recall(queries, items, k, label, group):
    """Share of all orders of equally near candidates that find a right one at k."""
    near, hits = cosines(queries, items), []
    for i in range(len(queries)):
        candidates = np.flatnonzero(group == group[i])
        orders = [
            order
            for order in permutations(candidates)
            if (np.diff(near[i, list(order)]) <= 0).all()
        ]
        found = [label[i] in label[list(order[:k])] for order in orders]
        hits.append(np.mean(found))
    return np.mean(hits)


@pytest.mark.parametrize("seed", range(3))
def test_recall_is_the_mean_over_all_orders_of_tied_candidates(seed):
    queries, items = tied_pairs(6, seed)
    label, group = np.array([0, 1, 1, 2, 0, 3]), np.array([0, 0, 0, 0, 0, 1])
    own, whole = np.arange(6), np.zeros(6)
    ks = (1, 2, 3, 5)
    for labels, groups in ((own, whole), (label, whole), (label, group)):
        scores = retrieval(queries, items, groups=groups, labels=labels, ks=ks)
        for k in ks:
            expected = enumerated_recall(queries, items, k, labels, groups)
            assert scores.recall[k] == pytest.approx(expected, abs=1e-9)


def test_embeddings_that_are_all_the_same_score_exactly_chance():
    rng = np.random.default_rng(0)
    same = np.tile(rng.standard_normal(33), (301, 1))
    label, section = rng.integers(0, 40, 301), rng.integers(0, 5, 301)
    for settings_ in ({}, {"groups": section}, {"groups": section, "labels": label}):
        scores = retrieval(same, -0.1 * same, **settings_)
        assert scores.recall == scores.chance
        assert scores.median_rank == scores.chance_rank
    assert k_way(same, 3 * same, 7, groups=section) == pytest.approx(1 / 7)


def test_chance_is_the_mean_over_galleries_of_their_closed_form():
    queries, items = pairs(30)
    section = np.repeat([0, 1, 2], [4, 10, 16])
    plain = retrieval(queries, items, groups=section, ks=[3]).chance[3]
    assert plain == pytest.approx((4 * 3 / 4 + 10 * 3 / 10 + 16 * 3 / 16) / 30)
    label = np.r_[np.zeros(4), np.repeat([1, 2], 5), np.arange(16)]
    several = retrieval(queries, items, groups=section, labels=label, ks=[3]).chance[3]
    halves = 1 - comb(5, 3) / comb(10, 3)
    assert several == pytest.approx((4 * 1 + 10 * halves + 16 * 3 / 16) / 30)
    alone = retrieval(queries, items, ks=[15, 999])
    assert alone.chance == pytest.approx({15: 0.5, 999: 1})
    assert alone.chance_rank == 15


def test_unrelated_embeddings_score_chance_on_average():
    scores = [retrieval(*pairs(60, seed, noise=1e9), ks=[10]) for seed in range(40)]
    found = np.array([one.recall[10] for one in scores])
    standard_error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - 10 / 60) < 3 * standard_error
    assert scores[0].chance[10] == pytest.approx(10 / 60)


def test_ranks_without_ties_are_those_of_a_sorted_list():
    queries, items = pairs(101)
    near = cosines(queries, items)
    rank = 1 + (near > near.diagonal()[:, None]).sum(axis=1)
    scores = retrieval(queries, items, ks=(1, 4, 20))
    assert scores.recall == {k: (rank <= k).mean() for k in (1, 4, 20)}
    assert scores.median_rank == np.median(rank)
    assert scores.n_queries == 101
    perfect = retrieval(items, items)
    assert (perfect.recall[1], perfect.median_rank) == (1, 1)


def test_embeddings_of_the_section_find_no_spot_within_it():
    """Among the spots of all sections, knowing the section is five times chance."""
    rng = np.random.default_rng(0)
    section = np.repeat(np.arange(5), 80)
    level = 20 * rng.standard_normal((5, 16))[section]
    queries, items = (level + rng.standard_normal((400, 16)) for _ in range(2))
    pooled = retrieval(queries, items, ks=[10])
    assert pooled.recall[10] > 4 * pooled.chance[10]
    within = retrieval(queries, items, groups=section, ks=[10])
    assert within.chance[10] == pytest.approx(10 / 80)
    standard_error = np.sqrt(0.125 * 0.875 / 400)
    assert abs(within.recall[10] - 10 / 80) < 3 * standard_error


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_scores_depend_on_neither_lengths_nor_the_order_of_rows(seed, scale):
    queries, items = pairs(12, seed)
    rng = np.random.default_rng(seed)
    section = rng.integers(0, 2, 12)
    order, lengths = rng.permutation(12), rng.uniform(0.1, 10, (12, 1))
    plain = retrieval(queries, items, groups=section)
    other = retrieval(
        (queries * lengths)[order], scale * items[order], groups=section[order]
    )
    assert other.recall == pytest.approx(plain.recall)
    assert other.median_rank == plain.median_rank


def test_tiles_change_nothing_and_no_square_matrix_is_held(monkeypatch):
    queries, items = pairs(6000)
    tracemalloc.start()
    whole = retrieval(queries, items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000**2 * 8 / 3
    few, own = queries[:200], items[:200]
    expected = retrieval(few, own)
    monkeypatch.setattr("neuromm.metrics.ranking._TILE_CELLS", 999)
    assert retrieval(few, own) == expected
    assert whole.n_queries == 6000


def enumerated_choice(queries, items, k):
    """All sets of k - 1 others; a tie among j items is won by one in j."""
    near, won = cosines(queries, items), []
    for i, row in enumerate(near):
        for others in combinations(np.delete(np.arange(len(near)), i), k - 1):
            there = row[list(others)]
            won.append((there <= row[i]).all() / (1 + (there == row[i]).sum()))
    return np.mean(won)


@pytest.mark.parametrize("k", [2, 3, 5, 7])
def test_k_way_is_the_mean_over_all_sets_of_others(k):
    for seed in range(3):
        queries, items = tied_pairs(7, seed)
        expected = enumerated_choice(queries, items, k)
        assert k_way(queries, items, k) == pytest.approx(expected, abs=1e-12)
    queries, items = pairs(7)
    expected = enumerated_choice(queries, items, k)
    assert k_way(queries, items, k) == pytest.approx(expected, abs=1e-12)


def test_two_way_is_the_share_of_ordered_pairs_and_all_way_is_recall_at_one():
    queries, items = pairs(50)
    near = cosines(queries, items)
    before = near.diagonal()[:, None] > near
    assert k_way(queries, items, 2) == pytest.approx(before.sum() / (50 * 49))
    for ours, theirs in ((queries, items), tuple(tied_pairs(50, 0))):
        best = retrieval(ours, theirs, ks=[1]).recall[1]
        assert k_way(ours, theirs, 50) == pytest.approx(best)


def test_k_way_is_what_drawing_others_comes_to():
    queries, items = pairs(200, noise=3.0)
    near = cosines(queries, items)
    rng = np.random.default_rng(0)
    won = np.zeros(2000)
    for draw in range(len(won)):
        i = draw % 200
        others = rng.choice(np.delete(np.arange(200), i), 9, replace=False)
        won[draw] = (near[i, others] < near[i, i]).all()
    exact = k_way(queries, items, 10)
    assert 0.2 < exact < 0.8
    assert abs(won.mean() - exact) < 3 * np.sqrt(exact * (1 - exact) / len(won))


def test_k_way_within_groups_is_the_mean_of_each_over_its_queries():
    queries, items = pairs(30)
    section = np.repeat([0, 1], [10, 20])
    apart = [k_way(queries[own], items[own], 4) for own in (section == 0, section == 1)]
    together = k_way(queries, items, 4, groups=section)
    assert together == pytest.approx((10 * apart[0] + 20 * apart[1]) / 30)


def test_what_cannot_be_ranked_is_refused():
    queries, items = pairs(10)
    with pytest.raises(UsageError, match=r"belong together row by row.*\(9, 8\)"):
        retrieval(queries[:9], items)
    with pytest.raises(UsageError, match="one shape"):
        retrieval(np.empty((0, 3)), np.empty((0, 3)))
    with pytest.raises(UsageError, match=r"queries must have shape"):
        retrieval(queries[0], items)
    with pytest.raises(UsageError, match="name one a row"):
        retrieval(queries, items, groups=[1, 2])
    with pytest.raises(UsageError, match="1 at least"):
        retrieval(queries, items, ks=[0, 5])
    with pytest.raises(UsageError, match="the 3 items of the smallest group, got 4"):
        k_way(queries, items, 4, groups=[0] * 7 + [1] * 3)
    with pytest.raises(UsageError, match="k must be 2 at least"):
        k_way(queries, items, 1)
    items[2, 2] = np.nan
    with pytest.raises(UsageError, match="items hold nan or infinity"):
        retrieval(queries, items)


def test_no_public_name_turns_into_a_module_once_modules_are_loaded():
    """Python binds a module to its package: a function of its name would be lost."""
    for home in set(neuromm.metrics._HOMES.values()):
        import_module(home)
    for name in neuromm.metrics.__all__:
        assert not isinstance(getattr(neuromm.metrics, name), ModuleType), name

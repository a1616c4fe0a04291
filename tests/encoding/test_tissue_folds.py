"""Folds of tissue keep what resembles each other on one side."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.encoding import tissue_folds
from neuromm.prepare.expression import neighbours


def square(n_rows, n_columns):
    return np.argwhere(np.ones((n_rows, n_columns)))


def hexagonal(n_rows, n_columns):
    """Rows and columns of Visium: columns count by two."""
    row, place = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return np.column_stack([row, 2 * place + row % 2])


def ragged(rng, grid, share=0.7):
    """Tissue does not fill its array, and lies somewhere on it."""
    kept = np.sort(rng.choice(len(grid), round(share * len(grid)), replace=False))
    return grid[kept] + 2 * rng.integers(0, 20, 2)


def steps_apart(grid, kind, limit):
    """Steps between spots by walking over an array without gaps, up to a limit."""
    low, high = grid.min(axis=0) - 2 * limit, grid.max(axis=0) + 2 * limit
    whole = low + np.argwhere(np.ones(high - low + 1))
    if kind == "visium":
        whole = whole[whole.sum(axis=1) % 2 == grid[0].sum() % 2]
    place = {tuple(one): number for number, one in enumerate(whole.tolist())}
    own = [place[tuple(one)] for one in grid.tolist()]
    touching = neighbours(whole[:, 0], whole[:, 1], kind)
    found = np.full((len(grid), len(grid)), limit + 1)
    reached = np.zeros((len(whole), len(grid)))
    reached[own, np.arange(len(grid))] = 1
    for step in range(limit + 1):
        near = reached[own] > 0
        found[near & (found > step)] = step
        reached = ((touching @ reached) + reached > 0).astype(float)
    return found


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["blocks", "random"]),
    n_folds=st.integers(2, 6),
    margin=st.integers(0, 1),
)
def test_every_spot_is_tested_once_and_never_where_it_is_trained_on(
    seed, kind, n_folds, margin
):
    rng = np.random.default_rng(seed)
    grids = [ragged(rng, square(9, 12)), ragged(rng, square(14, 7))]
    folds = tissue_folds(
        grids, ["A", "B"], kind=kind, n_folds=n_folds, margin=margin, rng=seed
    )
    assert len(folds) == n_folds
    for section, grid in enumerate(grids):
        tested = np.concatenate([fold.test[section] for fold in folds])
        np.testing.assert_array_equal(np.sort(tested), np.arange(len(grid)))
        sizes = [len(fold.test[section]) for fold in folds]
        assert max(sizes) - min(sizes) <= 1
        for fold in folds:
            assert not np.intersect1d(fold.train[section], fold.test[section]).size
            assert (np.diff(fold.train[section]) > 0).all()


@pytest.mark.parametrize("kind", ["st", "visium"])
@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize("n_folds", [3, 4])
def test_training_spots_are_those_further_than_the_margin(kind, margin, n_folds):
    rng = np.random.default_rng(margin)
    whole = square(10, 10) if kind == "st" else hexagonal(10, 10)
    grid = ragged(rng, whole)
    apart = steps_apart(grid, kind, margin)
    folds = tissue_folds(
        [grid], ["A"], kind="blocks", n_folds=n_folds, grid_kind=kind, margin=margin
    )
    for fold in folds:
        nearest = apart[:, fold.test[0]].min(axis=1)
        np.testing.assert_array_equal(fold.train[0], np.flatnonzero(nearest > margin))


def test_a_hexagonal_neighbour_along_a_row_is_one_step_away():
    """Two columns apart: on a square array that would be two steps."""
    line = np.column_stack([np.zeros(8, int), np.arange(0, 16, 2)])
    first, _ = tissue_folds([line], ["A"], kind="blocks", n_folds=2, grid_kind="visium")
    np.testing.assert_array_equal(first.test[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(first.train[0], [5, 6, 7])


@pytest.mark.parametrize("whole", [square(10, 16), hexagonal(16, 10)])
def test_four_blocks_are_the_quarters_of_a_whole_section(whole):
    kind = "st" if whole[:, 1].max() == 15 else "visium"
    folds = tissue_folds([whole], ["A"], kind="blocks", grid_kind=kind)
    middle = np.median(whole, axis=0)
    for number, fold in enumerate(folds):
        own = whole[fold.test[0]]
        inside = (own > middle) == [number // 2, number % 2]
        assert len(own) == 40
        assert inside.all()
    assert [fold.name for fold in folds][1] == "block 2 of 4"


@given(seed=st.integers(0, 2**31), n_folds=st.sampled_from([2, 3, 5, 7]))
def test_blocks_lie_behind_each_other_along_an_oblique_section(seed, n_folds):
    """A strip across the array: its blocks follow each other along the strip."""
    rng = np.random.default_rng(seed)
    grid = square(30, 30)
    strip = grid[np.abs(grid[:, 0] - grid[:, 1]) < 4]
    strip = strip[rng.permutation(len(strip))]
    folds = tissue_folds([strip], ["A"], kind="blocks", n_folds=n_folds)
    along = [strip[fold.test[0]].sum(axis=1) for fold in folds]
    if along[0].mean() > along[-1].mean():
        along.reverse()
    for before, after in pairwise(along):
        assert before.max() <= after.min() + 1


def test_blocks_do_not_depend_on_the_order_of_the_spots():
    rng = np.random.default_rng(0)
    grid = ragged(rng, square(12, 12))
    order = rng.permutation(len(grid))
    for n_folds in (3, 4):
        one = tissue_folds([grid], ["A"], kind="blocks", n_folds=n_folds)
        other = tissue_folds([grid[order]], ["A"], kind="blocks", n_folds=n_folds)
        for first, second in zip(one, other, strict=True):
            assert {*map(tuple, grid[first.test[0]].tolist())} == {
                *map(tuple, grid[order][second.test[0]].tolist())
            }


@given(
    patients=st.lists(st.sampled_from("ABCDE"), min_size=2, max_size=9),
    n_folds=st.integers(2, 5),
)
def test_sections_of_a_patient_are_on_one_side(patients, n_folds):
    n_patients = len(set(patients))
    grids = [square(2, 3 + number) for number in range(len(patients))]
    if n_patients < n_folds:
        with pytest.raises(UsageError, match="kind='blocks'"):
            tissue_folds(grids, patients, n_folds=n_folds)
        return
    folds = tissue_folds(grids, patients, n_folds=n_folds)
    assert len(folds) == n_folds
    for fold in folds:
        assert {*fold.train} | {*fold.test} == {*range(len(patients))}
        held_out = {patients[number] for number in fold.test}
        assert not held_out & {patients[number] for number in fold.train}
        for number, rows in [*fold.train.items(), *fold.test.items()]:
            np.testing.assert_array_equal(rows, np.arange(len(grids[number])))
    tested = sorted(number for fold in folds for number in fold.test)
    assert tested == list(range(len(patients)))


def test_each_patient_is_a_fold_and_groups_are_named_by_theirs():
    grids = [square(2, 2)] * 5
    patients = ["A", "A", "B", "C", "B"]
    names = [fold.name for fold in tissue_folds(grids, patients)]
    assert names == ["patient A", "patient B", "patient C"]
    names = [fold.name for fold in tissue_folds(grids, patients, n_folds=2)]
    assert names == ["patients A, B", "patient C"]


def test_a_random_fold_has_the_neighbours_of_its_spots_in_training():
    """What makes it a leak: nearly each spot has one it touches there."""
    grid = square(12, 12)
    touching = neighbours(grid[:, 0], grid[:, 1], "st").toarray() > 0
    folds = tissue_folds([grid], ["A"], kind="random", rng=3)
    for fold in folds:
        assert touching[np.ix_(fold.test[0], fold.train[0])].any(axis=1).all()
    again = tissue_folds([grid], ["A"], kind="random", rng=3)
    other = tissue_folds([grid], ["A"], kind="random", rng=4)
    np.testing.assert_array_equal(folds[0].test[0], again[0].test[0])
    assert not np.array_equal(folds[0].test[0], other[0].test[0])


def test_a_section_that_a_gap_swallows_is_absent_from_training():
    grids = [square(2, 2), square(8, 8)]
    fold = tissue_folds(grids, ["A", "B"], kind="blocks")[0]
    assert set(fold.train) == {1}
    assert set(fold.test) == {0, 1}


def test_arrays_of_two_kinds_are_purged_each_in_its_own_steps():
    grids = [square(8, 8), hexagonal(8, 8)]
    both = tissue_folds(
        grids, ["A", "B"], kind="blocks", grid_kind=["st", "visium"], margin=2
    )
    for number, kind in enumerate(["st", "visium"]):
        alone = tissue_folds(
            [grids[number]], ["A"], kind="blocks", grid_kind=kind, margin=2
        )
        for ours, own in zip(both, alone, strict=True):
            np.testing.assert_array_equal(ours.train[number], own.train[0])


def test_what_cannot_be_split_says_why():
    grid = square(4, 6)
    with pytest.raises(UsageError, match=r"at least 2, .* got 1 \(A\) .*kind='blocks'"):
        tissue_folds([grid, grid], ["A", "A"])
    with pytest.raises(UsageError, match=r"2 to the spots of the smallest .*\(24\)"):
        tissue_folds([grid], ["A"], kind="blocks", n_folds=25)
    with pytest.raises(UsageError, match=r"n_folds must be from 2 .* got 1"):
        tissue_folds([grid], ["A"], kind="random", n_folds=1)
    with pytest.raises(UsageError, match="Ask for a smaller margin"):
        tissue_folds([grid], ["A"], kind="blocks", margin=5)
    with pytest.raises(UsageError, match="0 steps or more, got -1"):
        tissue_folds([grid], ["A"], kind="blocks", margin=-1)
    with pytest.raises(UsageError, match="1 grids, 2 patients and 1 kinds"):
        tissue_folds([grid], ["A", "B"])
    with pytest.raises(UsageError, match="kind must be 'patients', 'blocks' or"):
        tissue_folds([grid], ["A"], kind="sections")


def test_a_grid_of_another_kind_is_noticed():
    with pytest.raises(UsageError, match="columns count by two, as those of Visium"):
        tissue_folds([hexagonal(6, 6)], ["A"], kind="blocks")
    with pytest.raises(UsageError, match=r"Is it a square array \('st'\)"):
        tissue_folds([square(6, 6)], ["A"], kind="blocks", grid_kind="visium")
    with pytest.raises(UsageError, match="must be 'st' or 'visium', got 'hex'"):
        tissue_folds([square(6, 6)], ["A"], kind="blocks", grid_kind="hex")
    with pytest.raises(UsageError, match="whole numbers, row and column"):
        tissue_folds([square(6, 6) + 0.5], ["A"], kind="blocks")

"""Folds of tissue: patients, or blocks of a section with a gap around them.

Sections of one patient are near copies of each other, and a spot resembles those that
touch it. Spots held out at random, or sections, let a model recognise the tissue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.core.spot_grid import GridKind, chip_positions
from neuromm.encoding.splitters import RunKFold

__all__ = ["TissueFold", "TissueFoldKind", "array_steps", "tissue_folds"]

TissueFoldKind = Literal["patients", "blocks", "random"]

_N_FOLDS = 4
# So many spots of a square array are never all on squares of one colour of a
# chessboard: those of Visium are.
_TELLING = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TissueFold:
    """Spots to train on and to test on.

    Attributes
    ----------
    name : str
        Such as "patient A", "block 2 of 4" or "random 1 of 4".
    train, test : mapping of int to int array
        Number of a section, in the order that they were given, to its rows in rising
        order; a section without rows is absent.
    """

    name: str
    train: Mapping[int, NDArray[np.intp]]
    test: Mapping[int, NDArray[np.intp]]


def tissue_folds(
    grids: Sequence[NDArray[np.integer]],
    patients: Sequence[str],
    *,
    kind: TissueFoldKind = "patients",
    n_folds: int | None = None,
    grid_kind: GridKind | Sequence[GridKind] = "st",
    margin: int = 1,
    rng: int = 0,
) -> list[TissueFold]:
    """Folds of spots, each spot tested once.

    Parameters
    ----------
    grids : sequence of int arrays of shape (n_spots, 2)
        One a section: row and column of each spot in the array.
    patients : sequence of str
        One a section.
    kind : {"patients", "blocks", "random"}
        "patients": whole patients are held out, the only folds that speak of new ones.
        "blocks": each section is cut by straight lines into blocks of equal numbers of
        spots, and a fold tests one block of each. Other sections of the patient show
        the same tissue: give one section a patient. "random": **a leak**, there to show
        its size: the neighbours of a spot are in the training set.
    n_folds : int, optional
        "patients": groups of patients, in order of appearance, one a patient if not
        given. Otherwise 4 if not given; 4 blocks are two by two, others lie along the
        longest axis of the section.
    grid_kind : {"st", "visium"} or a sequence of them, one a section
        Square array, or hexagonal with columns that count by two.
    margin : int
        With blocks: spots of a section within so many steps of a test spot are in no
        training set. A step goes to one of the 8 neighbours of a square array, to one
        of the 6 of a hexagonal one.
    rng : int
        Seed of "random".

    Returns
    -------
    folds : list of TissueFold

    Raises
    ------
    UsageError
        If there are too few patients or spots for the folds, a fold has no training
        spot left, or an argument is none of these.

    Examples
    --------
    >>> grid = np.argwhere(np.ones((4, 4)))
    >>> fold = tissue_folds([grid], ["A"], kind="blocks")[0]
    >>> fold.test[0], fold.train[0]  # the upper left corner, and all that is apart
    (array([0, 1, 4, 5]), array([ 3,  7, 11, 12, 13, 14, 15]))
    """
    places, kinds = _checked(grids, patients, grid_kind, margin)
    if kind == "patients":
        return list(_by_patient(places, list(patients), n_folds))
    wanted = _N_FOLDS if n_folds is None else n_folds
    smallest = min(len(place) for place in places)
    if not 2 <= wanted <= smallest:
        raise UsageError(
            f"n_folds must be from 2 to the spots of the smallest section ({smallest}),"
            f" got {wanted}"
        )
    if kind == "blocks":
        blocks = [
            _blocks(place, own, wanted)
            for place, own in zip(places, kinds, strict=True)
        ]
        steps = [array_steps(p, own) for p, own in zip(places, kinds, strict=True)]
        return list(_by_block(blocks, steps, margin))
    if kind == "random":
        drawn = np.random.default_rng(rng)
        parts = [
            np.array_split(drawn.permutation(len(place)), wanted) for place in places
        ]
        return list(_by_chance(parts))
    raise UsageError(f"kind must be 'patients', 'blocks' or 'random', got {kind!r}")


def array_steps(grid: ArrayLike, kind: GridKind) -> NDArray[np.float64]:
    """Coordinates whose largest difference is the number of steps between two spots.

    Parameters
    ----------
    grid : int array of shape (n_spots, 2)
        Row and column.
    kind : {"st", "visium"}

    Returns
    -------
    coordinates : array of shape (n_spots, 2), or (n_spots, 3) for "visium"
        The cube coordinates of a hexagonal array, which add up to 0.
    """
    row, column = np.asarray(grid, dtype=np.float64).T
    if kind == "st":
        return np.column_stack([row, column])
    return np.column_stack([row, (column - row) / 2, -(column + row) / 2])


def _by_patient(
    places: Sequence[NDArray[np.intp]], patients: Sequence[str], n_folds: int | None
) -> Iterator[TissueFold]:
    names = list(dict.fromkeys(patients))
    wanted = len(names) if n_folds is None else n_folds
    if not 2 <= wanted <= len(names):
        raise UsageError(
            f"folds of patients need at least 2, and one patient or more for each, got "
            f"{len(names)} ({', '.join(names)}) for {max(wanted, 2)} folds. Blocks of "
            "tissue (kind='blocks') do with one patient, and do not speak of others"
        )
    sections = np.arange(len(places))
    splitter = RunKFold(n_splits=wanted)
    for train, test in splitter.split(sections, groups=np.asarray(patients)):
        held_out = list(dict.fromkeys(patients[number] for number in test))
        label = "patient" if len(held_out) == 1 else "patients"
        yield TissueFold(
            name=f"{label} {', '.join(held_out)}",
            train={int(one): np.arange(len(places[one])) for one in train},
            test={int(one): np.arange(len(places[one])) for one in test},
        )


def _by_block(
    blocks: Sequence[Sequence[NDArray[np.intp]]],
    steps: Sequence[NDArray[np.float64]],
    margin: int,
) -> Iterator[TissueFold]:
    from scipy.spatial import KDTree

    n_folds = len(blocks[0])
    for number in range(n_folds):
        name = f"block {number + 1} of {n_folds}"
        train, test = {}, {}
        for section, (own, place) in enumerate(zip(blocks, steps, strict=True)):
            held_out = np.sort(own[number])
            apart, _ = KDTree(place[held_out]).query(place, p=np.inf)
            # Steps are whole numbers; test spots are none away from themselves.
            rest = np.flatnonzero(apart > margin + 0.5)
            test[section] = held_out
            if len(rest):
                train[section] = rest
        if not train:
            raise UsageError(
                f"{name}: all spots are within {margin} step(s) of a test spot. Ask "
                "for a smaller margin, or for other folds"
            )
        yield TissueFold(name=name, train=train, test=test)


def _by_chance(parts: Sequence[Sequence[NDArray[np.intp]]]) -> Iterator[TissueFold]:
    n_folds = len(parts[0])
    for number in range(n_folds):
        yield TissueFold(
            name=f"random {number + 1} of {n_folds}",
            train={
                section: np.sort(np.concatenate([*own[:number], *own[number + 1 :]]))
                for section, own in enumerate(parts)
            },
            test={section: np.sort(own[number]) for section, own in enumerate(parts)},
        )


def _blocks(
    grid: NDArray[np.intp], kind: GridKind, n_blocks: int
) -> list[NDArray[np.intp]]:
    """Rows of each block of a section."""
    if n_blocks == 4:
        halves = np.array_split(np.lexsort((grid[:, 1], grid[:, 0])), 2)
        return [
            half[part]
            for half in halves
            for part in np.array_split(np.lexsort(grid[half].T), 2)
        ]
    place = chip_positions(grid[:, 0], grid[:, 1], kind)
    centred = place - place.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    along = centred @ axes[:, -1]
    return np.array_split(np.lexsort((centred @ axes[:, 0], along)), n_blocks)


def _checked(
    grids: Sequence[NDArray[np.integer]],
    patients: Sequence[str],
    grid_kind: GridKind | Sequence[GridKind],
    margin: int,
) -> tuple[list[NDArray[np.intp]], list[GridKind]]:
    n_sections = len(grids)
    kinds = [grid_kind] * n_sections if isinstance(grid_kind, str) else [*grid_kind]
    if not n_sections or len(patients) != n_sections or len(kinds) != n_sections:
        raise UsageError(
            "needs a grid, a patient and a kind of array for each section, got "
            f"{n_sections} grids, {len(patients)} patients and {len(kinds)} kinds"
        )
    if margin < 0:
        raise UsageError(f"margin must be 0 steps or more, got {margin}")
    places = [np.asarray(grid) for grid in grids]
    for number, (place, kind) in enumerate(zip(places, kinds, strict=True)):
        _check_grid(place, kind, number)
    return [place.astype(np.intp) for place in places], kinds


def _check_grid(grid: NDArray[np.integer], kind: GridKind, number: int) -> None:
    is_pair = grid.ndim == 2 and grid.shape[1] == 2 and len(grid) > 0
    if not is_pair or not np.issubdtype(grid.dtype, np.integer):
        raise UsageError(
            f"grid of section {number}: expected whole numbers, row and column of each "
            f"spot, got {grid.dtype} of shape {grid.shape}"
        )
    if kind not in ("st", "visium"):
        raise UsageError(f"grid_kind must be 'st' or 'visium', got {kind!r}")
    counts_by_two = np.ptp(grid.sum(axis=1) % 2) == 0
    if kind == "visium" and not counts_by_two:
        raise UsageError(
            f"grid of section {number}: columns of Visium count by two, so that row "
            "and column add up to even numbers alone. Is it a square array ('st')?"
        )
    if kind == "st" and counts_by_two and len(grid) > _TELLING:
        raise UsageError(
            f"grid of section {number}: columns count by two, as those of Visium do: "
            "say grid_kind='visium'"
        )

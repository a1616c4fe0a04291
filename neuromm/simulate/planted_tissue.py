"""Sections of tissue whose genes follow the spot, its surroundings and the section.

The rate of gene g at spot i is

    log rate = base_g + local_i A_g + around_i B_g + state (switch_i C_g),

with ``local`` and ``switch`` of the spot alone, ``around`` the mean of a field over the
spot and what lies about it, and ``state`` one number a section. A spot's features carry
its local part, its switch, its own value of the field, and the state under much noise.
So a patch cannot know the field around it, which the 5 x 5 tiles show; and what a
switch does is known only where the state is, which takes the mean over many spots.

References
----------
None: shapes and sizes follow no tissue; they are made for tests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.core.spot_features import SpotFeatures

__all__ = ["PlantedSection", "make_tissue_sections"]

_REACH = 2  # spots around one that shape its field, and tiles to each side
_N_LOCAL, _N_FIELD = 4, 3
_HIGHEST = 8.0  # of a log rate: 3,000 counts


@dataclass(frozen=True, kw_only=True)
class PlantedSection:
    """One section and its truth.

    Attributes
    ----------
    patient : str
    features : SpotFeatures
        Of no encoder: the planted parts under a fixed random rotation.
    counts : int array of shape (n_spots, n_genes)
        Poisson.
    log_rate : array of shape (n_spots, n_genes)
        Natural logarithm of what counts scatter around.
    """

    patient: str
    features: SpotFeatures
    counts: NDArray[np.int64]
    log_rate: NDArray[np.float64]


def make_tissue_sections(
    n_patients: int = 10,
    *,
    side: int = 12,
    n_genes: int = 30,
    n_features: int = 32,
    state_noise: float = 6.0,
    rng: int | np.random.Generator = 0,
) -> tuple[PlantedSection, ...]:
    """Draw a section of each patient.

    Parameters
    ----------
    n_patients : int
    side : int
        Spots along a side of the square array.
    n_genes : int
    n_features : int
        At least 9.
    state_noise : float
        Standard deviation under which a spot shows the state of its section, which is
        -1 or 1.
    rng : int or Generator

    Returns
    -------
    sections : tuple of PlantedSection

    Raises
    ------
    UsageError
        If a number is too small.
    """
    n_parts = _N_LOCAL + _N_FIELD + 2
    if min(n_patients, n_genes) < 1 or side < 2 or n_features < n_parts:
        raise UsageError(
            f"needs a patient, a gene, a side of 2 and {n_parts} features, got "
            f"{n_patients}, {n_genes}, {side} and {n_features}"
        )
    generator = np.random.default_rng(rng)
    weights = {
        "local": 0.35 * generator.standard_normal((_N_LOCAL, n_genes)),
        "around": 0.55 * generator.standard_normal((_N_FIELD, n_genes)),
        "switch": 0.7 * generator.standard_normal(n_genes),
    }
    base = generator.uniform(1.0, 2.5, n_genes)
    mixing = np.linalg.qr(generator.standard_normal((n_features, n_features)))[0]
    return tuple(
        _section(number, side, base, weights, mixing[:n_parts], state_noise, generator)
        for number in range(n_patients)
    )


def _section(
    number: int,
    side: int,
    base: NDArray[np.float64],
    weights: dict[str, NDArray[np.float64]],
    mixing: NDArray[np.float64],
    state_noise: float,
    rng: np.random.Generator,
) -> PlantedSection:
    """Draw tissue that reaches beyond the array, so that no tile is empty."""
    wide = side + 2 * _REACH
    local = rng.standard_normal((wide, wide, _N_LOCAL))
    field = rng.standard_normal((wide, wide, _N_FIELD))
    switch = rng.standard_normal((wide, wide, 1))
    state = rng.choice([-1.0, 1.0])
    shown = state + state_noise * rng.standard_normal((wide, wide, 1))
    parts = np.concatenate([local, field, switch, shown / state_noise], axis=2)
    seen = parts @ mixing + 0.3 * rng.standard_normal((wide, wide, mixing.shape[1]))
    steps = range(2 * _REACH + 1)

    def about(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tiles around each spot, (side, side, n_tiles, n)."""
        cut = [values[r : r + side, c : c + side] for r in steps for c in steps]
        return np.stack(cut, axis=2)

    inner = slice(_REACH, _REACH + side)
    # A mean over 25 has a fifth of the spread of one.
    around = 5 * about(field).mean(axis=2)
    log_rate = (
        base
        + local[inner, inner] @ weights["local"]
        + around @ weights["around"]
        + state * switch[inner, inner] * weights["switch"]
    ).reshape(side * side, -1)
    log_rate = np.minimum(log_rate, _HIGHEST)
    counts = rng.poisson(np.exp(log_rate))
    rows, columns = (axis.ravel() for axis in np.mgrid[:side, :side])
    own = seen[inner, inner].reshape(side * side, -1).astype(np.float32)
    return PlantedSection(
        patient=f"P{number + 1:02d}",
        features=SpotFeatures(
            section=f"P{number + 1:02d}",
            spots=np.array([f"{r}x{c}" for r, c in zip(rows, columns, strict=True)]),
            target=own[:, None],
            neighbors=about(seen).reshape(side * side, -1, own.shape[1]).astype("f4"),
            neighbor_mask=np.ones((side * side, (2 * _REACH + 1) ** 2), dtype=bool),
            overview=own,
            grid=np.column_stack([rows, columns]),
            encoder="planted",
            is_stand_in=True,
        ),
        counts=counts,
        log_rate=log_rate,
    )

"""What a network saw of a section: vectors of each spot, of its surroundings, of all.

One type passes between those who make such vectors (`neuromm.features`), those who
plant them (`neuromm.simulate`) and the models that read them (`neuromm.models`).

References
----------
Song et al. (2026) Gene-DML: dual-pathway multi-level discrimination for gene expression
prediction from histopathology images. WACV; arXiv 2507.14670 (target, neighbour and
global scale).
Chung et al. (2024) Accurate spatial gene expression prediction by integrating
multi-resolution features. CVPR (TRIPLEX: the 5 x 5 tiles and their mask).
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core.errors import DataError, UsageError

__all__ = ["SpotFeatures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotFeatures:
    """Vectors of a frozen patch encoder over one section.

    Attributes
    ----------
    section : str
        Name of the section, for messages and tables.
    spots : array of shape (n_spots,), str
        Names of the spots, as `adata.obs_names`: counts are paired with features by
        them.
    target : float array of shape (n_spots, n_tokens, n_features)
        Tokens of the patch of each spot; one token where the encoder gives a vector.
    neighbors : float array of shape (n_spots, n_tiles, n_features)
        A vector of each tile of the square around the spot, row by row; the middle one
        is the spot itself.
    neighbor_mask : bool array of shape (n_spots, n_tiles)
        True where the tile lies on the slide.
    overview : float array of shape (n_spots, n_features)
        A vector of each spot, read by the encoder of the whole section.
    grid : int array of shape (n_spots, 2)
        Row and column of each spot in the array, no two alike.
    encoder : str
        Name of the patch encoder.
    is_stand_in : bool
        No trained network made the vectors: every table that is made from them says so.
    """

    section: str
    spots: NDArray[np.str_]
    target: NDArray[np.floating]
    neighbors: NDArray[np.floating]
    neighbor_mask: NDArray[np.bool_]
    overview: NDArray[np.floating]
    grid: NDArray[np.integer]
    encoder: str
    is_stand_in: bool

    def __post_init__(self) -> None:
        n_spots = len(self.spots)
        shapes = {
            "target": (self.target, 3),
            "neighbors": (self.neighbors, 3),
            "neighbor_mask": (self.neighbor_mask, 2),
            "overview": (self.overview, 2),
            "grid": (self.grid, 2),
        }
        for name, (values, n_dims) in shapes.items():
            if values.ndim != n_dims or len(values) != n_spots:
                raise DataError(
                    f"{self.section}: {name} must have {n_dims} axes and a row for "
                    f"each of {n_spots} spots, got the shape {values.shape}"
                )
        self._check_tiles()
        self._check_names()

    def _check_tiles(self) -> None:
        n_tiles = self.neighbors.shape[1]
        side = round(n_tiles**0.5)
        if side * side != n_tiles or side % 2 == 0:
            raise DataError(
                f"{self.section}: neighbors must hold the tiles of a square with a "
                f"middle (1, 9, 25, ...), got {n_tiles}"
            )
        if self.neighbor_mask.shape[1] != n_tiles:
            raise DataError(
                f"{self.section}: neighbor_mask must have a column for each of "
                f"{n_tiles} tiles, got {self.neighbor_mask.shape[1]}"
            )
        if not self.neighbor_mask[:, n_tiles // 2].all():
            raise DataError(
                f"{self.section}: neighbor_mask hides a spot's own tile: is a spot "
                "outside of the slide, or are the tiles not in order of rows?"
            )

    def _check_names(self) -> None:
        for name, rows in {"spots": self.spots[:, None], "grid": self.grid}.items():
            distinct: set[Hashable] = {tuple(row) for row in rows.tolist()}
            if len(distinct) != len(rows):
                what = "name" if name == "spots" else "place in the array (row, column)"
                raise DataError(f"{self.section}: two spots have the same {what}")

    @property
    def n_spots(self) -> int:
        """Spots of the section."""
        return len(self.spots)

    @property
    def n_features(self) -> int:
        """Length of the vectors of `overview`."""
        return int(self.overview.shape[1])

    def part(self, rows: ArrayLike) -> "SpotFeatures":
        """Some spots of the section, as a section of their own.

        Parameters
        ----------
        rows : int array of shape (n_chosen,), or bool array of shape (n_spots,)
            Which spots, in the order wanted, or a mark for each.

        Returns
        -------
        part : SpotFeatures
            Named as the section is. Tiles around the chosen spots stay, those over
            other spots too.

        Raises
        ------
        UsageError
            If ``rows`` are none of these.
        DataError
            If a spot is chosen twice.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool and chosen.shape == (self.n_spots,):
            chosen = np.flatnonzero(chosen)
        elif not chosen.size:
            chosen = np.empty(0, dtype=np.intp)
        is_index = chosen.ndim == 1 and np.issubdtype(chosen.dtype, np.integer)
        if not is_index or (
            chosen.size and not 0 <= chosen.min() <= chosen.max() < self.n_spots
        ):
            raise UsageError(
                f"{self.section}: rows must be numbers from 0 to {self.n_spots - 1}, "
                f"or True or False for each of {self.n_spots} spots, got "
                f"{chosen.dtype} of shape {chosen.shape}"
            )
        return replace(
            self,
            spots=self.spots[chosen],
            target=self.target[chosen],
            neighbors=self.neighbors[chosen],
            neighbor_mask=self.neighbor_mask[chosen],
            overview=self.overview[chosen],
            grid=self.grid[chosen],
        )

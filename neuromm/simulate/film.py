"""The film that the planted brains watch: clips, their features, their order."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Film", "make_film", "shown_clips"]


# Deviation of the products in the joint space, where that of vision and language is 1:
# a ridge with few samples finds what is large.
_PRODUCT_SIZE = 2.0


@dataclass(frozen=True)
class Film:
    """Clips and what two networks make of them.

    Attributes
    ----------
    clips : tuple of str
        Paths below ``stimuli/``, the values of ``stim_file``.
    features : mapping of str to array of shape (n_clips, n_features)
        Feature space to its values: independent standard normal ones of ``"vision"``
        and ``"language"`` and, where there are sites of integration, ``"joint"``.
    drivers : mapping of str to array of shape (n_clips, n_features)
        What targets answer to: ``"vision"``, ``"language"`` and, where there are sites
        of integration, ``"products"`` of one with the other.
    """

    clips: tuple[str, ...]
    features: Mapping[str, NDArray[np.floating]]
    drivers: Mapping[str, NDArray[np.floating]]

    @property
    def driving(self) -> NDArray[np.floating]:
        """All drivers side by side, (n_clips, n_drivers * n_features)."""
        return np.hstack(list(self.drivers.values()))

    def table(self, space: str) -> pd.DataFrame:
        """Feature table of a space: ``stim_file`` and a column a feature."""
        values = self.features[space]
        names = [f"{space}{i:02d}" for i in range(values.shape[1])]
        table = pd.DataFrame(values, columns=names)
        table.insert(0, "stim_file", list(self.clips))
        return table


def make_film(
    rng: np.random.Generator, n_clips: int, n_features: int, *, joint: bool = False
) -> Film:
    """Draw a film of ``n_clips`` clips with features for vision and language.

    Parameters
    ----------
    rng : Generator
    n_clips, n_features : int
    joint : bool
        Also products of features of both, and a space ``"joint"``: a rotation of
        vision, language and products, as a network trained on both may have.
    """
    # Six decimals, as written to the tables: the files are then the truth itself.
    features = {
        space: np.round(rng.standard_normal((n_clips, n_features)), 6)
        for space in ("vision", "language")
    }
    drivers = dict(features)
    if joint:
        pairs = rng.permutation(n_features), rng.permutation(n_features)
        products = features["vision"][:, pairs[0]] * features["language"][:, pairs[1]]
        drivers["products"] = products
        everything = np.hstack([*features.values(), _PRODUCT_SIZE * products])
        square = rng.standard_normal((everything.shape[1], everything.shape[1]))
        features["joint"] = np.round(everything @ np.linalg.qr(square)[0], 6)
    return Film(
        clips=tuple(f"film/clip-{i + 1:04d}.txt" for i in range(n_clips)),
        features=features,
        drivers=drivers,
    )


def shown_clips(
    rng: np.random.Generator, run: int, n_events: int, n_runs: int, n_clips: int
) -> NDArray[np.intp]:
    """Clips of a run in the order in which a subject sees them.

    Parameters
    ----------
    rng : Generator
        The order is the subject's own.
    run : int
        From 0. The clips of a run are the same for all subjects, and no clip is shown
        in two runs, so that held-out runs hold new clips.
    n_events : int
    n_runs, n_clips : int

    Returns
    -------
    clips : array of shape (n_events,)
    """
    part = n_clips // n_runs
    return run * part + rng.permutation(part)[:n_events]

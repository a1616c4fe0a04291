"""Miniatures of BOLD5000 and Pereira et al. (2018) with responses that are known.

Response of a voxel = features of the picture times its weights + noise of its own at
every presentation. Regions differ in how much of them is signal.

References
----------
Layouts: see `neuromm.io.bold5000` and `neuromm.io.pereira`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core.files import atomic_path, write_text

__all__ = ["ImageTruth", "make_bold5000", "make_pereira"]

Array = NDArray[np.floating]

# Standard deviation of the signal over that of the noise, by the region's name.
_SIGNAL = {"PPA": 1.0, "LOC": 0.7, "EarlyVis": 1.5, "OPA": 0.7, "RSC": 0.0}

# Share of the peak that a volume catches; TR34 is the mean of two.
VOLUME_GAINS: Mapping[str, float] = MappingProxyType(
    {"TR1": 0.0, "TR2": 0.3, "TR3": 1.0, "TR4": 0.8, "TR5": 0.4}
)
"""Share of the peak response in each volume of the simulated BOLD5000."""

_NETWORK_SIGNAL = {
    "languageLH": 1.0,
    "languageRH": 0.5,
    "visual_scene": 1.5,
    "visual": 1.0,
    "DMN": 0.0,
}
_REGION_VOXELS = 5


@dataclass(frozen=True, kw_only=True)
class ImageTruth:
    """Where the files lie, and what they must be found to hold.

    Attributes
    ----------
    root : Path
    subjects : tuple of str
    features : DataFrame
        A row a picture or concept (the index), standard normal columns.
    signals : dict of (str, str) to array of shape (n_features, n_voxels)
        Weights of each voxel, by subject and region: ``features @ weights`` is the
        noise-free response at its peak. Noise has the variance 1 at the peak.
    shown : dict of str to list of str
        By subject, the picture of each row of its matrices.
    """

    root: Path
    subjects: tuple[str, ...]
    features: pd.DataFrame
    signals: dict[tuple[str, str], Array]
    shown: dict[str, list[str]]

    def signal(self, subject: str, region: str) -> Array:
        """Noise-free response at its peak, a row a presentation."""
        rows = self.features.loc[self.shown[subject]].to_numpy(dtype=float)
        return rows @ self.signals[subject, region]


def make_bold5000(
    root: str | Path,
    *,
    subjects: Sequence[str] = ("CSI1", "CSI2"),
    n_pictures: int = 60,
    n_repeated: int = 8,
    n_presentations: int = 4,
    n_features: int = 4,
    n_voxels: int = 6,
    rng: int | np.random.Generator = 0,
) -> ImageTruth:
    """Write ``ROIs`` with a list of pictures and six files of volumes a subject.

    Parameters
    ----------
    root : path-like
        Folder that will hold ``ROIs``.
    subjects : sequence of str
    n_pictures : int
        Different pictures, a third each named like those of COCO, ImageNet and SUN.
    n_repeated, n_presentations : int
        How many of them are shown more than once, and how often.
    n_features, n_voxels : int
        ``n_voxels`` for each region, one more in each than in the last.
    rng : int or Generator

    Returns
    -------
    truth : ImageTruth
        Regions RSC hold noise alone. Volume k is `VOLUME_GAINS` times signal plus
        noise, the same noise in all volumes of a presentation but for its share.
    """
    generator = np.random.default_rng(rng)
    folder = Path(root) / "ROIs"
    names = [_picture(k) for k in range(n_pictures)]
    features = _features(generator, names, n_features)
    signals: dict[tuple[str, str], Array] = {}
    shown: dict[str, list[str]] = {}
    for subject in subjects:
        rows = [*names, *(names[:n_repeated] * (n_presentations - 1))]
        rows = [str(name) for name in generator.permutation(rows)]
        shown[subject] = rows
        repeated = set(names[:n_repeated])
        lines = [f"rep_{name}" if name in repeated else name for name in rows]
        number = int(subject.removeprefix("CSI"))
        write_text(
            folder / f"stim_lists/CSI{number:02d}_stim_lists.txt", "\n".join(lines)
        )
        peaks: dict[str, Array] = {}
        x = features.loc[rows].to_numpy(dtype=float)
        for k, (name, strength) in enumerate(_SIGNAL.items()):
            for side in ("LH", "RH"):
                weights = _weights(generator, n_features, n_voxels + k, strength)
                signals[subject, side + name] = weights
                noise = generator.standard_normal((len(rows), n_voxels + k))
                peaks[side + name] = x @ weights + noise
        _write_volumes(folder / subject / "mat", subject, peaks)
    return ImageTruth(
        root=Path(root),
        subjects=tuple(subjects),
        features=features,
        signals=signals,
        shown=shown,
    )


def make_pereira(
    root: str | Path,
    *,
    subjects: Sequence[str] = ("P01", "M01"),
    n_concepts: int = 40,
    n_features: int = 4,
    rng: int | np.random.Generator = 0,
) -> ImageTruth:
    """Write one ``data_180concepts_pictures.mat`` a subject.

    Parameters
    ----------
    root : path-like
    subjects : sequence of str
    n_concepts, n_features : int
    rng : int or Generator

    Returns
    -------
    truth : ImageTruth
        Five networks of two regions of five voxels. The regions of ``visual`` share
        two voxels; ``DMN`` holds noise alone. A third of the voxels is in no network.
    """
    generator = np.random.default_rng(rng)
    names = [f"concept{k:03d}" for k in range(n_concepts)]
    features = _features(generator, names, n_features)
    x = features.to_numpy(dtype=float)
    signals: dict[tuple[str, str], Array] = {}
    for subject in subjects:
        n_used = 2 * _REGION_VOXELS * len(_NETWORK_SIGNAL)
        examples = generator.standard_normal((n_concepts, n_used * 3 // 2))
        order = generator.permutation(examples.shape[1])[:n_used]
        columns: list[list[NDArray[np.intp]]] = []
        parts = np.split(order, len(_NETWORK_SIGNAL))
        for (network, strength), voxels in zip(
            _NETWORK_SIGNAL.items(), parts, strict=True
        ):
            weights = _weights(generator, n_features, len(voxels), strength)
            examples[:, voxels] += x @ weights
            signals[subject, network] = weights
            halves = np.split(voxels, 2)
            if network == "visual":
                halves[1] = np.concatenate([halves[0][-2:], halves[1]])
            columns.append([half + 1 for half in halves])
        _write_concepts(Path(root) / subject, generator, names, examples, columns)
    return ImageTruth(
        root=Path(root),
        subjects=tuple(subjects),
        features=features,
        signals=signals,
        shown=dict.fromkeys(subjects, names),
    )


def _picture(k: int) -> str:
    return (
        f"COCO_train2014_{k:012d}.jpg",
        f"n{k:08d}_{k}.JPEG",
        f"airport{k}.jpg",
    )[k % 3]


def _features(
    rng: np.random.Generator, names: Sequence[str], n_features: int
) -> pd.DataFrame:
    columns = [f"feature{k}" for k in range(n_features)]
    values = rng.standard_normal((len(names), n_features))
    return pd.DataFrame(values, index=list(names), columns=columns)


def _weights(
    rng: np.random.Generator, n_features: int, n_voxels: int, strength: float
) -> Array:
    """Weights of length ``strength``, so that the signal has that deviation."""
    weights = rng.standard_normal((n_features, n_voxels))
    scaled: Array = strength * weights / np.linalg.norm(weights, axis=0)
    return scaled


def _write_volumes(folder: Path, subject: str, peaks: Mapping[str, Array]) -> None:
    gains = dict(VOLUME_GAINS)
    gains["TR34"] = (gains["TR3"] + gains["TR4"]) / 2
    for volume, gain in gains.items():
        matrices = {roi: gain * peak for roi, peak in peaks.items()}
        _save(folder / f"{subject}_ROIs_{volume}.mat", matrices)


def _write_concepts(
    folder: Path,
    rng: np.random.Generator,
    names: Sequence[str],
    examples: Array,
    columns: Sequence[Sequence[NDArray[np.intp]]],
) -> None:
    networks = list(_NETWORK_SIGNAL)
    places = np.arange(examples.shape[1])
    meta = {
        "dimensions": np.array([[9, 9, 9]]),
        "colToCoord": np.stack([places % 9, places // 9 % 9, places // 81], axis=1) + 1,
        "atlases": _cells(networks)[None],
        "rois": _cells([_cells([f"{n}_a", f"{n}_b"])[:, None] for n in networks])[None],
        "roiColumns": _cells(
            [_cells([part[:, None] for part in two])[:, None] for two in columns]
        )[None],
    }
    variables = {
        "examples": examples,
        "keyConcept": _cells(names)[:, None],
        "labelsConcept": np.arange(1, len(names) + 1)[:, None],
        "labelsConcreteness": rng.uniform(1, 5, (len(names), 1)),
        "meta": meta,
    }
    _save(folder / "data_180concepts_pictures.mat", variables)


def _cells(values: Sequence[Any]) -> NDArray[np.object_]:
    """A cell array of one dimension, whatever its elements are."""
    cells = np.empty(len(values), dtype=object)
    for k, value in enumerate(values):
        cells[k] = value
    return cells


def _save(path: Path, variables: Mapping[str, Any]) -> None:
    from scipy.io import savemat

    with atomic_path(path) as temporary:
        savemat(temporary, dict(variables), do_compression=True)

"""Stained sections on disk: pictures whose colour and density tell what genes do.

Every spot has two planted numbers. Its **density** is that of dark nuclei in its
picture, its **stroma** the share of pink between them; both are smooth in space, so
that neighbours resemble each other as in tissue. The rate of gene g is

    log rate = base_g + density_i A_g + stroma_i B_g + around_i C_g,

``around`` the mean of density over the spots about it.

References
----------
None: shapes and sizes follow no tissue; they are made for tests and to try commands.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.core.files import atomic_path, write_json

__all__ = ["TissueSlide", "make_tissue_slides"]

_PITCH_PX, _MARGIN_PX = 100, 100  # at 2 um a pixel: spots 200 um apart, as on ST
_UM_A_PIXEL = 2.0
_NUCLEUS = (90.0, 60.0, 140.0)
_PINK, _PALE = (225.0, 150.0, 185.0), (245.0, 225.0, 235.0)
_HIGHEST = 7.0  # of a log rate: 1,100 counts


@dataclass(frozen=True, kw_only=True, eq=False)
class TissueSlide:
    """One section and its truth.

    Attributes
    ----------
    name, patient : str
    density, stroma : arrays of shape (n_spots,)
        Mean 0, standard deviation about 1.
    log_rate : array of shape (n_spots, n_genes)
        Natural logarithm of what counts scatter around.
    """

    name: str
    patient: str
    density: NDArray[np.float64]
    stroma: NDArray[np.float64]
    log_rate: NDArray[np.float64]


def make_tissue_slides(
    n_patients: int = 4,
    *,
    folder: str | Path,
    sections_per_patient: int = 1,
    side: int = 10,
    n_genes: int = 40,
    rng: int | np.random.Generator = 0,
) -> tuple[TissueSlide, ...]:
    """Write sections with pictures and counts, as ``neuromm express`` reads them.

    Parameters
    ----------
    n_patients : int
    folder : path-like
        Made if it is not there: ``sections.tsv``, ``spots/NAME.h5ad``,
        ``slides/NAME.png`` with its ``.json``, and ``dataset_description.json``, which
        says that all of it is simulated.
    sections_per_patient : int
        Sections of one patient share the gains of stain, not their places.
    side : int
        Spots along a side of the square array.
    n_genes : int
        Called ``GENE01`` and so on; the last fifth follows nothing.
    rng : int or Generator

    Returns
    -------
    sections : tuple of TissueSlide

    Raises
    ------
    UsageError
        If a number is too small.
    """
    if min(n_patients, sections_per_patient) < 1 or side < 4 or n_genes < 5:
        raise UsageError(
            f"needs a patient, a section of each, a side of 4 and 5 genes, got "
            f"{n_patients}, {sections_per_patient}, {side} and {n_genes}"
        )
    folder, generator = Path(folder), np.random.default_rng(rng)
    weights = generator.choice([-1.0, 1.0], (3, n_genes)) * generator.uniform(
        0.2, 0.6, (3, n_genes)
    )
    weights[:, n_genes - n_genes // 5 :] = 0.0
    base = generator.uniform(1.0, 3.0, n_genes)
    made, rows = [], []
    for patient in range(n_patients):
        gain = generator.uniform(0.92, 1.08, 3)
        for section in range(sections_per_patient):
            name = f"P{patient + 1:02d}" + ("" if sections_per_patient == 1 else
                                            f"_{section + 1}")  # fmt: skip
            one = _section(name, f"P{patient + 1:02d}", side, base, weights, generator)
            _write_picture(
                folder / "slides" / f"{name}.png", one, side, gain, generator
            )
            _write_counts(folder / "spots" / f"{name}.h5ad", one, side, generator)
            made.append(one)
            rows.append(
                {
                    "section": name,
                    "spots": f"spots/{name}.h5ad",
                    "slide": f"slides/{name}.png",
                    "patient": one.patient,
                }
            )
    write_json(
        folder / "dataset_description.json",
        {"Name": "Simulated stained sections (neuromm.simulate.make_tissue_slides)"},
    )
    with atomic_path(folder / "sections.tsv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, sep="\t", index=False)
    return tuple(made)


def _section(
    name: str,
    patient: str,
    side: int,
    base: NDArray[np.float64],
    weights: NDArray[np.float64],
    rng: np.random.Generator,
) -> TissueSlide:
    density, stroma = (_smooth_field(side, rng) for _ in range(2))
    around = _mean_around(density)
    parts = np.stack([density.ravel(), stroma.ravel(), around.ravel()], axis=1)
    return TissueSlide(
        name=name,
        patient=patient,
        density=density.ravel(),
        stroma=stroma.ravel(),
        log_rate=np.minimum(base + parts @ weights, _HIGHEST),
    )


def _smooth_field(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    from scipy import ndimage

    noise = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.0, mode="wrap")
    field: NDArray[np.float64] = (noise - noise.mean()) / noise.std()
    return field


def _mean_around(field: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the spots about each, eight or fewer, brought to a spread of 1."""
    from scipy import ndimage

    block = np.ones((3, 3))
    block[1, 1] = 0
    total = ndimage.convolve(field, block, mode="constant")
    mean = total / ndimage.convolve(np.ones_like(field), block, mode="constant")
    around: NDArray[np.float64] = (mean - mean.mean()) / mean.std()
    return around


def _write_picture(
    path: Path,
    one: TissueSlide,
    side: int,
    gain: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Nuclei as dots on pink, by what is planted at the nearest spot."""
    from PIL import Image
    from scipy import ndimage

    n_px = 2 * _MARGIN_PX + side * _PITCH_PX
    centres = _MARGIN_PX + (np.arange(side) + 0.5) * _PITCH_PX
    at = np.clip(
        np.searchsorted(centres - _PITCH_PX / 2, np.arange(n_px)) - 1, 0, side - 1
    )
    density = one.density.reshape(side, side)[np.ix_(at, at)]
    stroma = one.stroma.reshape(side, side)[np.ix_(at, at)]
    share = 1 / (1 + np.exp(-stroma))[..., None]
    picture = share * np.array(_PINK) + (1 - share) * np.array(_PALE)
    seeds = rng.random((n_px, n_px)) < 0.004 * np.exp(0.7 * density)
    nuclei = ndimage.binary_dilation(seeds, iterations=2)
    picture[nuclei] = _NUCLEUS
    picture = picture * gain + rng.normal(0, 4, picture.shape)
    outside = np.ones((n_px, n_px), dtype=bool)
    inner = slice(_MARGIN_PX // 2, n_px - _MARGIN_PX // 2)
    outside[inner, inner] = False
    picture[outside] = 255
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    write_json(
        path.with_suffix(".json"),
        {
            "PixelSize": [_UM_A_PIXEL, _UM_A_PIXEL],
            "PixelSizeUnits": "um",
            "SampleStaining": "simulated",
        },
    )


def _write_counts(
    path: Path, one: TissueSlide, side: int, rng: np.random.Generator
) -> None:
    import warnings

    import anndata
    from scipy.sparse import csr_matrix

    rows, columns = (axis.ravel() for axis in np.mgrid[:side, :side])
    counts = rng.poisson(np.exp(one.log_rate)).astype(np.float32)
    adata: Any = anndata.AnnData(
        csr_matrix(counts),
        obs=pd.DataFrame(
            {"array_row": rows, "array_col": columns, "in_tissue": 1},
            index=[f"{c}x{r}" for r, c in zip(rows, columns, strict=True)],
        ),
        var=pd.DataFrame(
            index=[f"GENE{number + 1:02d}" for number in range(counts.shape[1])]
        ),
    )
    places = np.column_stack([columns, rows]) + 0.5
    adata.obsm["spatial"] = _MARGIN_PX + places * _PITCH_PX
    adata.uns["spatial"] = {
        one.name: {
            "images": {},
            "scalefactors": {
                "microns_per_pixel": _UM_A_PIXEL,
                "spot_diameter_fullres": 100.0 / _UM_A_PIXEL,
            },
            "metadata": {},
        }
    }
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(temporary)

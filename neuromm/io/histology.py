"""Histology: pictures of stained tissue, from whole slides to single tiles.

The size of a pixel must be known, in micrometres: whole-slide formats state it, a
``.json`` beside a picture may (``PixelSize``, ``PixelSizeUnits``, as in BIDS
microscopy), or it is given.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import DataError, Sample
from neuromm.core.files import atomic_path, read_json, write_json
from neuromm.io.bids_name import parse_name
from neuromm.io.content import require_content
from neuromm.io.reader import Reader
from neuromm.io.slides import PICTURES, WHOLE_SLIDES, open_slide

__all__ = ["READER", "load", "write_example"]

_TO_UM = {"nm": 0.001, "um": 1.0, "µm": 1.0, "mm": 1000.0}


def load(
    path: str | Path,
    *,
    entities: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
    microns_per_pixel: float | None = None,
    scale: float = 1.0,
) -> Sample:
    """Open a picture of tissue.

    Parameters
    ----------
    path : path-like
        A whole slide (``.svs``, ``.ndpi``, …; extra ``wsi``), TIFF, PNG or JPEG.
    entities, metadata, companions : mapping, optional
        As in `neuromm.core.Sample`; those of the file name and of the ``.json`` beside
        it if not given.
    microns_per_pixel : float, optional
        Size of a pixel of the full-resolution picture, instead of what is stated.
    scale : float
        Size of the picture in that of the full-resolution one, see
        `neuromm.io.slides.open_slide`.

    Returns
    -------
    sample : Sample
        ``data`` is a `neuromm.io.slides.Slide`: nothing but its header has been read.

    Raises
    ------
    InputMissingError
        If there is no such file.
    UsageError
        If the size of a pixel is not known.
    DataError
        If the file is damaged, or states an impossible size of a pixel.
    """
    path = require_content(path)
    sidecar = path.with_name(path.name.partition(".")[0] + ".json")
    found: Mapping[str, Any] = read_json(sidecar) if sidecar.exists() else {}
    found = found if metadata is None else metadata
    size = microns_per_pixel if microns_per_pixel is not None else _stated(found, path)
    return Sample(
        data=open_slide(path, microns_per_pixel=size, scale=scale),
        modality="histology",
        entities=_name_entities(path) if entities is None else entities,
        source=path,
        metadata=found,
        companions=companions or {},
    )


def write_example(folder: str | Path, *, rng: int | np.random.Generator = 0) -> Path:
    """Write a small picture of noise in the colours of haematoxylin and eosin.

    Parameters
    ----------
    folder : path-like
        Root of a BIDS data set; made if it is not there.
    rng : int or Generator
        Seed of the noise.

    Returns
    -------
    path : Path
        A ``.png``; its sidecar lies beside it.
    """
    from PIL import Image

    generator = np.random.default_rng(rng)
    place = Path(folder) / "sub-01" / "micr"
    share = generator.random((48, 64, 1))
    pixels = share * np.array([110, 70, 150]) + (1 - share) * np.array([235, 170, 200])
    path = place / "sub-01_sample-A_stain-HE_BF.png"
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.astype(np.uint8)).save(temporary)
    write_json(
        path.with_suffix(".json"),
        {"PixelSize": [0.5, 0.5], "PixelSizeUnits": "um", "SampleStaining": "H&E"},
    )
    return path


def _name_entities(path: Path) -> Mapping[str, str]:
    name = parse_name(path.name)
    return {} if name is None else name.entities


def _stated(metadata: Mapping[str, Any], path: Path) -> float | None:
    """Micrometres a pixel by a sidecar of BIDS microscopy."""
    if "PixelSize" not in metadata:
        return None
    unit = metadata.get("PixelSizeUnits")
    if unit not in _TO_UM:
        raise DataError(
            f"its sidecar gives PixelSize in {unit!r}: PixelSizeUnits must be one of "
            f"{', '.join(_TO_UM)}",
            path,
        )
    try:
        sizes = np.asarray(metadata["PixelSize"], dtype=np.float64).ravel()
    except (TypeError, ValueError):
        sizes = np.array([np.nan])
    if (
        not np.isfinite(sizes).all()
        or len(sizes) < 1
        or np.ptp(sizes[:2]) > 0.01 * (sizes[0])
    ):
        raise DataError(
            f"its sidecar gives the PixelSize {metadata['PixelSize']}, expected one "
            "size for x and y",
            path,
        )
    return float(sizes[0]) * _TO_UM[unit]


READER = Reader(
    name="histology",
    extensions=(*WHOLE_SLIDES, *PICTURES),
    datatype="micr",
    suffixes=("BF",),
    description="stained tissue: whole slides, TIFF, PNG and JPEG",
    load=load,
    write_example=write_example,
)

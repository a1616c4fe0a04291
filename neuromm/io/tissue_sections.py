"""Sections of a study of tissue: which spots, picture and patient belong together.

A table says it (``sections.tsv``), or the layout does: HEST-1k (``st/``, ``patches/``,
``wsis/``), folders of first-generation arrays (``counts/`` or ``ST-cnts/``), or one
section by itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core import DataError, InputMissingError, Sample, UsageError
from neuromm.core.files import read_json
from neuromm.core.spot_grid import GridKind, microns_per_pixel
from neuromm.io import histology, spatial, spatial_st, spatial_visium
from neuromm.io.slides import PICTURES, WHOLE_SLIDES, Slide

__all__ = ["COLUMNS", "TissueSection", "grid_kind", "open_sections"]

COLUMNS = (
    "section", "spots", "slide", "patient", "microns_per_pixel", "scale", "features",
)  # fmt: skip
"""Of a table of sections; ``section`` and one of spots and slide are needed."""

_COUNT_FOLDERS = ("counts", "ST-cnts")
# HER2ST names sections A1 … H3 and cSCC P2_ST_rep1: what comes first is the patient.
_PATIENT = re.compile(r"^(?:([A-Z])\d$|([A-Za-z]+\d+)_)")
# A slide and its spots may differ by this factor in what a pixel measures.
_DISAGREES = 1.1


@dataclass(frozen=True, kw_only=True)
class TissueSection:
    """One section of tissue: where its parts lie.

    Attributes
    ----------
    name : str
    patient : str
        The section's own name where ``knows_patient`` is False.
    knows_patient : bool
    spots : Path or None
        What `neuromm.io.spatial.load` takes; None for a slide without spots.
    slide : Path or None
    patches : Path or None
        Pictures of spots, as HEST-1k keeps them.
    features : Path or None
        Vectors of spots that somebody has computed.
    microns_per_pixel : float or None
        Of the full-resolution picture, where files do not state it.
    scale : float or None
        Size of the slide in that of the full-resolution picture.
    """

    name: str
    patient: str
    knows_patient: bool = True
    spots: Path | None = None
    slide: Path | None = None
    patches: Path | None = None
    features: Path | None = None
    microns_per_pixel: float | None = None
    scale: float | None = None

    def load(self) -> Sample:
        """Read the spots: `neuromm.io.spatial.load`.

        Raises
        ------
        InputMissingError
            If the section is a slide alone.
        """
        if self.spots is None:
            raise InputMissingError(f"{self.name}: has a slide and no spots")
        return spatial.load(self.spots, microns_per_pixel=self.microns_per_pixel)

    def open_slide(self, adata: Any = None) -> Slide:
        """Open the picture.

        Parameters
        ----------
        adata : anndata.AnnData, optional
            Spots of the section, which know the size of a pixel where the picture does
            not.

        Raises
        ------
        InputMissingError
            If there is no picture.
        DataError
            If picture and spots contradict each other by a tenth in what a pixel
            measures.
        """
        if self.slide is None:
            raise InputMissingError(
                f"{self.name}: has no picture. Name it in the column slide of a table "
                "of sections, or with --slide"
            )
        scale = 1.0 if self.scale is None else self.scale
        try:
            slide: Slide = histology.load(
                self.slide, microns_per_pixel=self.microns_per_pixel, scale=scale
            ).data
        except UsageError:
            if adata is None:
                raise
            size = microns_per_pixel(adata)
            return histology.load(  # type: ignore[no-any-return]
                self.slide, microns_per_pixel=size, scale=scale
            ).data
        if adata is not None:
            ratio = slide.microns_per_pixel / microns_per_pixel(adata)
            if not 1 / _DISAGREES < ratio < _DISAGREES:
                raise DataError(
                    f"its pixels measure {slide.microns_per_pixel:.4g} um, and those "
                    f"in which the spots of {self.name} have their places "
                    f"{microns_per_pixel(adata):.4g} um. If the picture was made "
                    f"smaller, state scale={1 / ratio:.4g}",
                    self.slide,
                )
        return slide

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Spots, picture and vectors that there are; folders stand for their files."""
        found: list[Path] = []
        for part in (self.spots, self.slide, self.patches, self.features):
            if part is not None and part.is_dir():
                found += sorted(path for path in part.rglob("*") if path.is_file())
            elif part is not None:
                found.append(part)
        return tuple(found)


def open_sections(
    root: str | Path,
    *,
    slide: Path | None = None,
    microns_per_pixel: float | None = None,
    scale: float | None = None,
    names: Sequence[str] | None = None,
) -> list[TissueSection]:
    """Find the sections of a study; nothing but tables is read.

    Parameters
    ----------
    root : path-like
        A table ``.tsv`` with the columns of `COLUMNS`, paths relative to it; a folder
        with ``sections.tsv``, of HEST-1k, or of first-generation arrays; the spots of
        one section (Visium folder, ``.h5ad``, count table); or a slide.
    slide : Path, optional
        Picture of the one section that ``root`` is.
    microns_per_pixel, scale : float, optional
        See `TissueSection`; for all sections whose table says nothing.
    names : sequence of str, optional
        Sections to keep, in their own order.

    Returns
    -------
    sections : list of TissueSection
        By name.

    Raises
    ------
    InputMissingError
        If there is nothing, or a file that a table names is not there.
    DataError
        If a table is damaged.
    UsageError
        If ``names`` has others, or ``slide`` is given for several sections.
    """
    root = Path(root)
    if not root.exists():
        raise InputMissingError(f"{root}: no such file or folder")
    found = _found(root)
    if slide is not None:
        if len(found) > 1:
            raise UsageError(
                f"one slide was given for {len(found)} sections. Name the slide of "
                "each in a table with the columns section, spots, slide"
            )
        if not slide.is_file():
            raise InputMissingError(f"{slide}: no such file")
        # Whatever scale was found belongs to another picture.
        found = [replace(found[0], slide=slide, scale=None)]
    found = [
        replace(
            section,
            microns_per_pixel=section.microns_per_pixel or microns_per_pixel,
            scale=scale if scale is not None and section.slide else section.scale,
        )
        for section in sorted(found, key=lambda one: one.name)
    ]
    if names is None:
        return found
    lacking = sorted(set(names) - {section.name for section in found})
    if lacking:
        raise UsageError(
            f"{root}: has no section {', '.join(lacking)} (found: "
            f"{', '.join(section.name for section in found)})"
        )
    return [section for section in found if section.name in set(names)]


def _found(root: Path) -> list[TissueSection]:
    if root.is_file() and root.suffix == ".tsv" and not spatial_st.is_count_table(root):
        return _of_table(root)
    if (root / "sections.tsv").is_file():
        return _of_table(root / "sections.tsv")
    if root.is_file() and root.name.lower().endswith((*WHOLE_SLIDES, *PICTURES)):
        return [_single(root.name.partition(".")[0], slide=root)]
    if root.is_file() or spatial_visium.is_visium_folder(root):
        return [_of_spots(root)]
    if any((root / "st").glob("*.h5ad")):
        return [_of_hest(path) for path in sorted((root / "st").glob("*.h5ad"))]
    for folder in _COUNT_FOLDERS:
        tables = sorted((root / folder).glob("*.tsv*"))
        tables = [path for path in tables if spatial_st.is_count_table(path)]
        if tables:
            return [_of_counts(path) for path in tables]
    raise InputMissingError(
        f"{root}: no sections of tissue were found. Expected sections.tsv with the "
        "columns section, spots, slide, patient; st/NAME.h5ad (HEST-1k); "
        "counts/NAME.tsv.gz or ST-cnts/ (first-generation arrays); or the spots of one "
        "section: a Visium folder, .h5ad, count table"
    )


def _of_spots(path: Path) -> TissueSection:
    if path.is_dir():
        return _of_visium(path)
    if path.name.lower().endswith(".h5ad"):
        return _of_hest(path)
    return _of_counts(path)


def _of_visium(path: Path) -> TissueSection:
    """With the picture that Space Ranger keeps, where there is no other."""
    scales = read_json(path / "spatial" / "scalefactors_json.json")
    for name in ("hires", "lowres"):
        picture = path / "spatial" / f"tissue_{name}_image.png"
        scale = scales.get(f"tissue_{name}_scalef")
        if picture.is_file() and isinstance(scale, int | float):
            return _single(path.name, spots=path, slide=picture, scale=float(scale))
    return _single(path.name, spots=path)


def _of_hest(path: Path) -> TissueSection:
    beside, stated = spatial.hest_companions(path)
    patient = stated.get("patient")
    section = _single(
        path.stem,
        spots=path,
        slide=beside.get("slide"),
        patches=beside.get("patches"),
    )
    if not patient:
        return section
    # Studies number their patients alike: names of two studies must not meet.
    study = str(stated.get("dataset_title") or "")
    return replace(section, patient=f"{study} {patient}".strip(), knows_patient=True)


def _of_counts(path: Path) -> TissueSection:
    beside = spatial_st.find_companions(path)
    section = _single(
        path.name.partition(".")[0], spots=path, slide=beside.get("slide")
    )
    told = _PATIENT.match(section.name)
    if told is None:
        return section
    return replace(section, patient=told[1] or told[2], knows_patient=True)


def _single(name: str, **parts: Any) -> TissueSection:
    return TissueSection(name=name, patient=name, knows_patient=False, **parts)


def _of_table(path: Path) -> list[TissueSection]:
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"is no table of sections ({error})", path) from error
    if "section" not in table or not {"spots", "slide"} & set(table):
        raise DataError(
            f"expected the columns section, and spots or slide, got "
            f"{', '.join(map(str, table)) or 'none'}",
            path,
        )
    unknown = [name for name in map(str, table) if name not in COLUMNS]
    if unknown:
        raise DataError(
            f"has the columns {', '.join(unknown)}, expected some of "
            f"{', '.join(COLUMNS)}",
            path,
        )
    table = table.replace("n/a", "")
    if not len(table) or table["section"].duplicated().any():
        raise DataError("must name sections, each once", path)
    rows = table.to_dict("records")
    return [_of_row({str(name): row[name] for name in row}, path) for row in rows]


def _of_row(row: dict[str, str], path: Path) -> TissueSection:
    name = row["section"]
    if not re.fullmatch(r"[\w.-]+", name):
        raise DataError(
            f"the section {name!r} is named with more than letters, digits, _ - and .: "
            "files are named after it",
            path,
        )
    parts = {
        role: path.parent / row[role]
        for role in ("spots", "slide", "features")
        if row.get(role)
    }
    for role, place in parts.items():
        if not place.exists():
            raise InputMissingError(f"{path}: {role} of {name}: no such file: {place}")
    if not {"spots", "slide"} & set(parts):
        raise DataError(f"{name} has neither spots nor a slide", path)
    section = _single(name, spots=parts.get("spots"))
    if section.spots is not None:
        section = replace(_of_spots(section.spots), name=name)
    if "slide" in parts:
        section = replace(section, slide=parts["slide"], scale=None)
    patient = row.get("patient") or ""
    return replace(
        section,
        patient=patient or (section.patient if section.knows_patient else name),
        knows_patient=bool(patient) or section.knows_patient,
        features=parts.get("features"),
        microns_per_pixel=_number(row, "microns_per_pixel", path),
        scale=_number(row, "scale", path) or section.scale,
    )


def _number(row: dict[str, str], column: str, path: Path) -> float | None:
    text = row.get(column) or ""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise DataError(
            f"{column} of {row['section']} must be a number above 0, got {text!r}", path
        )
    return value


def grid_kind(adata: Any) -> GridKind:
    """Whether spots lie on a hexagonal array (``visium``) or a square one (``st``).

    Parameters
    ----------
    adata : anndata.AnnData
        With ``array_row`` and ``array_col``.
    """
    return "visium" if spatial.is_hexagonal(adata.obs) else "st"

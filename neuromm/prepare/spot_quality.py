"""Spots against their picture: shifts, swaps, wrong scales; sections that repeat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core.spot_grid import (
    GridKind,
    chip_positions,
    fitted_grid,
    microns_per_pixel,
)
from neuromm.prepare.tissue import TissueMask

__all__ = ["SpotFinding", "check_spots", "doubled_sections"]

# Spots that are not over tissue, of those said to be: more is a finding.
_OFF_TISSUE = 0.2
# A shift is looked for up to this many pitches, in steps of half of one.
_FARTHEST, _STEPS_A_PITCH = 4, 2
# It must put this share more of the array right, and be as long as this in pitches.
_CLEARLY_BETTER, _SHORTEST = 0.03, 1.0
_WRONG_SCALE = 0.1
_SAME = 0.999


@dataclass(frozen=True)
class SpotFinding:
    """Something about spots that a user should look at.

    Attributes
    ----------
    kind : str
        ``off_tissue``, ``shifted``, ``mirrored``, ``wrong_scale`` or ``doubled``.
    value : float
        Share of spots, micrometres, or ratio of scales.
    message : str
        What was found, and what to look at.
    """

    kind: str
    value: float
    message: str


def check_spots(adata: Any, tissue: TissueMask, kind: GridKind) -> list[SpotFinding]:
    """Compare the spots of a section with its picture.

    Parameters
    ----------
    adata : anndata.AnnData
        As `neuromm.io.spatial.load` gives it: ``array_row``, ``array_col``, places. Its
        spots are those under tissue, or ``in_tissue`` says which are.
    tissue : TissueMask
        Of the picture.
    kind : {"visium", "st"}

    Returns
    -------
    findings : list of SpotFinding
        Empty if nothing is amiss.
    """
    obs, places = adata.obs, np.asarray(adata.obsm["spatial"], dtype=np.float64)
    row, col = obs["array_row"].to_numpy(), obs["array_col"].to_numpy()
    findings = []
    fit = fitted_grid(row, col, places, kind)
    stated = microns_per_pixel(adata)
    ratio = stated / fit.microns_per_pixel
    if abs(np.log(ratio)) > _WRONG_SCALE:
        findings.append(
            SpotFinding(
                "wrong_scale",
                ratio,
                f"a pixel is said to measure {stated:.4g} um, and by the pitch of the "
                f"array it measures {fit.microns_per_pixel:.4g} um",
            )
        )
    if fit.is_mirrored:
        findings.append(
            SpotFinding(
                "mirrored",
                1.0,
                "the spots are a mirror image of their array: x and y are swapped, or "
                "the picture was flipped",
            )
        )
    used = np.ones(len(obs), dtype=bool)
    if "in_tissue" in obs:
        used = obs["in_tissue"].to_numpy().astype(bool)
    on_tissue = tissue.holds(places)
    off = 1 - float(on_tissue[used].mean())
    if off > _OFF_TISSUE:
        findings.append(
            SpotFinding(
                "off_tissue",
                off,
                f"{off:.0%} of the spots do not lie on tissue. Does the picture belong "
                "to this section, and is its scale right?",
            )
        )
    shift = _best_shift(row, col, places, used, tissue, kind, fit.microns_per_pixel)
    if shift is not None:
        length = float(np.hypot(*shift)) * fit.microns_per_pixel
        findings.append(
            SpotFinding(
                "shifted",
                length,
                f"the spots fit the tissue better {length:.0f} um away (x "
                f"{shift[0]:+.0f}, y {shift[1]:+.0f} pixels): is the picture shifted "
                "against them?",
            )
        )
    return findings


def doubled_sections(sections: Mapping[str, Any]) -> list[SpotFinding]:
    """Find sections whose counts are the same.

    Parameters
    ----------
    sections : mapping from name to anndata.AnnData
        Raw counts.

    Returns
    -------
    findings : list of SpotFinding
        One a pair whose spots by name, and whose counts, agree; ``value`` is the
        correlation of their counts. Sections of one patient are alike, and below 0.999.
    """
    names = list(sections)
    findings = []
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            r = _agreement(sections[first], sections[second])
            if r > _SAME:
                findings.append(
                    SpotFinding(
                        "doubled",
                        r,
                        f"{first} and {second} hold the same counts at the same spots: "
                        "one of them must not be in the other's test",
                    )
                )
    return findings


def _best_shift(
    row: NDArray[Any],
    col: NDArray[Any],
    places: NDArray[np.float64],
    used: NDArray[np.bool_],
    tissue: TissueMask,
    kind: GridKind,
    size_um: float,
) -> NDArray[np.float64] | None:
    """Shift in pixels that puts used spots on tissue and unused ones off; or None.

    Chip places around the section that have no spot count as unused.
    """
    chip = chip_positions(row, col, kind)
    pitch = 200.0 if kind == "st" else 100.0
    every, is_used = _whole_array(row, col, used, kind)
    # From the chip to pixels, by least squares.
    design = np.column_stack([chip, np.ones(len(chip))])
    turned = np.linalg.lstsq(design, places, rcond=None)[0]
    whole = np.column_stack([every, np.ones(len(every))]) @ turned
    reach = np.arange(-_FARTHEST * _STEPS_A_PITCH, _FARTHEST * _STEPS_A_PITCH + 1)
    steps = reach * pitch / _STEPS_A_PITCH / size_um
    best, best_right, now = None, -1.0, 0.0
    for across in steps:
        for down in steps:
            shift = np.array([across, down])
            right = float((tissue.holds(whole + shift) == is_used).mean())
            if across == down == 0:
                now = right
            nearer = best is None or np.hypot(*shift) < np.hypot(*best)
            if right > best_right or (right == best_right and nearer):
                best, best_right = shift, right
    if best is None or best_right - now < _CLEARLY_BETTER:
        return None
    if np.hypot(*best) * size_um < _SHORTEST * pitch:
        return None
    return best


def _whole_array(
    row: NDArray[Any], col: NDArray[Any], used: NDArray[np.bool_], kind: GridKind
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Places of a chip around a section, with a margin, and which are used."""
    margin = _FARTHEST
    wide = margin * (2 if kind == "visium" else 1)
    grid = np.meshgrid(
        np.arange(row.min() - margin, row.max() + margin + 1),
        np.arange(col.min() - wide, col.max() + wide + 1),
        indexing="ij",
    )
    rows, columns = grid[0].ravel(), grid[1].ravel()
    if kind == "visium":
        there = (rows + columns) % 2 == (row[0] + col[0]) % 2
        rows, columns = rows[there], columns[there]
    taken = set(zip(row[used].tolist(), col[used].tolist(), strict=True))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    is_used = np.array([pair in taken for pair in pairs])
    return chip_positions(rows, columns, kind), is_used


def _agreement(first: Any, second: Any) -> float:
    """Correlation of counts of shared genes, if the spots have the same names."""
    spots = first.obs_names.intersection(second.obs_names)
    genes = first.var_names.intersection(second.var_names)
    n_spots = max(first.n_obs, second.n_obs)
    if len(spots) < 0.9 * n_spots or not len(genes):
        return 0.0
    values = []
    for adata in (first, second):
        part = adata[spots, genes]
        x = (part.to_memory() if part.isbacked else part).X
        x = x.toarray() if hasattr(x, "toarray") else np.asarray(x)
        values.append(x.ravel().astype(np.float64))
    if min(value.std() for value in values) == 0:
        return 0.0
    return float(np.corrcoef(values[0], values[1])[0, 1])

"""Discs of one scan as BIDS derivatives: masks, maps, tables, pictures and sidecars.

What is written for a scan, in ``sub-XX/[ses-YY/]anat`` on the scan's own grid:

    …_space-orig_desc-disc_dseg.nii.gz .tsv .json      numbered discs
    …_space-orig_desc-disc_probseg.nii.gz .json        probability of disc
    …_space-orig_stat-entropy_desc-disc_statmap…       uncertainty
    …_space-orig_desc-disc_regions.tsv .json           centres and volumes
    …_space-orig_desc-disc_scores.tsv .json            against a reference
    …_space-orig_desc-classes_dseg.nii.gz .tsv .json   all classes, if there are more

and in ``sub-XX/figures`` what the report shows, as PNG, SVG and TSV.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import Provenance, UsageError
from neuromm.core.files import atomic_path, write_json
from neuromm.models import DiscRegions, DiscScores, ModelCard, score_discs
from neuromm.report.figures.site_drawing import Drawing
from neuromm.report.naming import bids_name
from neuromm.report.native_maps import with_sidecars
from neuromm.report.segmentation_pictures import (
    disc_slices,
    mid_sagittal,
    reliability_diagram,
)
from neuromm.report.sidecars import (
    plain,
    provenance_of,
    source_uris,
    unit_entities,
    write_tsv,
)

__all__ = ["SUMMARY", "write_segmentation"]

DESCRIPTION = "disc"
CLASSES = "classes"
SPACE = "orig"
_MM = "RAS, millimetres from the origin of the scan"

_REGIONS: dict[str, dict[str, Any]] = {
    "label": {
        "Description": "Number of the disc in the mask. Numbers count from below, from "
        "the lowest disc that was found; they are ranks, not anatomical levels"
    },
    "centre_x": {
        "Description": f"Centre of mass, to the right ({_MM})",
        "Units": "mm",
    },
    "centre_y": {
        "Description": f"Centre of mass, to the front ({_MM})",
        "Units": "mm",
    },
    "centre_z": {"Description": f"Centre of mass, upwards ({_MM})", "Units": "mm"},
    "volume_mm3": {
        "Description": "Volume of the voxels of the disc",
        "Units": "mm^3",
    },
    "n_voxels": {"Description": "Number of voxels of the disc"},
    "probability": {
        "Description": "Mean over its voxels of the probability of disc, 0 to 1"
    },
    "uncertainty": {
        "Description": "Mean over its voxels of the entropy of the class "
        "probabilities, as a part of the largest possible: 0 sure, 1 does not know"
    },
}
_SCORES: dict[str, dict[str, Any]] = {
    "label": {"Description": "Number of the disc in the reference, from below"},
    **{
        name: {**_REGIONS[name], "Description": "Of the reference. " + text}
        for name in ("centre_x", "centre_y", "centre_z", "volume_mm3")
        for text in [_REGIONS[name]["Description"]]
    },
    "found_label": {
        "Description": "Number of the disc that was matched to it, one to one with the "
        "least sum of distances; 0 where none was left"
    },
    "distance_mm": {"Description": "Between the two centres", "Units": "mm"},
    "dice": {"Description": "Overlap of the two, 0 to 1"},
    "found_volume_mm3": {
        "Description": "Volume of the disc that was found",
        "Units": "mm^3",
    },
}
SUMMARY = {
    "dice": "Overlap of all discs together, 0 to 1",
    "average_surface_distance_mm": "Mean distance of the surfaces, mm",
    "hausdorff_mm": "Largest distance of the surfaces, mm",
    "hausdorff95_mm": "95th percentile of the distance of the surfaces, mm",
    "mean_localisation_distance_mm": "Mean distance of matched centres, mm",
    "sd_localisation_distance_mm": "Standard deviation of that distance, mm",
    "detection_rate": "Part of the true centres that were found within 2 mm",
    "identification_rate": "Part of the true discs with a found one of the same "
    "number within 20 mm, to which no other true centre is nearer",
    "n_true": "Discs of the reference",
    "n_found": "Discs that were found",
    "expected_calibration_error": "Mean distance of stated and observed frequency of "
    "disc, within 10 mm of a disc of either",
}
# Okabe & Ito, as the label table wants colours.
_COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#CC79A7")


def write_segmentation(
    root: str | Path,
    entities: Mapping[str, str | None],
    regions: DiscRegions,
    *,
    image: Any = None,
    probabilities: ArrayLike | None = None,
    uncertainty: ArrayLike | None = None,
    reference: DiscRegions | None = None,
    classes: ArrayLike | None = None,
    class_names: Sequence[str] = (),
    card: ModelCard | None = None,
    settings: Mapping[str, Any] | None = None,
    notice: str = "",
    warnings: Sequence[str] = (),
    provenance: Provenance | Mapping[str, Any] | None = None,
    sources: Sequence[str | Path] = (),
) -> list[Path]:
    """Write the discs of a scan; the same input gives the same bytes.

    Parameters
    ----------
    root : path-like
        Output folder, see `prepare_segmentation`.
    entities : mapping of str to str
        Entities of the scan by long names; ``subject`` is needed. ``space``,
        ``description`` and ``suffix`` of the input are left out.
    regions : DiscRegions
        On the grid of the scan.
    image : nibabel image, optional
        What lies below the outlines of the pictures, such as the water image; without
        it there are no slices in the report.
    probabilities, uncertainty : arrays of shape (n_i, n_j, n_k), optional
        Probability of disc, and uncertainty of all classes, on that grid.
    reference : DiscRegions, optional
        `disc_regions` of a reference mask on that grid; scores are written.
    classes : array of int of shape (n_i, n_j, n_k), optional
        Class of each voxel, of a network that tells more than discs.
    class_names : sequence of str
        Their names, background first.
    card : ModelCard, optional
        Of the model that found the discs.
    settings : mapping, optional
        How they were found: scaling, modalities, passes, weights.
    notice : str
        What every reader has to know first, such as that scans are simulated or a
        network is a stand-in; on the report and in each picture.
    warnings : sequence of str
        Shown in the report.
    provenance : Provenance or mapping, optional
        Wall time and memory are left out: they differ from run to run.
    sources : sequence of path-like or str
        What was read; see `write_unit`.

    Returns
    -------
    paths : list of Path
        Every file that was written.

    Raises
    ------
    neuromm.core.UsageError
        If there is no subject, or an array has another shape than the discs.
    neuromm.core.DataError
        If the reference lies on another grid.
    neuromm.core.OutputError
        If a file cannot be written.
    """
    unit = {**_scan_entities(entities), "space": SPACE, "description": DESCRIPTION}
    folder = Path(root, f"sub-{unit['subject']}", *_session(unit), "anat")
    maps = {
        "probseg": _checked("probabilities", probabilities, regions),
        "statmap": _checked("uncertainty", uncertainty, regions),
    }
    scores = None
    if reference is not None:
        scores = score_discs(regions, reference, probabilities=maps["probseg"])
    # All that can be wrong is found out before anything is written.
    drawings = _drawings(regions, image, maps["statmap"], reference, scores, notice)
    checked = None
    if classes is not None:
        checked = _checked_classes(classes, class_names, regions)
    common = {"Sources": source_uris(sources, root), "SpatialReference": "orig"}
    paths = _write_mask(folder, unit, regions, common)
    paths += _write_maps(folder, unit, regions, maps, common)
    if scores is not None:
        paths += _write_scores(folder, unit, scores, common)
    if checked is not None:
        paths += _write_classes(folder, unit, regions, checked, class_names, common)
    figures, shown = _write_figures(Path(root), unit, drawings)
    paths += figures
    sidecar = {
        **_discs_sidecar(regions, card, settings, scores, common),
        "Notice": notice,
        "Figures": shown,
        "Warnings": list(warnings),
        "Provenance": provenance_of(provenance),
    }
    paths += _write_table(folder, unit, "regions", regions.table, sidecar)
    _remove_others(folder, Path(root), unit, paths)
    return paths


def _discs_sidecar(
    regions: DiscRegions,
    card: ModelCard | None,
    settings: Mapping[str, Any] | None,
    scores: DiscScores | None,
    common: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "Description": "Intervertebral discs that a network found: a row a disc, from "
        "the lowest one",
        **common,
        **{name: _REGIONS[name] for name in map(str, regions.table)},
        "Segmentation": {
            "n_discs": len(regions.table),
            "smallest_mm3": regions.smallest_mm3,
            "n_dropped": regions.n_dropped,
            "connectivity": "faces (6 neighbours)",
            "gap_slices": regions.gap_slices,
            **plain(dict(settings or {})),
        },
        "ModelCard": None if card is None else plain(dataclasses.asdict(card)),
        "Scores": None if scores is None else plain(dict(scores.summary)),
    }


def _scan_entities(entities: Mapping[str, str | None]) -> dict[str, str]:
    """Entities of the scan; of one that several images made up, those they share."""
    unit = unit_entities(entities)
    return {name: label for name, label in unit.items() if name not in ("space",)}


def _session(unit: Mapping[str, str]) -> list[str]:
    return [f"ses-{unit['session']}"] if unit.get("session") else []


def _checked(
    name: str, values: ArrayLike | None, regions: DiscRegions
) -> NDArray[np.float32] | None:
    if values is None:
        return None
    volume = np.asarray(values, dtype=np.float32)
    if volume.shape != regions.labels.shape:
        raise UsageError(
            f"{name} must have the shape of the discs {regions.labels.shape}, got "
            f"{volume.shape}: of several classes give that of the discs"
        )
    return volume


def _write_mask(
    folder: Path,
    unit: Mapping[str, str],
    regions: DiscRegions,
    common: Mapping[str, Any],
) -> list[Path]:
    path = folder / bids_name(unit, "dseg", ".nii.gz")
    highest = int(regions.labels.max(initial=0))
    dtype = np.uint8 if highest <= np.iinfo(np.uint8).max else np.int16
    _write_volume(path, regions.labels.astype(dtype), regions.affine)
    sidecar = {
        "Description": "Intervertebral discs, numbered from the lowest one found; the "
        "names are in the table of the same name",
        **common,
        "Manual": False,
    }
    numbers = [int(label) for label in regions.table["label"]]
    table = pd.DataFrame(
        {
            "index": [0, *numbers],
            "name": ["Background", *(f"Disc {rank}" for rank in _ranks(numbers))],
            "abbreviation": ["BG", *(f"D{rank}" for rank in _ranks(numbers))],
            "color": ["#000000", *(_COLOURS[(r - 1) % 7] for r in _ranks(numbers))],
        }
    )
    return [
        *with_sidecars([path], sidecar),
        write_tsv(folder / bids_name(unit, "dseg", ".tsv"), table),
    ]


def _ranks(numbers: Sequence[int]) -> range:
    return range(1, len(numbers) + 1)


def _write_maps(
    folder: Path,
    unit: Mapping[str, str],
    regions: DiscRegions,
    maps: Mapping[str, NDArray[np.float32] | None],
    common: Mapping[str, Any],
) -> list[Path]:
    told = {
        "probseg": ({}, "Probability of disc, 0 to 1"),
        "statmap": (
            {"stat": "entropy"},
            "Uncertainty: entropy of the class probabilities, as a part of the largest "
            "possible; 0 sure, 1 does not know",
        ),
    }
    paths: list[Path] = []
    for suffix, values in maps.items():
        if values is None:
            continue
        labels, description = told[suffix]
        path = folder / bids_name({**unit, **labels}, suffix, ".nii.gz")
        _write_volume(path, values, regions.affine)
        paths += with_sidecars([path], {"Description": description, **common})
    return paths


def _checked_classes(
    classes: ArrayLike, names: Sequence[str], regions: DiscRegions
) -> NDArray[np.uint8]:
    values = np.asarray(classes)
    if values.shape != regions.labels.shape or values.dtype.kind not in "biu":
        raise UsageError(
            f"classes must be whole numbers of the shape of the discs "
            f"{regions.labels.shape}, got {values.dtype} of {values.shape}"
        )
    if values.size and not 0 <= values.min() <= values.max() < len(names):
        raise UsageError(
            f"class_names must name every class, background first: got {len(names)} "
            f"names for classes up to {values.max()}"
        )
    return values.astype(np.uint8)


def _write_classes(
    folder: Path,
    unit: Mapping[str, str],
    regions: DiscRegions,
    classes: NDArray[np.uint8],
    names: Sequence[str],
    common: Mapping[str, Any],
) -> list[Path]:
    labels = {**unit, "description": CLASSES}
    path = folder / bids_name(labels, "dseg", ".nii.gz")
    _write_volume(path, classes, regions.affine)
    sidecar = {
        "Description": "Class of each voxel, the most probable one",
        **common,
        "Manual": False,
    }
    table = pd.DataFrame({"index": range(len(names)), "name": list(names)})
    return [
        *with_sidecars([path], sidecar),
        write_tsv(folder / bids_name(labels, "dseg", ".tsv"), table),
    ]


def _remove_others(
    folder: Path, root: Path, unit: Mapping[str, str], written: Sequence[Path]
) -> None:
    """Files of this scan that an earlier run wrote and this one did not."""
    stem = bids_name({**unit, "description": None}, "", "")
    figures = root / f"sub-{unit['subject']}" / "figures"
    ours = re.compile(
        re.escape(stem)
        + f"(stat-entropy_)?desc-({DESCRIPTION}|{CLASSES})_[a-z]+\\.[a-z.]+"
    )
    for place in (folder, figures):
        for path in sorted(place.glob(f"{stem}*")):
            if path not in written and ours.fullmatch(path.name):
                path.unlink()


def _write_volume(path: Path, values: NDArray[Any], affine: NDArray[Any]) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code=1)  # as the scanner saw it; qform cannot be sheared
    image.header.set_xyzt_units("mm", "sec")
    with atomic_path(path) as temporary:
        # nibabel stores neither time nor name in the gzip header: equal bytes.
        nib.save(image, temporary)


def _write_scores(
    folder: Path,
    unit: Mapping[str, str],
    scores: DiscScores,
    common: Mapping[str, Any],
) -> list[Path]:
    sidecar = {
        "Description": "Discs of the reference, and how far those that were found are "
        "from them: a row a true disc, from the lowest one",
        **common,
        **{name: _SCORES[name] for name in map(str, scores.table)},
        "Summary": plain(dict(scores.summary)),
        "SummaryDescriptions": SUMMARY,
    }
    return _write_table(folder, unit, "scores", scores.table, sidecar)


def _drawings(
    regions: DiscRegions,
    image: Any,
    uncertainty: NDArray[np.float32] | None,
    reference: DiscRegions | None,
    scores: DiscScores | None,
    mark: str,
) -> dict[str, Drawing]:
    drawings = {}
    if image is not None:
        drawings["midsagittal"] = mid_sagittal(
            image, regions, uncertainty=uncertainty, reference=reference, mark=mark
        )
        drawings["slices"] = disc_slices(image, regions, reference=reference, mark=mark)
    if scores is not None and scores.reliability is not None:
        drawings["reliability"] = reliability_diagram(
            scores.reliability,
            scores.summary["expected_calibration_error"],
            mark=mark,
        )
    return drawings


def _write_figures(
    root: Path, unit: Mapping[str, str], drawings: Mapping[str, Drawing]
) -> tuple[list[Path], list[dict[str, str]]]:
    paths: list[Path] = []
    shown = []
    folder = root / f"sub-{unit['subject']}" / "figures"
    for what, drawing in drawings.items():
        written = drawing.write(folder / bids_name(unit, what, ""))
        paths += written
        shown.append(
            {
                "File": written[0].relative_to(root).as_posix(),
                "Alt": drawing.alt,
                "Caption": drawing.caption,
            }
        )
    return paths, shown


def _write_table(
    folder: Path,
    unit: Mapping[str, str],
    suffix: str,
    table: pd.DataFrame,
    sidecar: Mapping[str, Any],
) -> list[Path]:
    return [
        write_tsv(folder / bids_name(unit, suffix, ".tsv"), table),
        write_json(folder / bids_name(unit, suffix, ".json"), sidecar),
    ]

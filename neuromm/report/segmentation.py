"""Report of segmented discs: one self-contained HTML file a subject.

Built from the files that `write_segmentation` wrote, so that it can be made again, and
without dates, so that it then has the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import read_json, write_text
from neuromm.report.design import design_rows
from neuromm.report.figures import Picture
from neuromm.report.html import render
from neuromm.report.naming import parse_name, spoken
from neuromm.report.pictures import Gallery
from neuromm.report.segmentation_dataset import REFERENCES

__all__ = [
    "SCORES",
    "Scan",
    "dataset_name",
    "methods",
    "number",
    "read_scans",
    "scan_title",
    "version",
    "write_segment_report",
]

_REGIONS = "_desc-disc_regions"
_MM3_PER_CM3 = 1000.0
_MISSED_MM = 2.0

SCORES: Mapping[str, tuple[str, int, str]] = {
    "dice": ("Dice", 3, ""),
    "average_surface_distance_mm": ("Average surface distance", 2, "mm"),
    "hausdorff_mm": ("Hausdorff distance", 2, "mm"),
    "hausdorff95_mm": ("Hausdorff distance, 95th percentile", 2, "mm"),
    "mean_localisation_distance_mm": ("Mean localisation distance", 2, "mm"),
    "detection_rate": ("Detection rate", 3, ""),
    "identification_rate": ("Identification rate", 3, ""),
    "expected_calibration_error": ("Expected calibration error", 3, ""),
}
"""Name, places after the point and unit of each measure against a reference."""


@dataclass(frozen=True)
class Scan:
    """The discs of one scan as they lie on disk.

    Attributes
    ----------
    path : Path
        The table of discs.
    sidecar : mapping
        Its JSON.
    entities : mapping of str to str
        Long names.
    """

    path: Path
    sidecar: Mapping[str, Any]
    entities: Mapping[str, str]

    @property
    def table(self) -> pd.DataFrame:
        """A row a disc; see `neuromm.models.DiscRegions`."""
        return _read(self.path)

    @property
    def scores(self) -> pd.DataFrame | None:
        """A row a disc of the reference; None without one."""
        path = self.path.with_name(self.path.name.replace("_regions.", "_scores."))
        return _read(path) if path.exists() else None

    @property
    def scores_sidecar(self) -> Mapping[str, Any]:
        """What the scores mean; empty without a reference."""
        name = self.path.name.replace("_regions.tsv", "_scores.json")
        path = self.path.with_name(name)
        return read_json(path) if path.exists() else {}


def read_scans(root: str | Path, subject: str) -> list[Scan]:
    """The scans of a subject in an output folder, in the order of their names.

    Raises
    ------
    neuromm.core.InputMissingError
        If there is none.
    neuromm.core.DataError
        If a sidecar is missing or damaged.
    """
    subject = subject.removeprefix("sub-")
    folder = Path(root, f"sub-{subject}")
    paths = sorted(folder.rglob(f"*{_REGIONS}.tsv"))
    if not paths:
        raise InputMissingError(
            f"{folder}: no table of discs (*{_REGIONS}.tsv). Run neuromm segment for "
            "this subject first"
        )
    scans = []
    for path in paths:
        beside = path.with_suffix(".json")
        if not beside.exists():
            raise DataError("has no sidecar: write the scan again", path)
        scans.append(Scan(path, read_json(beside), parse_name(path)))
    return scans


def write_segment_report(root: str | Path, subject: str) -> Path:
    """Write ``sub-<subject>.html`` from the tables, masks and pictures of a subject.

    Parameters
    ----------
    root : path-like
        Output folder of `neuromm segment`.
    subject : str
        Label without ``sub-``.

    Returns
    -------
    path : Path

    Raises
    ------
    neuromm.core.InputMissingError
        If the subject has no table of discs.
    neuromm.core.DataError
        If a table or sidecar is damaged.
    """
    subject = subject.removeprefix("sub-")
    scans = read_scans(root, subject)
    told = [str(scan.sidecar.get("Notice") or "") for scan in scans]
    content = {
        "title": f"sub-{subject}: discs",
        "heading": f"Intervertebral discs of sub-{subject}",
        "version": version(scans),
        "dataset": dataset_name(root),
        "notices": list(dict.fromkeys(text for text in told if text)),
        "warnings": [
            (scan_title(scan), str(text))
            for scan in scans
            for text in scan.sidecar.get("Warnings") or []
        ],
        "scans": [_scan_content(Path(root), scan) for scan in scans],
        "cards": _cards(scans),
        "methods": {
            "texts": [("", methods(scans))],
            "references": sorted(REFERENCES),
        },
    }
    path = Path(root, f"sub-{subject}.html")
    return write_text(path, render("segmentation.html.j2", content))


def _scan_content(root: Path, scan: Scan) -> dict[str, Any]:
    settings: Mapping[str, Any] = scan.sidecar.get("Segmentation") or {}
    reference = scan.scores
    table = scan.table
    n_reference = 0 if reference is None else len(reference)
    pictures, calibration = _galleries(root, scan)
    return {
        "id": "scan-" + scan.path.name.partition(_REGIONS)[0],
        "title": scan_title(scan),
        "counts": _counts(table, settings, n_reference),
        "verdict": _verdict(scan.sidecar.get("Scores") or {}),
        "numbering": "Numbers count from below, from the lowest disc that was found. "
        "They are ranks, not anatomical levels: 1 is L5/S1 only if that disc is in the "
        "scan and was found.",
        "scores": _score_rows(scan),
        "gallery": pictures,
        "calibration": calibration,
        "discs": [_disc_row(row) for row in table.to_dict("records")],
        "reference": []
        if reference is None
        else [_reference_row(row) for row in reference.to_dict("records")],
        "file": scan.path.name,
        "folder": scan.path.parent.relative_to(root).as_posix(),
        "settings": design_rows(settings),
        "provenance": _provenance(scan),
    }


def _counts(table: pd.DataFrame, settings: Mapping[str, Any], n_reference: int) -> str:
    n_discs = len(table)
    found = "1 disc was found" if n_discs == 1 else f"{n_discs} discs were found"
    if n_reference:
        found += f", {n_reference} are in the reference"
    n_dropped = int(settings.get("n_dropped") or 0)
    if n_dropped:
        pieces = "1 piece" if n_dropped == 1 else f"{n_dropped} pieces"
        smallest = float(settings.get("smallest_mm3") or 0) / _MM3_PER_CM3
        found += f"; {pieces} smaller than {smallest:g} cm³ left out"
    return found + "."


def _verdict(scores: Mapping[str, Any]) -> str:
    """The comparison with a reference in one sentence; "" without."""
    if not scores:
        return ""
    distance = number(scores.get("mean_localisation_distance_mm"), 2)
    within = round(float(scores["detection_rate"] or 0) * int(scores["n_true"]))
    return (
        f"Dice {number(scores.get('dice'), 3)}; matched centres lie {distance} mm "
        f"apart on average, {within} of {scores['n_true']} within 2 mm."
    )


def _score_rows(scan: Scan) -> list[tuple[str, str, str]]:
    values: Mapping[str, Any] = scan.sidecar.get("Scores") or {}
    meanings: Mapping[str, Any] = scan.scores_sidecar.get("SummaryDescriptions") or {}
    rows = []
    for key, (name, places, unit) in SCORES.items():
        if key in values:
            shown = number(values[key], places)
            shown += f" {unit}" if unit and shown != "n/a" else ""
            meaning = str(meanings.get(key, "")).removesuffix(", mm")
            rows.append((name, shown, meaning))
    return rows


def _galleries(root: Path, scan: Scan) -> tuple[Gallery, list[Picture]]:
    """Slices, and what belongs to the comparison with a reference."""
    slices, calibration = Gallery("Pictures"), []
    for told in scan.sidecar.get("Figures") or []:
        path = root / str(told["File"])
        if not path.is_file():
            slices.notes.append(f"{path.name} is not there any more.")
            continue
        picture = Picture(path.read_bytes(), str(told["Alt"]), str(told["Caption"]))
        if path.stem.endswith("_reliability"):
            calibration.append(picture)
        else:
            slices.pictures.append(picture)
    if not slices.pictures:
        slices.notes.append("No image was given, so no slice is drawn.")
    return slices, calibration


def _disc_row(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "label": str(int(row["label"])),
        "x": number(row["centre_x"], 1),
        "y": number(row["centre_y"], 1),
        "z": number(row["centre_z"], 1),
        "volume": number(row["volume_mm3"] / _MM3_PER_CM3, 2),
        "probability": number(row["probability"], 2),
        "uncertainty": number(row["uncertainty"], 2),
    }


def _reference_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    found, distance = int(row["found_label"]), row["distance_mm"]
    return {
        "label": str(int(row["label"])),
        "found": str(found) if found else "missed",
        "distance": number(distance, 2),
        "dice": number(row["dice"], 3),
        "volume": number(row["volume_mm3"] / _MM3_PER_CM3, 2),
        "found_volume": number(row["found_volume_mm3"] / _MM3_PER_CM3, 2),
        "warn": not found or bool(distance > _MISSED_MM),
    }


def _cards(scans: Sequence[Scan]) -> list[dict[str, Any]]:
    cards = []
    for scan in scans:
        told = scan.sidecar.get("ModelCard")
        if told and told not in cards:
            cards.append(told)
    return [
        {
            "title": f"{card.get('name')}: {card.get('title')}",
            "facts": [
                (name.replace("_", " "), "; ".join(_listed(card[name])))
                for name in ("task", "reference", "departures", "weights")
                if card.get(name)
            ],
            "limits": _listed(card.get("limits") or []),
        }
        for card in cards
    ]


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value]


def methods(scans: Sequence[Scan]) -> list[str]:
    """How discs were found and judged, in paragraphs."""
    settings: Mapping[str, Any] = scans[0].sidecar.get("Segmentation") or {}
    smallest = settings.get("smallest_mm3")
    text = (
        "A network gave each voxel of the scan a probability of disc. Voxels of disc "
        "that touch at a face were taken as one disc"
    )
    if gap := int(settings.get("gap_slices") or 0):
        slices = "one empty slice" if gap == 1 else f"up to {gap} empty slices"
        text += f", also across {slices} from left to right"
    text += f"; pieces below {smallest:g} mm³ were dropped. " if smallest else ". "
    text += (
        "Discs were numbered from below along the patient's axis. Centres are centres "
        "of mass and volumes those of the voxels, both through the affine of the scan."
    )
    paragraphs = [text]
    n_passes = int(settings.get("n_passes") or 1)
    passes = f"mean over {n_passes} passes" if n_passes > 1 else "network's output"
    paragraphs.append(
        f"Probabilities are the {passes}; uncertainty is their entropy over that of "
        "equal probabilities (Wang et al. 2019)."
    )
    if any(scan.scores is not None for scan in scans):
        paragraphs.append(
            "Discs were compared with a reference mask: overlap (Dice) and surface "
            "distances of all discs together, distances of centres matched one to one, "
            "detection within 2 mm (Zheng et al. 2017), and calibration of the voxels "
            "within 10 mm of a disc (Guo et al. 2017)."
        )
    return paragraphs


def _provenance(scan: Scan) -> dict[str, Any]:
    told: Mapping[str, Any] = scan.sidecar.get("Provenance") or {}
    return {
        "versions": list((told.get("versions") or {}).items()),
        "config": design_rows(told.get("config") or {}),
        "seed": told.get("seed"),
        "device": told.get("device"),
        "inputs": sorted((told.get("inputs") or {}).items()),
        "sources": list(scan.sidecar.get("Sources") or []),
    }


def scan_title(scan: Scan) -> str:
    """Entities of a scan in words, without its subject."""
    named = {k: v for k, v in scan.entities.items() if k not in ("subject", "space")}
    words = spoken(named)
    return f"Scan, {words}" if words else "Scan"


def version(scans: Sequence[Scan]) -> str:
    """Version of neuromm that found the discs."""
    versions = {
        str(((s.sidecar.get("Provenance") or {}).get("versions") or {}).get("neuromm"))
        for s in scans
    }
    return ", ".join(sorted(versions - {"None"})) or "of unknown version"


def dataset_name(root: str | Path) -> str:
    """Name of the results, which tells what they were made from; "" without."""
    path = Path(root, "dataset_description.json")
    return str(read_json(path).get("Name", "")) if path.is_file() else ""


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", na_values="n/a")
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"is no table ({error})", path) from error


def number(value: Any, places: int) -> str:
    """With so many places after the point; "n/a" for what is none."""
    return "n/a" if value is None or pd.isna(value) else f"{float(value):.{places}f}"

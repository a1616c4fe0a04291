"""Reports: one self-contained HTML file a subject, and one for the group.

Built from the files of the output folder alone, so that a report can be made again;
without dates, so that it then has the same bytes. Everything shown is escaped, images
are embedded, and a content security policy lets the browser load nothing else.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core.files import read_json, write_text
from neuromm.report.both_alignments import read_alignments
from neuromm.report.design import design_rows
from neuromm.report.figures.canvas import Picture, score_limits
from neuromm.report.figures.contacts import contact_map
from neuromm.report.figures.surfaces import N_VERTICES, surface_map
from neuromm.report.group import (
    GroupMap,
    region_means,
    write_group_maps,
    write_region_means,
)
from neuromm.report.group_site_sections import group_site_sections
from neuromm.report.methods import methods_paragraphs, methods_references
from neuromm.report.naming import parse_name, spoken
from neuromm.report.pictures import (
    Gallery,
    group_contacts,
    masked_scores,
    unit_pictures,
    volume_pictures,
)
from neuromm.report.site_sections import site_section
from neuromm.report.summary import channel_peaks, region_table
from neuromm.report.units import Unit, read_subjects, read_units

__all__ = ["render", "write_group_report", "write_subject_report"]

NOTICE = (
    "Research use only. Not a medical device; not for diagnosis, treatment or any "
    "decision about a patient."
)
_N_REGIONS = 10
_N_NAMES = 5
_EDGE_WARNING = 0.05  # share of targets at an edge of the alphas that is worth a word

_NO_GROUP_TEST = "the mean is described, not tested"
_DATATYPES = {"func": "fMRI", "eeg": "EEG", "meg": "MEG", "ieeg": "intracranial EEG"}


def write_subject_report(output_dir: str | Path, subject: str) -> Path:
    """Write ``sub-<subject>.html`` from the score tables and maps of a subject.

    Parameters
    ----------
    output_dir : path-like
        Output folder of `neuromm encode`.
    subject : str
        Label without ``sub-``.

    Returns
    -------
    path : Path

    Raises
    ------
    neuromm.core.InputMissingError
        If the subject has no score table.
    neuromm.core.DataError
        If a table or sidecar is damaged.
    """
    subject = subject.removeprefix("sub-")
    units = read_units(output_dir, subject)
    content = {
        "title": f"sub-{subject}: encoding report",
        "heading": f"Encoding report of sub-{subject}",
        "version": _version(units),
        "dataset": _dataset(output_dir),
        "overview": [row for unit in units for row in _overview_rows(unit)],
        "warnings": [(_title(u), text) for u in units for text in _warnings(u)],
        "sites": _sites(units),
        "units": [_unit_content(unit) for unit in units],
        "methods": _methods(units),
    }
    path = Path(output_dir, f"sub-{subject}.html")
    return write_text(path, render("subject.html.j2", content))


def write_group_report(
    output_dir: str | Path, both_alignments: str | Path | None = None
) -> Path:
    """Write ``group.html``, mean maps in ``group/`` and the table of regions.

    Where sites of integration were mapped, their tables and figures go to ``group/``.

    Parameters
    ----------
    output_dir : path-like
        Output folder of `neuromm encode`.
    both_alignments : path-like, optional
        Output folder of the same recordings with events of another kind (words, scene
        cuts): the report counts the sites that both have.

    Returns
    -------
    path : Path

    Raises
    ------
    neuromm.core.InputMissingError
        If no subject has a score table, or the other folder no sites.
    neuromm.core.UsageError
        If the two folders cannot be told apart.
    """
    aligned = None
    if both_alignments is not None:
        aligned = read_alignments(output_dir, both_alignments)
    subjects = read_subjects(output_dir)
    units = [unit for ones in subjects.values() for unit in ones]
    maps = write_group_maps(output_dir, subjects)
    regions = region_means(subjects)
    write_region_means(output_dir, regions)
    content = {
        "title": "Group: encoding report",
        "heading": f"Encoding report of {_counted(len(subjects), 'subject')}",
        "version": _version(units),
        "dataset": _dataset(output_dir),
        "subjects": [
            {"subject": subject, **row}
            for subject, ones in subjects.items()
            for unit in ones
            for row in _overview_rows(unit)
        ],
        "sites": [
            {**one, "title": _group_title(one["unit"])}
            for one in group_site_sections(output_dir, subjects, aligned)
        ],
        "galleries": [*_group_maps(maps), *_all_contacts(units)],
        "regions": _region_means_rows(regions),
        "methods": _methods(units),
    }
    path = Path(output_dir, "group.html")
    return write_text(path, render("group.html.j2", content))


def _dataset(output_dir: str | Path) -> str:
    """Name of the results, which tells what they were made from; "" if there is none.

    A data set that was simulated says so in its name.
    """
    path = Path(output_dir, "dataset_description.json")
    return str(read_json(path).get("Name", "")) if path.is_file() else ""


def render(template: str, content: Mapping[str, Any]) -> str:
    """One of the templates as a page with its style and the notice on research use."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template(template).render(notice=NOTICE, **content)


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")


def _unit_content(unit: Unit) -> dict[str, Any]:
    return {
        "id": f"unit-{unit.datatype}-{unit.name}",
        "title": _title(unit),
        "galleries": unit_pictures(unit),
        "regions": _region_rows(unit),
        "timed": unit.timed,
        "tested": unit.tested,
        "design": design_rows(unit.design),
        "edges": _edge_rows(unit),
        "layers": _layer_rows(unit),
        "files": unit.path.parent.name + "/" + unit.path.name,
        "provenance": _provenance(unit),
    }


def _sites(units: Sequence[Unit]) -> list[dict[str, Any]]:
    sections = [(_title(unit), site_section(unit)) for unit in units]
    return [{"title": title, **one} for title, one in sections if one is not None]


def _title(unit: Unit) -> str:
    kind = _DATATYPES.get(unit.datatype, unit.datatype)
    words = spoken(unit.entities)
    return f"{kind}, {words}" if words else kind


def _group_title(unit: Unit) -> str:
    kind = _DATATYPES.get(unit.datatype, unit.datatype)
    shared = {k: v for k, v in unit.entities.items() if k not in ("subject", "session")}
    words = spoken(shared)
    return f"{kind}, {words}" if words else kind


def _overview_rows(unit: Unit) -> list[dict[str, Any]]:
    rows = []
    for space, numbers in unit.summary.items():
        scored = numbers.get("n_scored") or 0
        significant = numbers.get("n_significant")
        share = f" ({significant / scored:.0%})" if significant and scored else ""
        rows.append(
            {
                "unit": _title(unit),
                "id": f"unit-{unit.datatype}-{unit.name}",
                "space": space,
                "scored": f"{scored:,} of {numbers.get('n_targets', scored):,}",
                "median": _score(numbers.get("median_r")),
                "best": _score(numbers.get("max_r")),
                "target": numbers.get("best_target") or "",
                "significant": "not tested"
                if significant is None
                else f"{significant:,}{share}",
            }
        )
    return rows


def _warnings(unit: Unit) -> list[str]:
    told = [str(text) for text in unit.sidecar.get("Warnings") or []]
    told += [] if unit.sites is None else unit.sites.warnings
    unscored: dict[tuple[int, int, str], list[str]] = {}
    for space, numbers in unit.summary.items():
        n_targets = numbers.get("n_targets", 0)
        n_missing = n_targets - numbers.get("n_scored", 0)
        if n_missing:
            names = ", ".join(numbers.get("unscored", [])[:_N_NAMES])
            names += ", …" if n_missing > _N_NAMES else ""
            unscored.setdefault((n_missing, n_targets, names), []).append(space)
    silent = [
        f"{n_missing:,} of {n_targets:,} targets could not be scored (constant, or "
        f"with missing values) in {', '.join(spaces)}: {names}"
        for (n_missing, n_targets, names), spaces in unscored.items()
    ]
    return [*told, *silent]


def _region_rows(unit: Unit) -> list[dict[str, Any]]:
    peaks = channel_peaks(unit.table)
    regions = region_table(peaks)
    rows = []
    for _, best in regions.groupby("space", sort=False, observed=True):
        for row in best.head(_N_REGIONS).to_dict("records"):
            significant = row["n_significant"]
            rows.append(
                {
                    "space": str(row["space"]),
                    "region": str(row["region"]),
                    "n": f"{int(row['n_targets']):,}",
                    "mean": _score(row["mean_r"]),
                    "best": _score(row["max_r"]),
                    "significant": ""
                    if pd.isna(significant)
                    else f"{int(significant):,}",
                }
            )
    return rows


def _edge_rows(unit: Unit) -> list[dict[str, Any]]:
    rows = []
    for space, numbers in unit.summary.items():
        edges = numbers.get("alpha_at_edge")
        if edges:
            rows.append(
                {
                    "space": space,
                    "lowest": f"{edges['lowest']:.1%}",
                    "highest": f"{edges['highest']:.1%}",
                    "warn": max(edges.values()) > _EDGE_WARNING,
                }
            )
    return rows


def _layer_rows(unit: Unit) -> list[dict[str, str]]:
    return [
        {
            "space": space,
            "layer": layer,
            "all": _percent(shares["all"]),
            "significant": _percent(shares["significant"]),
        }
        for space, numbers in unit.summary.items()
        for layer, shares in (numbers.get("layers_chosen") or {}).items()
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _provenance(unit: Unit) -> dict[str, Any]:
    told: Mapping[str, Any] = unit.sidecar.get("Provenance") or {}
    return {
        "versions": list((told.get("versions") or {}).items()),
        "config": design_rows(told.get("config") or {}),
        "seed": told.get("seed"),
        "device": told.get("device"),
        "inputs": sorted((told.get("inputs") or {}).items()),
        "sources": list(unit.sidecar.get("Sources") or []),
    }


def _methods(units: Sequence[Unit]) -> dict[str, Any]:
    """Paragraphs by what they describe (equal ones once), and all references."""
    texts: dict[tuple[str, ...], list[str]] = {}
    for unit in units:
        paragraphs = tuple(methods_paragraphs(unit.design))
        titles = texts.setdefault(paragraphs, [])
        if _title(unit) not in titles:
            titles.append(_title(unit))
    references = {text for unit in units for text in methods_references(unit.design)}
    return {
        "texts": [
            ("; ".join(titles), paragraphs) for paragraphs, titles in texts.items()
        ],
        "references": sorted(references),
    }


def _version(units: Sequence[Unit]) -> str:
    versions = {
        str(((u.sidecar.get("Provenance") or {}).get("versions") or {}).get("neuromm"))
        for u in units
    }
    return ", ".join(sorted(versions - {"None"})) or "of unknown version"


def _group_maps(maps: Sequence[GroupMap]) -> list[Gallery]:
    galleries = []
    for unit in dict.fromkeys(one.unit for one in maps):
        members = [one for one in maps if one.unit == unit]
        gallery = Gallery(f"Mean maps: fMRI, {spoken(parse_name(unit))}")
        left_out = sorted({subject for one in members for subject in one.left_out})
        if left_out:
            named = ", ".join(f"sub-{subject}" for subject in left_out)
            gallery.notes.append(f"Left out, on another grid: {named}")
        loaded = [_loaded(one) for one in members]
        limits = score_limits(*(values for _, values in loaded))
        for one, (image, values) in zip(members, loaded, strict=True):
            gallery.pictures += _group_map(one, image, values, limits)
        if gallery.pictures or gallery.notes:
            galleries.append(gallery)
    return galleries


def _loaded(one: GroupMap) -> tuple[Any, NDArray[np.floating]]:
    """Image and values of a mean map; both hemispheres in one array."""
    import nibabel as nib

    if isinstance(one.mean, Path):
        image = nib.load(one.mean)
        return image, np.asarray(image.dataobj)
    halves = [np.asarray(nib.load(path).darrays[0].data) for path in one.mean.values()]
    return None, np.concatenate(halves)


def _group_map(
    one: GroupMap,
    image: Any,
    values: NDArray[np.floating],
    limits: tuple[float, float],
) -> list[Picture]:
    name = f"{one.space}, mean of {_counted(one.n_subjects, 'subject')}"
    if image is not None:
        return volume_pictures(image, None, limits, name=name, untested=_NO_GROUP_TEST)
    if len(values) != 2 * N_VERTICES:
        return []
    shown, note = masked_scores(values, None, limits, _NO_GROUP_TEST)
    sides = {"L": shown[:N_VERTICES], "R": shown[N_VERTICES:]}
    return [surface_map(sides, limits, name=name, note=note)]


def _all_contacts(units: Sequence[Unit]) -> list[Gallery]:
    contacts = group_contacts(units)
    recorded = [unit for unit in units if unit.datatype == "ieeg"]
    if not recorded:
        return []
    gallery = Gallery("Contacts of all subjects")
    others = {
        f"sub-{unit.entities['subject']}"
        for unit in recorded
        if group_contacts([unit]).empty
    }
    if others:
        gallery.notes.append(
            "Not drawn, since their contacts are not placed in MNI space: "
            + ", ".join(sorted(others))
        )
    if contacts.empty:
        return [gallery]
    limits = score_limits(contacts["r"].to_numpy())
    note = "Colour: highest r over time, which is above 0 by chance."
    note = note if any(unit.timed for unit in recorded) else ""
    for space, rows in contacts.groupby("space", sort=False):
        gallery.pictures.append(contact_map(rows, limits, name=str(space), note=note))
    return [gallery]


def _region_means_rows(regions: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    keys = ["unit", "datatype", "space"]
    for _, best in regions.groupby(keys, sort=False):
        for row in best.head(_N_REGIONS).to_dict("records"):
            rows.append(
                {
                    "unit": f"{_DATATYPES.get(row['datatype'], row['datatype'])}, "
                    + spoken(parse_name(str(row["unit"]))),
                    "space": str(row["space"]),
                    "region": str(row["region"]),
                    "mean": _score(row["mean_r"]),
                    "sem": _score(row["sem_r"]),
                    "subjects": str(int(row["n_subjects"])),
                    "targets": f"{int(row['n_targets']):,}",
                }
            )
    return rows


def _score(value: Any) -> str:
    return "n/a" if value is None or pd.isna(value) else f"{float(value):.3f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

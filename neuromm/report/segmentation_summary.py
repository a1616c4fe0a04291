"""All scans of an output folder against their references: one table, one page.

Built from the files that `write_segmentation` wrote. A row is a scan; means and
standard deviations are over scans, as the challenges on discs report them.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import InputMissingError
from neuromm.core.files import write_json, write_text
from neuromm.report.figures.canvas import style
from neuromm.report.figures.site_drawing import Drawing, titled_canvas
from neuromm.report.html import render
from neuromm.report.segmentation import (
    SCORES,
    Scan,
    dataset_name,
    methods,
    number,
    read_scans,
    scan_title,
    version,
)
from neuromm.report.segmentation_dataset import REFERENCES
from neuromm.report.segmentation_derivatives import SUMMARY
from neuromm.report.sidecars import write_tsv

__all__ = ["scan_scores", "scores_by_disc", "write_segment_summary"]

_COUNTS = ("n_true", "n_found")


def scan_scores(scans: Sequence[Scan]) -> pd.DataFrame:
    """Scores of each scan: a row a scan that has a reference.

    Returns
    -------
    table : DataFrame
        ``subject``, ``scan`` (file name without what all share), and the measures of
        `neuromm.models.DiscScores`; nan where there was nothing to measure.
    """
    rows = []
    for scan in scans:
        scores = scan.sidecar.get("Scores")
        if scores:
            values = {name: scores.get(name) for name in (*SCORES, *_COUNTS)}
            rows.append(
                {
                    "subject": f"sub-{scan.entities['subject']}",
                    "scan": _name(scan),
                    **{k: np.nan if v is None else v for k, v in values.items()},
                }
            )
    return pd.DataFrame(rows, columns=["subject", "scan", *SCORES, *_COUNTS])


def write_segment_summary(
    root: str | Path, *, only: Collection[str] | None = None
) -> Path:
    """Write ``segmentation.html`` and ``segmentation.tsv`` from scans of a folder.

    Parameters
    ----------
    root : path-like
        Output folder of `neuromm segment`.
    only : collection of str, optional
        Names of the scans that count, such as ``sub-01_ses-a``; all that have a
        reference if left out.

    Returns
    -------
    path : Path
        The page.

    Raises
    ------
    neuromm.core.InputMissingError
        If no scan was compared with a reference.
    neuromm.core.DataError
        If a table or sidecar is damaged.
    """
    root = Path(root)
    subjects = sorted(p.name for p in root.glob("sub-*") if p.is_dir())
    scans = [
        scan
        for subject in subjects
        if any(Path(root, subject).rglob("*_desc-disc_regions.tsv"))
        for scan in read_scans(root, subject)
        if only is None or _name(scan) in only
    ]
    table = scan_scores(scans)
    if table.empty:
        raise InputMissingError(
            f"{root}: no scan was compared with a reference. Give reference masks to "
            "neuromm segment evaluate"
        )
    compared = [scan for scan in scans if scan.sidecar.get("Scores")]
    notices = [str(scan.sidecar.get("Notice") or "") for scan in compared]
    told = list(dict.fromkeys(text for text in notices if text))
    write_tsv(root / "segmentation.tsv", table)
    write_json(root / "segmentation.json", _columns())
    drawing = scores_by_disc(compared, mark="; ".join(told))
    drawing.write(root / "figures" / "scores_by_disc")
    content = {
        "title": "Discs of all scans",
        "heading": f"Intervertebral discs of {_counted(len(table), 'scan')}",
        "version": version(compared),
        "dataset": dataset_name(root),
        "notices": told,
        "names": [_titled(*SCORES[name][::2]) for name in SCORES],
        "rows": [
            _row(scan, values)
            for scan, values in zip(compared, table.to_dict("records"), strict=True)
        ],
        "ends": _ends(table),
        "picture": drawing.picture,
        "methods": {"texts": [("", methods(compared))], "references": _references()},
    }
    page = render("segmentation_summary.html.j2", content)
    return write_text(root / "segmentation.html", page)


def scores_by_disc(scans: Sequence[Scan], *, mark: str = "") -> Drawing:
    """Overlap and distance of each disc of the references, over all scans.

    Parameters
    ----------
    scans : sequence of Scan
        Those with a reference.
    mark : str
        Shown in the figure.

    Returns
    -------
    drawing : Drawing
        Its table holds a row a disc: ``scan``, ``label``, ``dice``, ``distance_mm``.
    """
    parts = [
        scan.scores[["label", "dice", "distance_mm"]].assign(scan=_name(scan))
        for scan in scans
        if scan.scores is not None
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[["scan", "label", "dice", "distance_mm"]]
    missed = int(table["distance_mm"].isna().sum())
    with style():
        figure = titled_canvas(7.6, 3.0, "Each disc, from below", None, mark=mark)
        left, right = figure.subplots(1, 2)
        for axes, column, label in (
            (left, "dice", "Dice"),
            (right, "distance_mm", "Distance of centres (mm)"),
        ):
            _dots(axes, table, column)
            axes.set(xlabel="Number of the disc in the reference", ylabel=label)
        left.set_ylim(0, 1.02)
        right.set_ylim(bottom=0)
        right.axhline(2, color="#999999", lw=0.8, ls="--")
    lost = f" {_counted(missed, 'disc')} had no match and {_are(missed)} not drawn."
    return Drawing(
        figure,
        table,
        alt="Overlap and distance of centres of each disc, by its number."
        + (f" Marked: {mark}." if mark else ""),
        caption="A dot is a disc of a scan, a bar the median over scans. Dashed: 2 mm, "
        "within which a disc counts as detected." + (lost if missed else ""),
    )


def _dots(axes: Any, table: pd.DataFrame, column: str) -> None:
    labels = sorted(table["label"].unique())
    axes.set_xticks(range(len(labels)), [str(int(label)) for label in labels])
    for place, label in enumerate(labels):
        values = table.loc[table["label"] == label, column].dropna().to_numpy()
        if not len(values):
            continue
        # Dots of equal values stand side by side: spread evenly in the table's order.
        aside = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [0.0]
        axes.plot(
            place + np.asarray(aside), values, "o", ms=3.5, color="#0072B2", alpha=0.7,
            clip_on=False,
        )  # fmt: skip
        axes.hlines(
            np.median(values), place - 0.3, place + 0.3, color="#333333", lw=1.4
        )


def _name(scan: Scan) -> str:
    """File name of a scan without what all share."""
    return scan.path.name.partition("_space-")[0]


def _row(scan: Scan, values: dict[Any, Any]) -> dict[str, Any]:
    return {
        "subject": str(values["subject"]),
        "title": scan_title(scan).removeprefix("Scan, "),
        "found": f"{int(values['n_found'])} of {int(values['n_true'])}",
        "scores": [number(values[name], SCORES[name][1]) for name in SCORES],
    }


def _ends(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean and standard deviation of every measure over scans."""
    means, spreads = table[list(SCORES)].mean(), table[list(SCORES)].std(ddof=1)
    return [
        {
            "name": name,
            "scores": [number(values[key], SCORES[key][1]) for key in SCORES],
        }
        for name, values in (("Mean", means), ("Standard deviation", spreads))
    ]


def _columns() -> dict[str, Any]:
    units = {name: {"Units": "mm"} for name in SCORES if name.endswith("_mm")}
    return {
        "subject": {"Description": "Subject"},
        "scan": {"Description": "File name of the scan, up to its space"},
        **{
            name: {"Description": SUMMARY[name], **units.get(name, {})}
            for name in (*SCORES, *_COUNTS)
        },
    }


def _titled(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _references() -> list[str]:
    return sorted(REFERENCES)


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")

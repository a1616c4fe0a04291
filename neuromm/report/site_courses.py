"""Scores of sites over time around the event, as they lie on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, SiteMap
from neuromm.core.files import write_json
from neuromm.report.sidecars import write_tsv

__all__ = ["course_table", "read_courses", "write_courses"]

_SCORE = "score_"
_GAIN = (
    "Score of the multimodal model less that of the best other one in this bin, a "
    "difference of correlations; single bins are not tested"
)


def course_table(sites: SiteMap, multimodal: str) -> pd.DataFrame:
    """Score of each model in each time bin.

    Parameters
    ----------
    sites : SiteMap
    multimodal : str
        Model whose gain is told.

    Returns
    -------
    courses : DataFrame
        A row a target and bin: ``target``, ``time`` (s from the event, centre of the
        bin), ``score_<model>`` and ``gain``. Empty where targets have no bins.
    """
    evidence = sites.evidence
    if "score_course" not in evidence:
        return pd.DataFrame(columns=["target", "time", "gain"])
    scores = evidence["score_course"].transpose("site", "time", "model")
    n_sites, n_times, n_models = scores.shape
    models = [str(name) for name in scores["model"].to_numpy()]
    flat = pd.DataFrame(
        scores.to_numpy().reshape(-1, n_models),
        columns=[f"{_SCORE}{name}" for name in models],
    )
    others = [f"{_SCORE}{name}" for name in models if name != multimodal]
    flat["gain"] = flat[f"{_SCORE}{multimodal}"] - flat[others].max(axis=1)
    flat.insert(0, "time", np.tile(scores["time"].to_numpy(), n_sites))
    flat.insert(0, "target", np.repeat(scores["site"].to_numpy().astype(str), n_times))
    return flat


def write_courses(
    scores: Path, sites: SiteMap, table: pd.DataFrame, sidecar: Mapping[str, Any]
) -> list[Path]:
    """Write ``…_desc-multimodalsites_courses.tsv`` and its sidecar, if there are bins.

    Parameters
    ----------
    scores : Path
        Table of the sites.
    sites : SiteMap
    table : DataFrame
        What the table of the sites holds.
    sidecar : mapping
        Of the table of the sites.

    Returns
    -------
    paths : list of Path
    """
    multimodal = str(sites.attrs["multimodal"])
    courses = course_table(sites, multimodal)
    if courses.empty:
        return []
    path = scores.with_name(scores.name.replace("_scores.", "_courses."))
    write_tsv(path, courses, figures=4)
    common = ("Sources", "SpatialReference", "CoordinateFrame", "Sites", "Provenance")
    columns: dict[str, Any] = {}
    for name in map(str, courses):
        if name in table and name != "gain":
            text = str(sidecar[name]["Description"])
            text = text.replace(", averaged over time bins", "")
            columns[name] = {**sidecar[name], "Description": text}
    content: dict[str, Any] = {
        "Description": "Scores over time of the targets that may be sites: a row a "
        "target and time bin",
        **{name: sidecar[name] for name in common if name in sidecar},
        **columns,
        "time": {
            "Description": "Centre of the window, from the event",
            "Units": "s",
        },
        "gain": {"Description": _GAIN},
    }
    return [path, write_json(path.with_suffix(".json"), content)]


def read_courses(scores: Path) -> pd.DataFrame | None:
    """Courses beside a table of sites; None where targets have no bins.

    Raises
    ------
    neuromm.core.DataError
        If the table is damaged.
    """
    path = scores.with_name(scores.name.replace("_scores.", "_courses."))
    if not path.exists():
        return None
    try:
        courses = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"target": str})
    except (ValueError, OSError) as error:
        raise DataError(f"is not a table of courses ({error})", path) from error
    missing = [name for name in ("target", "time", "gain") if name not in courses]
    if missing:
        raise DataError(f"courses need the columns {', '.join(missing)}", path)
    return courses

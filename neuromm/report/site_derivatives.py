"""Derivatives of a map of sites: table, regions, mask, winners, differences.

A site is a target that features of a multimodal network predict better than everything
simpler (`neuromm.encoding.integration_sites`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import Provenance, SiteMap, TargetSpace, UsageError
from neuromm.core.files import write_json
from neuromm.report.naming import bids_name, contrast_label
from neuromm.report.native_maps import with_sidecars, write_native
from neuromm.report.sidecars import (
    plain,
    provenance_of,
    sampling,
    source_uris,
    spatial_reference_of,
    unit_entities,
    write_tsv,
)
from neuromm.report.site_courses import write_courses
from neuromm.report.site_protocol import follows_protocol, protocol_column
from neuromm.report.site_summary import region_counts, site_summary, site_warnings

__all__ = ["SITES", "write_sites"]

SITES = "multimodalsites"

_LEADING = ("target", "x", "y", "z", "hemi", "region")
_STATISTICS = (
    "gain", "ci_low", "ci_high", "competitor", "winner", "p", "q", "is_site",
)  # fmt: skip
_COLUMNS: dict[str, dict[str, Any]] = {
    "target": {"Description": "Name of the voxel, vertex, sensor or contact"},
    "x": {"Description": "Position, see CoordinateFrame", "Units": "mm"},
    "y": {"Description": "Position, see CoordinateFrame", "Units": "mm"},
    "z": {"Description": "Position, see CoordinateFrame", "Units": "mm"},
    "hemi": {"Description": "Hemisphere", "Levels": {"L": "left", "R": "right"}},
    "region": {"Description": "Label of the atlas at the position"},
    "gain": {
        "Description": "Score of the multimodal model less that of the best other one, "
        "a difference of correlations"
    },
    "ci_low": {"Description": "Lower end of the basic bootstrap interval of the gain"},
    "ci_high": {"Description": "Upper end of the basic bootstrap interval of the gain"},
    "competitor": {
        "Description": "Best of the other models; concatenation and banded are linear "
        "combinations of the unimodal spaces, under one penalty and under one a space"
    },
    "winner": {"Description": "Model with the highest score, significant or not"},
    "p": {
        "Description": "Conjunction: the largest p of the multimodal model against "
        "every other model and chance"
    },
    "q": {"Description": "False discovery rate of p over the targets of this table"},
    "is_site": {
        "Description": "Whether q is at most Sites.q and the gain above 0",
        "Levels": {"true": "a site of multimodal integration", "false": "not shown"},
    },
}
_REGION_COLUMNS = {
    "region": "Label of the atlas",
    "n_targets": "Targets of the region that could be tested",
    "n_sites": "Sites among them",
    "share": "n_sites / n_targets",
    "share_low": "Lower end of its 95 % interval (Wilson), as if targets were "
    "independent",
    "share_high": "Upper end of the same interval",
    "mean_gain": "Mean gain of the tested targets, a difference of correlations",
}
_BEST = "n_best_"
_STRONGEST = "strongest"
_MASK_NAMES = {0: "not shown", 1: "site"}


def write_sites(
    root: str | Path,
    entities: Mapping[str, str | None],
    datatype: str,
    sites: SiteMap,
    *,
    space: TargetSpace | None = None,
    regions: Sequence[str] | None = None,
    feature_spaces: Mapping[str, Mapping[str, Any]] | None = None,
    warnings: Sequence[str] = (),
    provenance: Provenance | Mapping[str, Any] | None = None,
    sources: Sequence[str | Path] = (),
) -> list[Path]:
    """Write the table of sites and its maps; the same input gives the same bytes.

    Parameters
    ----------
    root, entities, datatype, provenance, sources
        As for `write_unit`.
    sites : SiteMap
    space : TargetSpace, optional
        Of the targets that the map was made of; ``sites.targets`` if not given. Maps
        are written where a site is one target of a volume or surface. For sensors and
        contacts the table is the map.
    regions : sequence of str of length n_sites, optional
        Atlas label of each site; ``""`` where there is none.
    feature_spaces : mapping, optional
        Name to what its table says of itself; a ``kind`` of ``"stand-in"`` warns.
    warnings : sequence of str
        Further ones.

    Returns
    -------
    paths : list of Path
        Every file that was written.

    Raises
    ------
    neuromm.core.UsageError
        If there is no subject, regions are of another length, or two feature spaces
        have one label.
    neuromm.core.OutputError
        If a file cannot be written.
    """
    unit = unit_entities(entities)
    described = {**unit, "description": SITES}
    folder = Path(root, f"sub-{unit['subject']}")
    if unit.get("session"):
        folder = folder / f"ses-{unit['session']}"
    folder = folder / datatype
    space = sites.targets if space is None else space
    frame = None if space is None else space.coordinate_frame
    common = {
        "Sources": source_uris(sources, root),
        "SpatialReference": spatial_reference_of(frame or unit.get("space")),
        "CoordinateFrame": frame or "n/a",
        **sampling(unit),
    }
    settings: dict[str, Any] = plain(dict(sites.attrs))
    models = [str(name) for name in sites.evidence["model"].to_numpy()]
    contrasts = _contrasts(settings["multimodal"], models)
    table = _table(sites, regions, settings["multimodal"])
    summary = site_summary(table, settings, models)
    told = site_warnings(summary, settings, feature_spaces or {})
    path = folder / bids_name(described, "scores", ".tsv")
    write_tsv(path, table)
    sidecar: dict[str, Any] = {
        "Description": "Sites of multimodal integration: a row a target. n/a marks a "
        "target that is constant or has missing values"
        + (", or is predicted in too few bins" if follows_protocol(settings) else ""),
        **common,
        **{str(name): _column(str(name), settings) for name in table},
        "Sites": settings,
        "Summary": summary,
        "Warnings": [*warnings, *told],
        "Provenance": provenance_of(provenance),
    }
    paths = [path, write_json(path.with_suffix(".json"), sidecar)]
    paths += write_courses(path, sites, table, sidecar)
    counts = region_counts(table)
    if len(counts):
        paths += _write_regions(folder, described, counts, common)
    if space is not None and space.n_targets == len(table):
        paths += _write_maps(
            folder, unit, table, space, settings, models, contrasts, common
        )
    return paths


def _table(
    sites: SiteMap, regions: Sequence[str] | None, multimodal: str
) -> pd.DataFrame:
    table = sites.table.drop(columns=["run", "subject"], errors="ignore")
    if regions is not None and len(regions) != len(table):
        raise UsageError(
            f"regions must have one label per site, got {len(regions)} labels for "
            f"{len(table)} sites"
        )
    if "channel" in table and (table["channel"] == table["target"]).all():
        table = table.drop(columns="channel")
    table["region"] = "n/a" if regions is None else [one or "n/a" for one in regions]
    table.loc[table["q"].isna(), "competitor"] = "n/a"
    table["winner"] = table["competitor"].where(~(table["gain"] > 0), multimodal)
    comparisons = [str(one) for one in sites.evidence["comparison"].to_numpy()]
    for name in comparisons:
        values = sites.evidence["p_comparison"].sel(comparison=name)
        table[f"p_{name}"] = values.to_numpy()
    scores = [name for name in table if str(name).startswith("score_")]
    leading = [name for name in _LEADING if name in table]
    p_values = [f"p_{name}" for name in comparisons]
    ends = {*leading, *scores, *_STATISTICS, *p_values}
    further = [name for name in table if name not in ends]
    ordered = [*leading, *further, *scores, *_STATISTICS[:5], *p_values]
    return table[[*ordered, *_STATISTICS[5:]]]


def _column(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    if follows_protocol(settings):
        told = protocol_column(name, settings)
        if told is not None:
            return told
    if name in _COLUMNS:
        return _COLUMNS[name]
    kind, _, model = name.partition("_")
    if kind == "score":
        over = ", averaged over time bins" if settings.get("n_bins", 1) > 1 else ""
        what = {
            "linear": "the stronger of concatenation and banded",
            "concatenation": "the unimodal spaces side by side under one penalty",
            "banded": "the unimodal spaces under one penalty a space",
        }.get(model, f"the feature space '{model}'")
        return {
            "Description": "Pearson's correlation of held-out prediction and response, "
            f"within a fold, averaged over folds{over}, of {what}"
        }
    if kind == "p":
        return {
            "Description": f"One-sided p of '{settings['multimodal']}' above "
            + ("chance" if model == "chance" else f"'{model}'")
        }
    return {"Description": f"Coordinate '{name}' of the target"}


def _write_regions(
    folder: Path,
    described: Mapping[str, str],
    counts: pd.DataFrame,
    common: Mapping[str, Any],
) -> list[Path]:
    path = folder / bids_name(described, "regions", ".tsv")
    write_tsv(path, counts)
    told = dict(_REGION_COLUMNS)
    for name in map(str, counts):
        if name.startswith(_BEST):
            model = name.removeprefix(_BEST)
            told[name] = f"Tested targets that {model} predicts best"
    sidecar = {
        "Description": "Sites of multimodal integration: a row a region",
        **common,
        **{name: {"Description": text} for name, text in told.items()},
    }
    return [path, write_json(path.with_suffix(".json"), sidecar)]


def _write_maps(
    folder: Path,
    unit: Mapping[str, str],
    table: pd.DataFrame,
    space: TargetSpace,
    settings: Mapping[str, Any],
    models: Sequence[str],
    contrasts: Mapping[str, str],
    common: Mapping[str, Any],
) -> list[Path]:
    described = {**unit, "description": SITES}
    native = space.to_native(table["is_site"].to_numpy(dtype=float))
    mask = write_native(folder, described, "mask", native, names=_MASK_NAMES)
    if mask is None:
        return []
    told = {"Description": "Sites of multimodal integration", **common, "Type": "ROI"}
    paths = with_sidecars(mask, told)
    paths += _write_winners(folder, described, table, space, settings, models, common)
    for contrast, values, text in _differences(
        table, contrasts, settings["multimodal"]
    ):
        paths += _write_map(
            folder, unit, contrast, "deltar", values, text, space, common
        )
    multimodal = settings["multimodal"]
    contrast = next(iter(contrasts))
    text = f"False discovery rate of '{multimodal}' above every other model and chance"
    q = table["q"].to_numpy(dtype=float)
    return paths + _write_map(folder, unit, contrast, "q", q, text, space, common)


def _write_map(
    folder: Path,
    unit: Mapping[str, str],
    contrast: str,
    stat: str,
    values: np.ndarray,
    description: str,
    space: TargetSpace,
    common: Mapping[str, Any],
) -> list[Path]:
    labels = {**unit, "contrast": contrast, "stat": stat}
    written = write_native(folder, labels, "statmap", space.to_native(values))
    sidecar = {"Description": description, **common, "Statistic": stat}
    return with_sidecars(written or [], sidecar)


def _contrasts(multimodal: str, models: Sequence[str]) -> dict[str, str]:
    """Label of ``contrast-`` to the model whose score is taken off."""
    found: dict[str, str] = {}
    left_out = (multimodal, "concatenation", "banded")
    for name in (_STRONGEST, *(name for name in models if name not in left_out)):
        contrast = contrast_label(f"{multimodal} minus {name}")
        if contrast in found:
            raise UsageError(
                f"'{found[contrast]}' and '{name}' would both be written as "
                f"contrast-{contrast}: rename one of the feature spaces"
            )
        found[contrast] = name
    return found


def _differences(
    table: pd.DataFrame, contrasts: Mapping[str, str], multimodal: str
) -> Iterator[tuple[str, np.ndarray, str]]:
    """Contrast, values and description of each difference of scores."""
    for number, (contrast, name) in enumerate(contrasts.items()):
        if number == 0:
            text = f"Score of '{multimodal}' less that of the best other model"
            yield contrast, table["gain"].to_numpy(dtype=float), text
            continue
        values = table[f"score_{multimodal}"] - table[f"score_{name}"]
        text = f"Score of '{multimodal}' less that of '{name}'"
        yield contrast, values.to_numpy(dtype=float), text


def _write_winners(
    folder: Path,
    described: Mapping[str, str],
    table: pd.DataFrame,
    space: TargetSpace,
    settings: Mapping[str, Any],
    models: Sequence[str],
    common: Mapping[str, Any],
) -> list[Path]:
    """Labels: 1 a site, 2 the multimodal model best but no site, else the best."""
    multimodal = settings["multimodal"]
    others = [name for name in models if name not in (multimodal, "linear")]
    names = {1: f"site of {multimodal}", 2: f"{multimodal}, not shown"}
    names |= dict(enumerate(others, start=3))
    index = {multimodal: 2, **{name: i for i, name in names.items() if i > 2}}
    values = table["winner"].map(index).fillna(0).to_numpy(dtype=float)
    values[table["is_site"].to_numpy(dtype=bool)] = 1
    native = space.to_native(values)
    labelled = {0: "not scored", **names}
    written = write_native(folder, described, "dseg", native, names=labelled) or []
    sidecar = {
        "Description": "Which model predicts each target best; label 1 are the sites "
        "of multimodal integration, the others are not tested",
        **common,
    }
    path = folder / bids_name(described, "dseg", ".tsv")
    write_tsv(path, pd.DataFrame({"index": list(names), "name": list(names.values())}))
    return [*with_sidecars(written, sidecar), path]

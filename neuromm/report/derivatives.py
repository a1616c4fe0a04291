"""Derivatives of one unit: the score table, maps in native space, their sidecars.

A unit is what one model is fitted to: a subject, session, task and space of one data
type, over its runs. Naming after nilearn's `save_glm_to_bids` and FitLins, so that
image-based meta-analysis (NiMARE) finds the maps.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import EncodingResult, Provenance, UsageError
from neuromm.core.files import write_json
from neuromm.report.dataset import bids_uri, prepare_output
from neuromm.report.layer_choices import layer_shares, write_layer_choices
from neuromm.report.naming import bids_name, contrast_label, parse_name
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
from neuromm.report.summary import SIGNIFICANCE, alpha_edges, unit_summary

__all__ = [
    "DESCRIPTION",
    "STATISTICS",
    "bids_name",
    "bids_uri",
    "contrast_label",
    "parse_name",
    "prepare_output",
    "write_unit",
]

DESCRIPTION = "encoding"

# Column of the score table to (label of ``stat-``, description).
STATISTICS = {
    "r": ("r", "Pearson's correlation of held-out prediction and response"),
    "r2": ("rsquared", "Coefficient of determination of the held-out prediction"),
    "alpha": ("alpha", "Ridge penalty, median over folds"),
    "p": ("p", "Permutation p-value, (1 + exceedances) / (1 + permutations)"),
    "q": ("q", "False discovery rate over the targets of this feature space"),
    "ceiling": ("noiseceiling", "Highest correlation that repeats allow"),
}

_COLUMNS: dict[str, dict[str, Any]] = {
    "target": {"Description": "Name of the voxel, vertex, sensor or contact"},
    "x": {"Description": "Position, see CoordinateFrame", "Units": "mm"},
    "y": {"Description": "Position, see CoordinateFrame", "Units": "mm"},
    "z": {"Description": "Position, see CoordinateFrame", "Units": "mm"},
    "hemi": {
        "Description": "Hemisphere",
        "Levels": {"L": "left", "R": "right"},
    },
    "time": {"Description": "Centre of the window, from the event", "Units": "s"},
    "region": {"Description": "Label of the atlas at the position"},
    "space": {
        "Description": "Feature space; joint: all of them together, unless a space of "
        "that name was given"
    },
    **{
        column: {"Description": description}
        for column, (_, description) in STATISTICS.items()
    },
}
# Attributes of a result that the summary of its feature space tells.
_OWN_TO_A_SPACE = {
    "candidates",
    "masked_targets",
    "n_features",
    "share_smallest_alpha",
    "share_largest_alpha",
}
_SCORED = {0: "not scored", 1: "scored"}
_LEADING = ("target", "x", "y", "z", "hemi", "time")
_TRAILING = ("region", "space", "r", "r2", "alpha", "p", "q")


def write_unit(
    root: str | Path,
    entities: Mapping[str, str | None],
    datatype: str,
    results: Mapping[str, EncodingResult],
    *,
    regions: Sequence[str] | None = None,
    design: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    provenance: Provenance | Mapping[str, Any] | None = None,
    sources: Sequence[str | Path] = (),
    spatial_reference: str | None = None,
) -> list[Path]:
    """Write tables, maps and sidecars of a unit; the same input gives the same bytes.

    Parameters
    ----------
    root : path-like
        Output folder, see `prepare_output`.
    entities : mapping of str to str
        Entities of the unit by long names; ``subject`` is needed. ``description`` and
        ``hemisphere`` of the input are left out.
    datatype : {"func", "eeg", "meg", "ieeg"}
    results : mapping of str to EncodingResult
        One a feature space, all on the same targets.
    regions : sequence of str of length n_targets, optional
        Atlas label of each target; ``""`` where there is none.
    design : mapping, optional
        How it was computed; keys in `docs/outputs.md`.
    warnings : sequence of str
        Shown in the report.
    provenance : Provenance or mapping, optional
        Wall time and memory are left out: they differ from run to run.
    sources : sequence of path-like or str
        What was read. A path in a dataset of ``DatasetLinks`` becomes its BIDS URI; of
        another path only the file name is told.
    spatial_reference : str, optional
        Image or keyword of the space; the coordinate frame if not given.

    Returns
    -------
    paths : list of Path
        Every file that was written.

    Raises
    ------
    neuromm.core.UsageError
        If there is no result, no subject, or regions of another length.
    neuromm.core.OutputError
        If a file cannot be written.
    """
    unit = unit_entities(entities)
    if not results:
        raise UsageError("write_unit needs at least one encoding result")
    _check_contrasts(results)
    folder = Path(root, f"sub-{unit['subject']}")
    if unit.get("session"):
        folder = folder / f"ses-{unit['session']}"
    folder = folder / datatype
    space = next(iter(results.values())).targets
    frame = space.coordinate_frame if space is not None else None
    common = {
        "Sources": source_uris(sources, root),
        "SpatialReference": spatial_reference
        or spatial_reference_of(frame or unit.get("space")),
        "CoordinateFrame": frame or "n/a",
        **sampling(unit),
    }
    table = _table(results, regions)
    settings: dict[str, Any] = plain(dict(design or {}))
    paths = _write_table(folder, unit, table)
    sidecar: dict[str, Any] = {
        "Description": "Encoding scores: a row a target and feature space",
        **common,
        **{str(name): _column(str(name)) for name in table},
        "Encoding": {"datatype": datatype, **plain(_shared(results)), **settings},
        "Summary": _summary(table, results, settings),
        "Warnings": list(warnings),
        "Provenance": provenance_of(provenance),
    }
    paths.append(write_json(folder / _stem(unit, ".json"), sidecar))
    paths += write_layer_choices(folder, unit, results, common)
    paths += _write_maps(folder, unit, results, common)
    return paths


def _check_contrasts(results: Mapping[str, EncodingResult]) -> None:
    labels: dict[str, str] = {}
    for name in results:
        label = contrast_label(name)
        if label in labels:
            raise UsageError(
                f"feature spaces '{labels[label]}' and '{name}' would both be written "
                f"as contrast-{label}: rename one"
            )
        labels[label] = name


def _stem(unit: Mapping[str, str], extension: str) -> str:
    return bids_name({**unit, "description": DESCRIPTION}, "scores", extension)


def _table(
    results: Mapping[str, EncodingResult], regions: Sequence[str] | None
) -> pd.DataFrame:
    frames = []
    for name, result in results.items():
        frame = result.to_frame().assign(space=name)
        if regions is not None and len(regions) != len(frame):
            raise UsageError(
                f"regions must have one label per target, got {len(regions)} labels "
                f"for {len(frame)} targets"
            )
        frame["region"] = np.nan if regions is None else _named(regions)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    for name in ("x", "y", "z", "p", "q"):
        if name not in table:
            table[name] = np.nan
    leading = [name for name in _LEADING if name in table]
    ends = {*leading, *_TRAILING, "ceiling"}
    further = [name for name in table if name not in ends]
    last = ["ceiling"] if "ceiling" in table else []
    return table[[*leading, *further, *_TRAILING, *last]]


def _named(regions: Sequence[str]) -> Any:
    labels = pd.Series(list(regions), dtype=object)
    return pd.Categorical(labels.mask(labels.isna() | (labels == "")))


def _write_table(
    folder: Path, unit: Mapping[str, str], table: pd.DataFrame
) -> list[Path]:
    path = folder / _stem(unit, ".tsv")
    write_tsv(path, table)
    return [path]


def _shared(results: Mapping[str, EncodingResult]) -> dict[str, Any]:
    """What all results say of how they were computed, and the sizes they have."""
    first, *others = results.values()
    attrs = {
        name: value
        for name, value in first.attrs.items()
        if name not in _OWN_TO_A_SPACE
        and all(plain(o.attrs.get(name)) == plain(value) for o in others)
    }
    sizes = {"n_targets": first.scores.sizes["target"]}
    if "fold" in first.scores.sizes:
        sizes["n_folds"] = first.scores.sizes["fold"]
    return {**attrs, **sizes}


def _summary(
    table: pd.DataFrame,
    results: Mapping[str, EncodingResult],
    design: Mapping[str, Any],
) -> dict[str, Any]:
    summary = unit_summary(table)
    for name, result in results.items():
        grid = result.attrs.get("alphas")
        grid = design.get("alphas") if grid is None else grid
        edges = alpha_edges(result.scores["alpha"].to_numpy().ravel(), grid)
        summary[name]["alpha_at_edge"] = edges
        q = result.scores["q"].to_numpy() if "q" in result.scores else None
        shares = layer_shares(result, None if q is None else q < SIGNIFICANCE)
        if shares is not None:
            summary[name]["layers_chosen"] = shares
    return summary


def _write_maps(
    folder: Path,
    unit: Mapping[str, str],
    results: Mapping[str, EncodingResult],
    common: Mapping[str, Any],
) -> list[Path]:
    paths: list[Path] = []
    scored = np.zeros(0, dtype=bool)
    for name, result in results.items():
        if result.targets is None:
            return paths
        labels = {**unit, "contrast": contrast_label(name)}
        finite = np.isfinite(result.scores["r"].to_numpy())
        scored = finite if not scored.size else scored | finite
        for column, values in _statistics(result):
            stat, description = STATISTICS[column]
            native = result.targets.to_native(values)
            written = write_native(folder, {**labels, "stat": stat}, "statmap", native)
            if written is None:  # sensors and contacts: the table is the map
                return paths
            sidecar = {
                "Description": f"{description}; feature space: {name}",
                **common,
                "FeatureSpace": name,
                "Statistic": column,
            }
            paths += with_sidecars(written, sidecar)
    return paths + _write_mask(
        folder, unit, next(iter(results.values())), scored, common
    )


def _write_mask(
    folder: Path,
    unit: Mapping[str, str],
    result: EncodingResult,
    scored: np.ndarray,
    common: Mapping[str, Any],
) -> list[Path]:
    space = result.targets
    if space is None:
        return []
    labels = {**unit, "description": DESCRIPTION}
    native = space.to_native(scored.astype(np.float64))
    written = write_native(folder, labels, "mask", native, names=_SCORED)
    sidecar = {
        "Description": "Targets that could be scored, in at least one feature space",
        **common,
        "Type": "ROI",
    }
    return with_sidecars(written or [], sidecar)


def _statistics(result: EncodingResult) -> Iterator[tuple[str, np.ndarray]]:
    for column in STATISTICS:
        if column not in result.scores:
            continue
        values = result.scores[column]
        if "fold" in values.dims:
            values = values.median("fold")
        yield column, values.to_numpy().astype(np.float64)


def _column(name: str) -> dict[str, Any]:
    return _COLUMNS.get(name, {"Description": f"Coordinate '{name}' of the target"})

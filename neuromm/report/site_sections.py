"""What the report says of sites of multimodal integration, from the files on disk."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from neuromm.report.site_methods import listed
from neuromm.report.site_pictures import site_pictures
from neuromm.report.site_protocol import (
    follows_protocol,
    protocol_claim,
    protocol_conditions,
    protocol_counts,
)
from neuromm.report.site_tables import MappedSites
from neuromm.report.units import Unit

__all__ = ["site_section"]

_N_SITES = 20
_N_REGIONS = 15
_NOUNS = {"func": "target", "eeg": "sensor", "meg": "sensor", "ieeg": "contact"}
_CORRECTIONS = {"bh": "Benjamini-Hochberg", "by": "Benjamini-Yekutieli"}


def site_section(unit: Unit) -> dict[str, Any] | None:
    """Content of the section of one unit; None where no sites were mapped."""
    sites = unit.sites
    if sites is None:
        return None
    noun = _NOUNS.get(unit.datatype, "target")
    return {
        "id": f"sites-{unit.datatype}-{unit.name}",
        "claim": _claim(sites, noun),
        "conditions": _conditions(sites, noun),
        "counts": _counts(sites, noun),
        "warnings": sites.warnings,
        "multimodal": sites.settings["multimodal"],
        "models": _model_rows(sites),
        "strongest_at": "sites" if sites.summary["n_sites"] else f"{noun}s",
        "timed": sites.settings.get("n_bins", 1) > 1,
        "controlled": bool(sites.summary.get("controls")),
        "noun": noun,
        "rows": _site_rows(sites.table),
        "regions": _region_rows(sites.regions),
        "confidence": f"{sites.settings.get('confidence', 0.95):.0%}",
        "galleries": site_pictures(unit, sites),
        "file": f"{sites.path.parent.name}/{sites.path.name}",
    }


def _claim(sites: MappedSites, noun: str) -> str:
    told = sites.settings
    if follows_protocol(told):
        return protocol_claim(told, noun)
    controls = list(told.get("controls") or [])
    against = f"{listed(told['unimodal'])}, each by itself; both linear combinations "
    against += "of them"
    if controls:
        against += f"; the controls {listed(controls)}, each by itself"
    return (
        f"A {noun} counts as a site if the features of {told['multimodal']} predict it "
        f"better than all of these, and better than chance: {against}. The claim is as "
        f"strong as its weakest comparison: p is the largest of theirs, and "
        f"q <= {told['q']:g} over all {noun}s that could be tested "
        f"({_CORRECTIONS[str(told['correction'])]})."
    )


def _conditions(sites: MappedSites, noun: str) -> str:
    told = sites.settings
    if follows_protocol(told):
        return protocol_conditions(told)
    return (
        f"It holds for these features and this recording: {told['n_events']:,} "
        f"held-out samples, resampled {told['n_resamples']:,} times in blocks of "
        f"{told['block']}. It says that no linear mix of the given unimodal features "
        f"predicts a site as well; richer unimodal features might. A {noun} that is "
        "not listed may still be one: it was not shown."
    )


def _counts(sites: MappedSites, noun: str) -> str:
    numbers = sites.summary
    n_sites, n_tested = numbers["n_sites"], numbers["n_tested"]
    share = f" ({n_sites / n_tested:.1%})" if n_sites else ""
    text = f"{n_sites:,} of {n_tested:,} tested {noun}s{share} are sites."
    missing = numbers["n_targets"] - n_tested
    if missing:
        why = "constant, or with missing values"
        if follows_protocol(sites.settings):
            why = "too few bins that two compared models predict"
        text += f" {missing:,} could not be tested ({why})."
    text += protocol_counts(numbers, noun)
    before = numbers.get("n_sites_without_controls")
    if before is not None:
        text += f" Without controls {before:,} would be."
    strongest = numbers.get("strongest") or {}
    if strongest:
        name, count = next(iter(strongest.items()))
        where = "sites" if n_sites else f"{noun}s"
        text += f" The strongest competitor is most often {name} ({count:,} {where})."
    return text


def _model_rows(sites: MappedSites) -> list[dict[str, Any]]:
    told, numbers = sites.settings, sites.summary
    roles = {
        told["multimodal"]: "multimodal",
        **dict.fromkeys(told["unimodal"], "unimodal"),
        "unimodal": "the best unimodal one",
        "linear": "the stronger of the two linear combinations",
        "concatenation": "linear: side by side, one penalty",
        "banded": "linear: a penalty a space (banded ridge)",
        **dict.fromkeys(told.get("controls") or [], "control"),
    }
    stopped: Mapping[str, Any] = numbers.get("controls") or {}
    strongest = numbers.get("strongest") or {}
    return [
        {
            "name": name,
            "role": roles.get(name, ""),
            "median": _score(scores["median_score"]),
            "at_sites": _score(scores["mean_score_at_sites"]),
            "strongest": "" if name == "linear" else f"{strongest.get(name, 0):,}",
            "stops": f"{stopped[name]['n_not_beaten']:,}" if name in stopped else "",
            "warn": bool(stopped.get(name, {}).get("n_not_beaten")),
            "is_multimodal": name == told["multimodal"],
        }
        for name, scores in (numbers.get("models") or {}).items()
    ]


def _site_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    found = table[table["is_site"]].sort_values(
        ["gain"], ascending=False, kind="stable"
    )
    return [
        {
            "target": str(row["target"]),
            "region": "" if pd.isna(row["region"]) else str(row["region"]),
            "gain": _score(row["gain"]),
            "interval": f"{_score(row['ci_low'])} to {_score(row['ci_high'])}",
            "score": _score(row[f"score_{row['winner']}"]),
            "competitor": f"{row['competitor']} "
            f"({_score(row['score_' + str(row['competitor'])])})",
            "q": f"{row['q']:.2g}",
        }
        for row in found.head(_N_SITES).to_dict("records")
    ]


def _region_rows(regions: pd.DataFrame | None) -> list[dict[str, str]]:
    if regions is None:
        return []
    found = regions[regions["n_sites"] > 0].head(_N_REGIONS)
    return [
        {
            "region": str(row["region"]),
            "targets": f"{int(row['n_targets']):,}",
            "sites": f"{int(row['n_sites']):,}",
            "share": f"{row['share']:.1%}",
            "interval": f"{row['share_low']:.1%} to {row['share_high']:.1%}",
            "gain": _score(row["mean_gain"]),
            "best": _best(row),
        }
        for row in found.to_dict("records")
    ]


def _best(row: Mapping[Any, Any]) -> str:
    """Models by the number of targets that they predict best, most first."""
    counts = {
        str(name).removeprefix("n_best_"): int(value)
        for name, value in row.items()
        if str(name).startswith("n_best_") and value > 0
    }
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{name} {n}" for name, n in ordered)


def _score(value: Any) -> str:
    return "n/a" if value is None or pd.isna(value) else f"{float(value):.3f}"

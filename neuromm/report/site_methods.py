"""How sites of multimodal integration were found, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from neuromm.report.site_protocol import follows_protocol, protocol_paragraph

__all__ = ["listed", "sites_paragraph"]

_TARGETS = {
    "func": "voxel or vertex",
    "eeg": "sensor",
    "meg": "sensor",
    "ieeg": "contact",
}
_OVER_TIME = {
    "mean": "The differences were averaged over the time bins",
    "max": "The largest difference over the time bins was held against its "
    "distribution over the resamples",
    "cluster": "The largest sum of differences over neighbouring time bins was held "
    "against its distribution over the resamples",
}


def sites_paragraph(design: Mapping[str, Any]) -> str:
    """A paragraph for the methods section; empty where no sites were mapped.

    Parameters
    ----------
    design : mapping
        ``datatype``, and ``sites``: the settings in the sidecar of the table of sites.
    """
    sites = design.get("sites")
    if not sites:
        return ""
    target = _TARGETS.get(str(design.get("datatype")), "target")
    if follows_protocol(sites):
        return protocol_paragraph(sites, target)
    unimodal = listed(sites["unimodal"])
    controls = listed(sites.get("controls") or [])
    rivals = (
        f"the features of {unimodal}, each by themselves; these side by side under one "
        "ridge penalty; and these under one penalty a feature space (banded ridge)"
    )
    if controls:
        rivals += f"; and, as controls, those of {controls}, each by themselves"
    sentences = [
        f"A {target} was taken for a site of multimodal integration if the features of "
        f"{sites['multimodal']} predicted it better than each of these competitors and "
        f"better than chance (after Subramaniam et al., 2024): {rivals}",
        "All models were tested on the same held-out samples, by Pearson's correlation "
        "within a fold, averaged over folds",
        "The spread of each difference of correlations (Fisher's z) was that of the "
        f"influence of blocks of {sites['block']} samples, as held-out and as training "
        "samples (Efron and Stein, 1981; Bates et al., 2024), and intervals came from "
        f"{sites['n_resamples']} resamples of such blocks within runs, the same for "
        "every model (Politis and Romano, 1992)",
    ]
    if sites.get("n_bins", 1) > 1:
        sentences.append(_OVER_TIME[str(sites["over_time"])])
    corrected = {
        "bh": "Benjamini and Hochberg, 1995",
        "by": "Benjamini and Yekutieli, 2001",
    }[str(sites["correction"])]
    sentences.append(
        f"The p of a {target} is the largest over its comparisons (Berger and Hsu, "
        f"1996), and the false discovery rate over all of them was held at "
        f"{sites['q']:g} ({corrected})"
    )
    return " ".join(f"{text}." for text in sentences)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: ``"vision, language and audio"``."""
    *first, last = [str(name) for name in names] or [""]
    return f"{', '.join(first)} and {last}" if first else last

"""The flags that ask for sites of multimodal integration."""

import argparse
from pathlib import Path

from neuromm.core.errors import UsageError
from neuromm_pipelines.command_line import add_flag
from neuromm_pipelines.encode_settings import SiteSettings
from neuromm_pipelines.site_protocol import PROTOCOLS, check_flags

__all__ = ["add_sites", "site_settings"]

_SITES = SiteSettings()

# Values that --sloppy lowers the resamples to: to try a command out.
_SLOPPY_RESAMPLES = 100

_OWN_FLAGS = (
    "multimodal", "unimodal", "controls", "n_resamples", "sites_over_time",
    "sites_correction", "sites_block",
)  # fmt: skip


def add_sites(group: argparse._ActionsContainer) -> None:
    """Flags of the map of sites."""
    add_flag(
        group, "--sites", switch=True,
        help="map the targets that a multimodal network predicts better than every "
        "simpler model",
    )  # fmt: skip
    add_flag(
        group, "--protocol", choices=PROTOCOLS,
        help="how sites are decided: neuromm's own way, or as published by Subramaniam "
        "et al. (2024), which is liberal (docs/protocols.md; default: default)",
    )  # fmt: skip
    add_flag(
        group, "--multimodal", metavar="NAME",
        help=f"feature space of the multimodal network (default: {_SITES.multimodal})",
    )  # fmt: skip
    add_flag(
        group, "--unimodal", nargs="+", metavar="NAME",
        help="feature spaces of single modalities (default: all that are neither "
        "multimodal nor controls)",
    )  # fmt: skip
    add_flag(
        group, "--controls", nargs="+", metavar="NAME",
        help="further feature spaces that must be beaten: a random twin, permuted "
        "rows, nuisance features (default: none)",
    )  # fmt: skip
    add_flag(
        group, "--n-resamples", type=int,
        help=f"resamples of blocks of events (default: {_SITES.n_resamples})",
    )  # fmt: skip
    add_flag(
        group, "--sites-over-time", choices=["mean", "max", "cluster"],
        help="what is tested of the time bins of a sensor or contact "
        f"(default: {_SITES.over_time})",
    )  # fmt: skip
    add_flag(
        group, "--sites-correction", choices=["bh", "by"],
        help="false discovery rate over sites: Benjamini-Hochberg, or "
        f"Benjamini-Yekutieli for any dependence (default: {_SITES.correction})",
    )  # fmt: skip
    add_flag(
        group, "--sites-block", type=int, metavar="SAMPLES",
        help="length of the resampled blocks (default: twice the lag at which "
        "responses no longer correlate with themselves)",
    )  # fmt: skip
    add_flag(
        group, "--both-alignments", type=Path, metavar="OTHER_OUTPUT_DIR",
        help="group level: output of the same recordings with events of another kind "
        "(scene cuts beside words); the report counts the sites of both",
    )  # fmt: skip


def site_settings(args: argparse.Namespace) -> SiteSettings | None:
    """`SiteSettings` of parsed flags; None without ``--sites``."""
    check_flags(args)
    given = [name for name in _OWN_FLAGS if getattr(args, name) is not None]
    if not args.sites:
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise UsageError(f"{flag} is of the map of sites: give --sites, too")
        return None
    n_resamples = args.n_resamples or _SITES.n_resamples
    return SiteSettings(
        protocol=args.protocol or _SITES.protocol,
        multimodal=args.multimodal or _SITES.multimodal,
        unimodal=tuple(args.unimodal or ()),
        controls=tuple(args.controls or ()),
        n_resamples=min(n_resamples, _SLOPPY_RESAMPLES) if args.sloppy else n_resamples,
        over_time=args.sites_over_time or _SITES.over_time,
        correction=args.sites_correction or _SITES.correction,
        block=args.sites_block,
    )

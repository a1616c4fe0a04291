"""``--protocol``: the published procedure of Subramaniam et al. (2024) in a command.

It fixes the windows of an epoch and how sites are decided. The scores of encoding stay
those of `neuromm.encoding.encode`, nested and with a gap, so that both stand side by
side.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from neuromm.core.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr

    from neuromm.core import SiteMap
    from neuromm_pipelines.encode_settings import SiteSettings
    from neuromm_pipelines.encode_unit import EncodingUnit

__all__ = [
    "PROTOCOL",
    "PROTOCOLS",
    "check_flags",
    "check_units",
    "epoch_window",
    "follows_protocol",
    "protocol_memory",
    "protocol_sites",
]

PROTOCOL = "subramaniam2024"
PROTOCOLS = ("default", PROTOCOL)

# Windows begin from 2 s before to 2 s after the event: 161 of 200 ms every 25 ms, so
# that the last ends 2.2 s after it.
_WINDOW = {"tmin": -2.0, "tmax": 2.2, "window_ms": 200.0, "step_ms": 25.0}

# What the protocol has its own of; None where any value contradicts it.
_FIXED: dict[str, Any] = {
    **_WINDOW,
    "alphas": None,
    "folds": 5,
    "scoring": "correlation",
    "sites_over_time": None,
    "sites_correction": "bh",
    "sites_block": None,
}
_PROTOCOL_ALPHAS = [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0]


def follows_protocol(args: argparse.Namespace) -> bool:
    """Tell whether parsed flags ask for the published procedure."""
    return bool(args.protocol == PROTOCOL)


def epoch_window(args: argparse.Namespace) -> dict[str, float]:
    """Start and end of the epoch, and length and step of windows, of the protocol."""
    return dict(_WINDOW) if follows_protocol(args) else {}


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that contradict the protocol.

    Raises
    ------
    UsageError
        Names the flag.
    """
    if not follows_protocol(args):
        return
    if not args.sites:
        raise UsageError(f"--protocol {PROTOCOL} decides sites: give --sites, too")
    for name, fixed in _FIXED.items():
        value = getattr(args, name)
        agrees = value == fixed
        if name == "alphas" and value is not None:
            agrees = sorted(value) == _PROTOCOL_ALPHAS
            fixed = "0.1 1 10 100 1000 10000 100000"
        if value is not None and not agrees:
            flag = f"--{name.replace('_', '-')}"
            own = "has no such choice" if fixed is None else f"has {fixed}"
            raise UsageError(
                f"{flag} contradicts --protocol {PROTOCOL}, which {own}: leave {flag} "
                "out, or leave --protocol out to choose by yourself"
            )


def check_units(
    settings: "SiteSettings | None", units: "Sequence[EncodingUnit]"
) -> None:
    """Refuse recordings that have no epochs.

    Raises
    ------
    UsageError
        If the protocol is asked for and a unit is fMRI.
    """
    if settings is None or settings.protocol != PROTOCOL:
        return
    bold = [unit.name for unit in units if unit.datatype == "func"]
    if bold:
        raise UsageError(
            f"--protocol {PROTOCOL} is of epochs around events (EEG, MEG, iEEG), and "
            f"{bold[0]} is fMRI: choose the others (--datatype ieeg), or leave "
            "--protocol out"
        )


def protocol_sites(
    settings: "SiteSettings",
    features: "dict[str, xr.DataArray | dict[str, xr.DataArray]]",
    responses: "xr.DataArray",
    unimodal: Sequence[str],
    seed: int,
) -> "SiteMap":
    """Sites of a unit, or of a part of its targets, by the published procedure."""
    from neuromm.encoding import half_fold_sites

    return half_fold_sites(
        features,
        responses,
        unimodal=unimodal,
        multimodal=settings.multimodal,
        controls=settings.controls,
        n_resamples=settings.n_resamples,
        q=settings.q,
        rng=seed,
    )


def protocol_memory(n_resamples: int, n_samples: int, n_targets: int) -> int:
    """Bytes of the resampled scores of a model, and of the maps of one fit."""
    drawn = 2 * 4 * n_resamples * n_targets
    # Percentiles sort a copy; responses are taken in double precision.
    held = 2 * drawn + 2 * 8 * n_samples * n_targets
    # Maps of five folds and seven penalties, with more features than samples, from half
    # of the samples (those drawn, in training) to an eighth (those drawn, held out).
    maps = 5 * 7 * 8 * n_samples**2 // 16
    return held + 8 * n_resamples * n_samples + maps + 256 * 10**6

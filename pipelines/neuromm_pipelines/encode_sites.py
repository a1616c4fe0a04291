"""Sites of multimodal integration of one unit of ``neuromm encode``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from neuromm.core import SiteMap, UsageError
from neuromm_pipelines.site_protocol import (
    PROTOCOL,
    protocol_memory,
    protocol_sites,
)

if TYPE_CHECKING:
    from neuromm_pipelines.encode import EncodeConfig
    from neuromm_pipelines.encode_unit import Prepared

__all__ = [
    "bins_a_site",
    "check_sites",
    "fit_sites",
    "n_site_models",
    "site_memory",
    "sites_line",
    "unimodal_spaces",
]

# Resampled scores at a time: the arrays that `neuromm.encoding.site_evidence` holds.
_EVIDENCE_BYTES = 4 * 128 * 10**6


def check_sites(config: "EncodeConfig") -> None:
    """Refuse a map of sites that the feature spaces do not allow.

    Raises
    ------
    UsageError
        Names what is missing, before anything is read.
    """
    from neuromm.encoding.site_controls import LINEAR_PART

    settings = config.sites
    if settings is None:
        return
    given = ", ".join(config.features)
    if settings.multimodal not in config.features:
        raise UsageError(
            f"--sites needs the feature space of a multimodal network, and there is no "
            f"'{settings.multimodal}' among {given}. Give it "
            f"(--features {settings.multimodal}=PATH …), or say which one it is "
            "(--multimodal NAME). The unimodal spaces side by side are none: they are "
            "the control that it must beat."
        )
    unimodal = unimodal_spaces(config)
    for flag, names in {
        "--unimodal": unimodal,
        "--controls": settings.controls,
    }.items():
        made = {LINEAR_PART} if flag == "--controls" else set()
        unknown = [name for name in names if name not in {*config.features, *made}]
        if unknown:
            raise UsageError(
                f"{flag} names {', '.join(unknown)}, and the feature spaces are {given}"
            )
    named = [settings.multimodal, *unimodal, *settings.controls]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(twice)} can be only one of multimodal, unimodal and control"
        )
    if len(unimodal) < 2:
        raise UsageError(
            "--sites needs two or more feature spaces of single modalities, such as "
            f"vision and language, and has {', '.join(unimodal) or 'none'}"
        )


def unimodal_spaces(config: "EncodeConfig") -> tuple[str, ...]:
    """Feature spaces of single modalities, in the order of the command line."""
    settings = config.sites
    if settings is None:
        return ()
    if settings.unimodal:
        return settings.unimodal
    others = {settings.multimodal, *settings.controls}
    return tuple(name for name in config.features if name not in others)


def bins_a_site(responses: xr.DataArray) -> int:
    """Time bins of each sensor or contact, which lie side by side; 1 without time.

    Parameters
    ----------
    responses : DataArray, dims (sample, target)
    """
    if "time" not in responses.coords:
        return 1
    return len(np.unique(responses["time"].to_numpy()))


def fit_sites(
    config: "EncodeConfig", prepared: "Prepared", part: slice | None = None
) -> SiteMap | None:
    """Map the sites of a unit; None if none were asked for.

    Folds, penalties and seed are those of the encoding.

    Parameters
    ----------
    config : EncodeConfig
    prepared : Prepared
    part : slice, optional
        These targets alone. Blocks of events follow from all targets, so that the parts
        of a unit can be joined.
    """
    from neuromm.encoding import integration_sites
    from neuromm.encoding.site_blocks import event_block
    from neuromm_pipelines.encode_unit import memory_limit
    from neuromm_pipelines.outer_cv import outer_cv

    settings = config.sites
    if settings is None:
        return None
    responses = prepared.responses.astype(np.float32 if config.low_mem else np.float64)
    if settings.protocol == PROTOCOL:
        if part is not None:
            responses = responses.isel(target=part)
        spaces = unimodal_spaces(config)
        seed = config.model.seed
        return protocol_sites(settings, prepared.spaces, responses, spaces, seed)
    cv = outer_cv(config.model, prepared)
    block = settings.block or event_block(responses, cv)
    timed = bins_a_site(responses) > 1
    if part is not None:
        responses = responses.isel(target=part)
    return integration_sites(
        prepared.spaces,
        responses,
        unimodal=unimodal_spaces(config),
        multimodal=settings.multimodal,
        controls=settings.controls,
        n_resamples=settings.n_resamples,
        block=block,
        q=settings.q,
        rng=config.model.seed,
        alphas=np.asarray(config.model.alphas),
        cv=cv,
        # Where a site has one bin there is nothing to search, and the mean of one bin
        # has the p that is not bounded by the number of resamples.
        over_time=settings.over_time if timed else "mean",
        correction=settings.correction,
        memory_limit=memory_limit(config) if part is None else None,
    )


def sites_line(config: "EncodeConfig", layers: Mapping[str, int] | None = None) -> str:
    """What ``--dry-run`` says of the map of sites; empty without ``--sites``.

    Parameters
    ----------
    config : EncodeConfig
    layers : mapping of str to int, optional
        Feature space to the number of layers that it chooses among, where several.
    """
    settings = config.sites
    if settings is None:
        return ""
    against = ", ".join([*unimodal_spaces(config), *settings.controls])
    if settings.protocol == PROTOCOL:
        return (
            f"{settings.multimodal} against {against} and their concatenation, as "
            f"published ({PROTOCOL}): {n_site_models(config, layers)} fits, all anew "
            f"in each of {settings.n_resamples} resamples"
        )
    return (
        f"{settings.multimodal} against {against} and two linear combinations, "
        f"{settings.n_resamples} resamples"
    )


def n_site_models(
    config: "EncodeConfig", layers: Mapping[str, int] | None = None
) -> int:
    """Models that are fitted for sites; 0 without ``--sites``.

    Under the published protocol each is fitted once more in every resample. Each of
    several ``layers`` of a space (name to number) is a model, where these are given.
    """
    settings = config.sites
    if settings is None:
        return 0
    names = (*unimodal_spaces(config), *settings.controls, settings.multimodal)
    n_models = sum((layers or {}).get(name, 1) for name in names)
    if settings.protocol == PROTOCOL:
        return (n_models + 1) * (1 + settings.n_resamples)
    return n_models + 2


def site_memory(
    config: "EncodeConfig", n_samples: int, n_targets: int, n_candidates: int = 0
) -> int:
    """Bytes that the predictions of all models and their resamples take.

    Parameters
    ----------
    config : EncodeConfig
    n_samples, n_targets : int
        Of the targets that are fitted at a time.
    n_candidates : int
        Layers of all spaces that have several.
    """
    if config.sites is None:
        return 0
    if config.sites.protocol == PROTOCOL:
        return protocol_memory(config.sites.n_resamples, n_samples, n_targets)
    n_models, itemsize = n_site_models(config), 4 if config.low_mem else 8
    # Beside the predictions: responses without missing values, and the held-out ones.
    held = (n_models + 2) * n_samples * n_targets * itemsize
    # The influence of blocks of ten events or more, and of the events of one fit.
    blocks = (n_models + 2 * n_candidates) * n_samples // 10
    held += (blocks + 2 * n_samples) * n_targets * itemsize
    draws = config.sites.n_resamples
    counts = 8 * draws * n_samples
    resampled = min(32 * n_models * draws * n_targets, _EVIDENCE_BYTES)
    return held + counts + resampled

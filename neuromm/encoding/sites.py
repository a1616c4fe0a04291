r"""Sites of multimodal integration: where joint features beat everything simpler.

A target is a site if features of a multimodal network predict it better than features
of each single modality, better than the best linear combination of these, and better
than chance. The claim is a conjunction: it is as strong as its weakest comparison, so
its p is the largest of theirs.

All models are compared on the same held-out events, and uncertainty comes from
resampling blocks of events, the same for every model. Time bins are never resampled:
overlapping ones repeat each other.

References
----------
Subramaniam et al. (2024) Revealing vision-language integration in the brain with
multimodal networks. ICML (the question, and comparisons with unimodal networks).
Berger & Hsu (1996) Bioequivalence trials, intersection-union tests and equivalence
confidence sets. Stat. Sci. 11:283-319 (the conjunction).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import (
    SiteMap,
    TargetSpace,
    UsageError,
    pair_samples,
    response_matrix,
)
from neuromm.encoding.default_folds import outer_folds, run_labels
from neuromm.encoding.memory import parse_memory
from neuromm.encoding.site_blocks import held_out_block, scored_targets
from neuromm.encoding.site_controls import LINEAR_PART, linear_part
from neuromm.encoding.site_decision import Correction, decided
from neuromm.encoding.site_evidence import Evidence, OverTime, site_evidence
from neuromm.encoding.site_models import SiteModels, held_out_predictions
from neuromm.encoding.splitters import run_rows
from neuromm.encoding.training_influence import block_labels
from neuromm.kernels.block_bootstrap import block_counts

__all__ = ["integration_sites"]

Array = NDArray[np.floating]


@dataclass(frozen=True)
class _Layout:
    """Which targets are the time bins of each site, (n_sites, n_times)."""

    columns: NDArray[np.intp]
    coords: pd.DataFrame


def integration_sites(
    features: Mapping[str, Any],
    responses: ArrayLike | xr.DataArray,
    *,
    unimodal: Sequence[str] = ("vision", "language"),
    multimodal: str = "joint",
    controls: Sequence[str] = (),
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
    n_resamples: int = 1000,
    block: int | None = None,
    q: float = 0.05,
    rng: int | np.random.Generator | None = None,
    alphas: ArrayLike | None = None,
    cv: Any = None,
    inner_cv: Any = None,
    over_time: OverTime = "mean",
    correction: Correction = "bh",
    confidence: float = 0.95,
    targets: TargetSpace | None = None,
    memory_limit: int | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SiteMap:
    """Map the targets that joint features predict better than everything simpler.

    Parameters
    ----------
    features : mapping of str to array or DataArray of shape (n_events, n_features)
        Feature spaces, the unimodal ones and the multimodal one among them. A space may
        itself be a mapping of candidates (networks, layers): each target takes the one
        with the best inner score.
    responses : array or DataArray of shape (n_events, n_targets), or 3-D
        An array may have bins of sites, (n_events, n_sites, n_times).
        DataArrays of `response_matrix` are paired with the features by label. Targets
        with a ``time`` coordinate are bins of one site where all others agree.
    unimodal : sequence of str
        Spaces that are combined linearly.
    multimodal : str
    controls : sequence of str
        Further spaces that the multimodal one must beat, each by itself: a random twin
        of its network, its features in another order of events, nuisance features.
        They are no part of the linear combinations. ``"linear-part"`` need not be among
        the features: it is the regression of the multimodal space on the unimodal ones,
        as good as a space that is linear in them and merely points where responses do.
    groups : array of shape (n_events,), optional
        Run (film, session) of each event, for arrays; one run if not given. Runs are
        held out as wholes, and blocks do not leave them.
    times : array of shape (n_times,), optional
        Of the last axis of an array, in s.
    n_resamples : int
    block : int, optional
        Events a block has. By default twice the lag at which responses no longer
        correlate with themselves; at least 10 events and 10 s, at most a quarter of the
        typical run.
    q : float
        Level of the false discovery rate over sites.
    rng : int or numpy.random.Generator, optional
        Of the resamples and the candidates of the banded control. None draws a seed,
        which is kept in ``attrs``.
    alphas : array of shape (n_alphas,), optional
        As for `encode`.
    cv, inner_cv : optional
        As for `encode`.
    over_time : {"mean", "max", "cluster"}
        What is tested of the bins of a site: the mean of the differences, their
        largest, or the largest run of bins above its neighbours. The last two are held
        against their distribution over resamples, so that searching costs.
    correction : {"bh", "by"}
        Benjamini-Hochberg, or Benjamini-Yekutieli for any dependence between sites.
    confidence : float
        Of the interval of the gain.
    targets : TargetSpace, optional
        Handed on to the result.
    memory_limit : int, str or None
        For each ridge fit, as for `RidgeCV`.
    progress : callable, optional
        Called with the number of finished and of all fits.

    Returns
    -------
    sites : SiteMap
        ``score`` is the Pearson correlation of held-out predictions with the responses
        within a fold, averaged over folds (by their size) and over the bins of a site.

    Raises
    ------
    neuromm.core.UsageError
        If a space is missing or an argument is out of range.

    Notes
    -----
    Let z be Fisher's transform of a score. A comparison with competitor c has
    p = 1 - T((z_joint - z_c) / s), with T Student's distribution for the number of
    blocks less that of runs. Competitors are each unimodal space, each control,
    the concatenation of all unimodal features, and a banded ridge over them; chance is
    a competitor with z = 0. s**2 is the mean of the variances, over blocks, of the
    influence of held-out events and of that of all events, training ones included
    (docs/decisions/0008). The interval of ``gain`` is the basic bootstrap interval of
    the smallest difference, with resamples spread to s.
    """
    _check_spaces(features, unimodal, multimodal, controls)
    _check(n_resamples, q, confidence, over_time)
    labelled, layout = _labelled(responses, groups, times)
    seed = _seed(rng)
    generator = np.random.default_rng(seed)
    spaces = _spaces(features, (*unimodal, multimodal, *controls), labelled)
    if LINEAR_PART in controls and LINEAR_PART not in spaces:
        both = [one for name in unimodal for one in spaces[name].values()]
        spaces[LINEAR_PART] = {
            name: linear_part(both, one) for name, one in spaces[multimodal].items()
        }
    models = SiteModels(
        spaces=spaces,
        unimodal=tuple(unimodal),
        multimodal=multimodal,
        controls=tuple(controls),
    )
    folds, description = outer_folds(labelled, cv)
    n_fits = len(folds) * len(models.names)
    grid = _alphas(alphas, len(labelled))
    valid = scored_targets(labelled.to_numpy())
    cleaned = labelled.copy(data=np.where(valid, labelled.to_numpy(), 0.0))
    held = np.sort(np.concatenate([test for _, test in folds]))
    rows = run_rows(run_labels(labelled)[held])
    y = cleaned.to_numpy()[held]
    length = block or held_out_block(labelled, y[:, valid], rows)
    labels, of_run = block_labels(run_rows(run_labels(labelled)), len(labelled), length)
    predictions, influence = held_out_predictions(
        models,
        cleaned,
        folds,
        alphas=grid,
        inner_cv=inner_cv,
        memory_limit=parse_memory(memory_limit),
        rng=generator,
        tick=_ticker(progress, n_fits),
        blocks=labels,
    )
    counts = block_counts(rows, len(held), length, n_resamples, generator)
    evidence = site_evidence(
        y,
        _of_events(predictions, held),
        counts,
        layout.columns,
        over_time,
        confidence,
        folds=[np.searchsorted(held, test) for _, test in folds],
        influence=influence,
        blocks=labels[held],
        of_run=of_run,
    )
    return _site_map(
        evidence,
        models,
        layout,
        np.asarray(valid[layout.columns].all(axis=1)),
        targets=targets,
        attrs={
            "multimodal": multimodal,
            "unimodal": list(unimodal),
            "controls": list(controls),
            "cv": description,
            "block": int(length),
            "n_resamples": int(n_resamples),
            "n_events": len(held),
            "n_bins": int(layout.columns.shape[1]),
            "q": q,
            "correction": correction,
            "over_time": over_time,
            "confidence": confidence,
            "seed": seed,
            "alphas": [float(alpha) for alpha in grid],
        },
    )


def _check_spaces(
    features: Mapping[str, Any],
    unimodal: Sequence[str],
    multimodal: str,
    controls: Sequence[str],
) -> None:
    if isinstance(unimodal, str) or len(unimodal) < 2 or multimodal in unimodal:
        raise UsageError(
            "unimodal must name two or more spaces, and multimodal another one, got "
            f"{unimodal!r} and {multimodal!r}"
        )
    names = (*unimodal, multimodal, *controls)
    if isinstance(controls, str) or len(set(names)) < len(names):
        raise UsageError(
            "controls must name spaces that are neither unimodal nor the multimodal "
            f"one, each once, got {controls!r}"
        )
    missing = [name for name in names if name not in features and name != LINEAR_PART]
    if missing:
        raise UsageError(
            f"features has no space {', '.join(missing)} (it has: "
            f"{', '.join(features)}). The multimodal space holds the features of a "
            "network that was trained on both modalities, not their concatenation."
        )
    reserved = {"concatenation", "banded", "linear", "chance"} & set(names)
    if reserved:
        raise UsageError(f"a space cannot be called {', '.join(sorted(reserved))}")


def _check(n_resamples: int, q: float, confidence: float, over_time: str) -> None:
    if n_resamples < 100:
        raise UsageError(f"n_resamples must be 100 or more, got {n_resamples}")
    if not 0 < q < 1 or not 0 < confidence < 1:
        raise UsageError("q and confidence must lie between 0 and 1")
    if over_time not in ("mean", "max", "cluster"):
        raise UsageError(
            f"over_time must be 'mean', 'max' or 'cluster', got {over_time!r}"
        )


def _labelled(
    responses: ArrayLike | xr.DataArray,
    groups: ArrayLike | None,
    times: ArrayLike | None,
) -> tuple[xr.DataArray, _Layout]:
    """Responses with labels of events, and the layout of sites and bins."""
    if isinstance(responses, xr.DataArray):
        if groups is not None or times is not None:
            raise UsageError(
                "groups and times are coordinates of a DataArray (run, time); give "
                "them only with an array"
            )
        labelled = responses.transpose("sample", "target")
        return labelled.astype(_precision(labelled.dtype)), _layout(labelled)
    values = np.asarray(responses)
    values = values.astype(_precision(values.dtype), copy=False)
    if values.ndim not in (2, 3) or (times is not None and values.ndim == 2):
        raise UsageError(
            "responses must have shape (n_events, n_targets), or (n_events, n_sites, "
            f"n_times) with times, got {values.shape}"
        )
    n_events, n_sites = values.shape[:2]
    sites = pd.DataFrame({"target": [f"target{i:04d}" for i in range(n_sites)]})
    if values.ndim == 3:
        n_times = values.shape[2]
        bins = np.arange(n_times) if times is None else np.asarray(times, dtype=float)
        if len(bins) != n_times:
            raise UsageError(f"times has {len(bins)} values for {n_times} bins")
        sites = sites.rename(columns={"target": "site"})
        sites = sites.loc[np.repeat(np.arange(n_sites), n_times)].reset_index(drop=True)
        sites["time"] = np.tile(bins, n_sites)
        sites["target"] = [
            f"{one}@{at:g}"
            for one, at in zip(sites["site"], sites["time"], strict=True)
        ]
    labels = np.zeros(n_events, dtype=int) if groups is None else np.asarray(groups)
    labelled = response_matrix(
        values.reshape(n_events, -1),
        onset=_onsets(labels),
        run=[str(label) for label in labels],
        targets=sites,
    )
    return labelled, _layout(labelled)


def _layout(labelled: xr.DataArray) -> _Layout:
    coords = pd.DataFrame(
        {
            str(name): coord.to_numpy()
            for name, coord in labelled.coords.items()
            if coord.dims == ("target",)
        }
    )
    n_targets = labelled.sizes["target"]
    if "time" not in coords or coords["time"].isna().all():
        columns = np.arange(n_targets)[:, None]
        return _Layout(columns, coords.rename(columns={"target": "site"}))
    keys = coords.drop(columns=["target", "time"])
    if keys.empty or not len(keys.columns):
        keys = pd.DataFrame({"site": np.zeros(n_targets, dtype=int)})
    codes = keys.astype(str).agg("|".join, axis=1)
    order = pd.factorize(codes)[0]
    groups = [np.flatnonzero(order == number) for number in range(order.max() + 1)]
    if len({len(group) for group in groups}) != 1:
        raise UsageError("every site must have the same time bins")
    columns = np.stack(
        [group[np.argsort(coords["time"].to_numpy()[group])] for group in groups]
    )
    first = keys.iloc[columns[:, 0]].reset_index(drop=True)
    if "site" not in first:
        alone = first.columns[0] if len(first.columns) == 1 else None
        name = "channel" if "channel" in first and first["channel"].is_unique else alone
        first["site"] = first[name] if name else codes.iloc[columns[:, 0]].to_numpy()
    return _Layout(columns, first)


def _site_map(
    evidence: Evidence,
    models: SiteModels,
    layout: _Layout,
    valid: NDArray[np.bool_],
    *,
    targets: TargetSpace | None,
    attrs: Mapping[str, Any],
) -> SiteMap:
    names = list(models.names)
    score = np.concatenate([evidence.score, evidence.score[-2:].max(axis=0)[None]])
    competitor = np.array(names, dtype=object)[evidence.best]
    data = xr.Dataset(
        {
            "score": (("model", "site"), np.where(valid, score, np.nan)),
            "p_comparison": (
                ("comparison", "site"),
                np.where(valid, evidence.p, np.nan),
            ),
            "gain": ("site", np.where(valid, evidence.gain, np.nan)),
            "ci_low": ("site", np.where(valid, evidence.interval[0], np.nan)),
            "ci_high": ("site", np.where(valid, evidence.interval[1], np.nan)),
            "competitor": ("site", np.where(valid, competitor, "")),
        },
        coords={
            "model": [*names, "linear"],
            "comparison": [*names[1:], "chance"],
            **{
                str(name): ("site", layout.coords[name].to_numpy())
                for name in layout.coords
            },
        },
    )
    order = [*models.unimodal, models.multimodal, "linear", "concatenation", "banded"]
    data = data.sel(model=[*order, *models.controls])
    return SiteMap(
        evidence=decided(data, attrs["q"], attrs["correction"]),
        targets=targets,
        attrs=dict(attrs),
    )


def _of_events(predictions: Array, events: NDArray[np.intp]) -> Array:
    """Predictions of these events; not copied where that is all of them."""
    if len(events) == predictions.shape[1]:
        return predictions
    return predictions[:, events]


def _spaces(
    features: Mapping[str, Any], names: Sequence[str], labelled: xr.DataArray
) -> dict[str, dict[str, Array]]:
    spaces = {}
    for name in names:
        if name == LINEAR_PART and name not in features:
            continue
        space = features[name]
        candidates = space if isinstance(space, Mapping) else {name: space}
        spaces[name] = {
            str(key): _matrix(f"{name}/{key}", one, labelled)
            for key, one in candidates.items()
        }
    return spaces


def _matrix(name: str, values: Any, labelled: xr.DataArray) -> Array:
    if isinstance(values, xr.DataArray):
        paired, _ = pair_samples(values.transpose("sample", "feature"), labelled)
        values = paired.to_numpy()
    x = np.asarray(values)
    x = x.astype(_precision(x.dtype), copy=False)
    if x.ndim != 2 or len(x) != labelled.sizes["sample"]:
        raise UsageError(
            f"the features {name!r} must have one row an event, "
            f"({labelled.sizes['sample']}, n_features), got shape {x.shape}"
        )
    if not np.isfinite(x).all():
        raise UsageError(f"the features {name!r} hold missing or infinite values")
    return x


def _alphas(alphas: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    if alphas is None:
        return np.asarray(np.geomspace(1e-4, 1e5, 19) * n_samples)
    return np.atleast_1d(np.asarray(alphas, dtype=np.float64))


def _precision(dtype: Any) -> Any:
    return dtype if dtype in (np.float32, np.float64) else np.float64


def _onsets(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Place of each event in its run: one event a second."""
    onset = np.zeros(len(labels))
    for rows in run_rows(labels):
        onset[rows] = np.arange(len(rows))
    return onset


def _seed(rng: int | np.random.Generator | None) -> int:
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if rng is None:
        return int(np.random.default_rng().integers(2**63))
    return int(rng)


def _ticker(
    progress: Callable[[int, int], None] | None, total: int
) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick

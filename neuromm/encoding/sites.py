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
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import (
    SiteMap,
    TargetSpace,
    UsageError,
)
from neuromm.encoding.default_folds import outer_folds, run_labels
from neuromm.encoding.fit_progress import drawn_seed, ticker
from neuromm.encoding.memory import parse_memory
from neuromm.encoding.site_blocks import held_out_block, scored_targets
from neuromm.encoding.site_controls import LINEAR_PART, linear_part
from neuromm.encoding.site_decision import Correction, decided
from neuromm.encoding.site_evidence import Evidence, OverTime, site_evidence
from neuromm.encoding.site_inputs import (
    SiteLayout,
    candidate_spaces,
    check_spaces,
    labelled_responses,
)
from neuromm.encoding.site_models import SiteModels, held_out_predictions
from neuromm.encoding.splitters import Split, run_rows
from neuromm.encoding.training_influence import block_labels
from neuromm.kernels.block_bootstrap import block_counts

__all__ = ["integration_sites"]

Array = NDArray[np.floating]


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
        Where a site has several, ``evidence`` holds ``score_course`` as well, the score
        in each: (model, time, site).

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
    the smallest difference, with resamples spread to s. Where folds take different
    candidates of a space, s**2 is the mean over folds of what it would be if the
    candidate of the fold were taken in all of them.
    """
    check_spaces(features, unimodal, multimodal, controls)
    _check(n_resamples, q, confidence, over_time)
    labelled, layout = labelled_responses(responses, groups, times)
    seed = drawn_seed(rng)
    generator = np.random.default_rng(seed)
    models = _models(features, labelled, unimodal, multimodal, controls)
    folds, description = outer_folds(labelled, cv)
    n_fits = len(folds) * len(models.names)
    grid = _alphas(alphas, len(labelled))
    valid = scored_targets(labelled.to_numpy())
    cleaned = labelled.copy(data=np.where(valid, labelled.to_numpy(), 0.0))
    held = _held_out(cleaned, valid, folds, block)
    held_models = held_out_predictions(
        models,
        cleaned,
        folds,
        alphas=grid,
        inner_cv=inner_cv,
        memory_limit=parse_memory(memory_limit),
        rng=generator,
        tick=ticker(progress, n_fits),
        blocks=held.labels,
    )
    evidence = site_evidence(
        held.responses,
        _of_events(held_models.predictions, held.events),
        block_counts(held.runs, len(held.events), held.length, n_resamples, generator),
        layout.columns,
        over_time,
        confidence,
        folds=[np.searchsorted(held.events, test) for _, test in folds],
        influence=held_models.influence,
        blocks=held.labels[held.events],
        of_run=held.of_run,
        chosen=held_models.chosen,
    )
    return _site_map(
        evidence,
        models,
        layout,
        np.asarray(valid[layout.columns].all(axis=1)),
        targets=targets,
        attrs={
            **_named(models),
            "cv": description,
            "block": held.length,
            "n_resamples": int(n_resamples),
            "n_events": len(held.events),
            "n_bins": int(layout.columns.shape[1]),
            "q": q,
            "correction": correction,
            "over_time": over_time,
            "confidence": confidence,
            "seed": seed,
            "alphas": [float(alpha) for alpha in grid],
        },
    )


@dataclass(frozen=True)
class _HeldOut:
    """Events that are predicted, and the blocks in which they are resampled.

    Attributes
    ----------
    events : array of int of shape (n_held,)
        In order.
    responses : array of shape (n_held, n_targets)
    runs : list of arrays of int
        Places of each run among the events that are held out.
    length : int
        Events of a block.
    labels : array of int of shape (n_events,)
        Block of every event, held out or not.
    of_run : array of int of shape (n_blocks,)
        Run of each block.
    """

    events: NDArray[np.intp]
    responses: Array
    runs: list[NDArray[np.intp]]
    length: int
    labels: NDArray[np.intp]
    of_run: NDArray[np.intp]


def _held_out(
    responses: xr.DataArray,
    valid: NDArray[np.bool_],
    folds: Sequence[Split],
    block: int | None,
) -> _HeldOut:
    """Held-out events of all folds, in blocks as long as responses remember."""
    events = np.sort(np.concatenate([test for _, test in folds]))
    labels = run_labels(responses)
    runs = run_rows(labels[events])
    y = responses.to_numpy()[events]
    length = int(block or held_out_block(responses, y[:, valid], runs))
    blocks, of_run = block_labels(run_rows(labels), len(responses), length)
    return _HeldOut(events, y, runs, length, blocks, of_run)


def _named(models: SiteModels) -> dict[str, Any]:
    """Names of the spaces that were compared."""
    return {
        "multimodal": models.multimodal,
        "unimodal": list(models.unimodal),
        "controls": list(models.controls),
    }


def _models(
    features: Mapping[str, Any],
    labelled: xr.DataArray,
    unimodal: Sequence[str],
    multimodal: str,
    controls: Sequence[str],
) -> SiteModels:
    """Spaces paired with the events, and the control that is made of them."""
    spaces = candidate_spaces(features, (*unimodal, multimodal, *controls), labelled)
    if LINEAR_PART in controls and LINEAR_PART not in spaces:
        both = [one for name in unimodal for one in spaces[name].values()]
        spaces[LINEAR_PART] = {
            name: linear_part(both, one) for name, one in spaces[multimodal].items()
        }
    return SiteModels(
        spaces=spaces,
        unimodal=tuple(unimodal),
        multimodal=multimodal,
        controls=tuple(controls),
    )


def _check(n_resamples: int, q: float, confidence: float, over_time: str) -> None:
    if n_resamples < 100:
        raise UsageError(f"n_resamples must be 100 or more, got {n_resamples}")
    if not 0 < q < 1 or not 0 < confidence < 1:
        raise UsageError("q and confidence must lie between 0 and 1")
    if over_time not in ("mean", "max", "cluster"):
        raise UsageError(
            f"over_time must be 'mean', 'max' or 'cluster', got {over_time!r}"
        )


def _site_map(
    evidence: Evidence,
    models: SiteModels,
    layout: SiteLayout,
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
    if layout.times is not None and len(layout.times) > 1:
        data = _with_course(data, evidence, layout.times, valid)
    order = [*models.unimodal, models.multimodal, "linear", "concatenation", "banded"]
    data = data.sel(model=[*order, *models.controls])
    return SiteMap(
        evidence=decided(data, attrs["q"], attrs["correction"]),
        targets=targets,
        attrs=dict(attrs),
    )


def _with_course(
    data: xr.Dataset,
    evidence: Evidence,
    times: NDArray[np.float64],
    valid: NDArray[np.bool_],
) -> xr.Dataset:
    """Add the score in each bin; ``linear`` is the control stronger on average."""
    stronger = evidence.score[-2:].argmax(axis=0)
    linear = np.where(stronger == 0, evidence.course[-2], evidence.course[-1])
    course = np.concatenate([evidence.course, linear[None]])
    return data.assign_coords(time=times).assign(
        score_course=(("model", "time", "site"), np.where(valid, course, np.nan))
    )


def _of_events(predictions: Array, events: NDArray[np.intp]) -> Array:
    """Predictions of these events; not copied where that is all of them."""
    if len(events) == predictions.shape[1]:
        return predictions
    return predictions[:, events]


def _alphas(alphas: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    if alphas is None:
        return np.asarray(np.geomspace(1e-4, 1e5, 19) * n_samples)
    return np.atleast_1d(np.asarray(alphas, dtype=np.float64))

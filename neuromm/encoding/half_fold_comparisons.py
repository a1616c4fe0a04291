"""Sites of multimodal integration as published by Subramaniam et al. (2024).

For comparison with published numbers. It is liberal, and `integration_sites` is the
test to claim a site by:

- the p of a comparison comes from resampled time bins. Windows of 200 ms every 25 ms
  overlap eightfold and are no replicates: a nominal 5 % rejects 48 % where two models
  are equally good;
- bins are kept because both models predict them, and the best unimodal model is chosen
  by the scores that are compared;
- there is no gap between training and held-out events, whose epochs overlap;
- the linear control is one penalty over both spaces, weak where their scales differ.

References
----------
Subramaniam V et al. (2024) Revealing vision-language integration in the brain with
multimodal networks. ICML 2024, arXiv:2406.14481.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import SiteMap, TargetSpace, UsageError
from neuromm.encoding.fit_progress import drawn_seed, ticker
from neuromm.encoding.half_fold_protocol import (
    PROTOCOL_ALPHAS,
    HalfFoldScores,
    ResampledScores,
    half_fold_scores,
    resampled_scores,
    sorted_resamples,
)
from neuromm.encoding.site_controls import LINEAR_PART
from neuromm.encoding.site_decision import decided
from neuromm.encoding.site_inputs import (
    SiteLayout,
    candidate_spaces,
    check_spaces,
    labelled_responses,
)

__all__ = ["PROTOCOL", "half_fold_sites"]

Array = NDArray[np.float64]

PROTOCOL = "subramaniam2024"

CONCATENATION = "concatenation"
BEST_UNIMODAL = "unimodal"

# Comparisons that make a site; those with controls are told beside them.
FAMILIES = (BEST_UNIMODAL, CONCATENATION)


@dataclass(frozen=True)
class _BinDraws:
    """Resamples of the bins of a site, as published: bins taken for replicates."""

    min_bins: int
    n_resamples: int
    seed: int
    confidence: float

    def of_mean(self, difference: Array) -> tuple[float, float, float, float]:
        """Mean, its interval, and one-sided p."""
        n_bins = len(difference)
        # Draws hang on the number of bins alone: parts of the targets get the same.
        generator = np.random.default_rng([self.seed, n_bins])
        drawn = generator.integers(n_bins, size=(self.n_resamples, n_bins))
        means = difference[drawn].mean(axis=1)
        tail = 50 * (1 - self.confidence)
        low, high = np.percentile(means, [tail, 100 - tail])
        p = (1 + int((means <= 0).sum())) / (1 + self.n_resamples)
        return float(difference.mean()), float(low), float(high), p


def half_fold_sites(
    features: Mapping[str, Any],
    responses: ArrayLike | xr.DataArray,
    *,
    unimodal: Sequence[str] = ("vision", "language"),
    multimodal: str = "joint",
    controls: Sequence[str] = (),
    times: ArrayLike | None = None,
    n_resamples: int = 1000,
    min_bins: int = 10,
    q: float = 0.05,
    rng: int | np.random.Generator | None = None,
    alphas: ArrayLike | None = None,
    n_folds: int = 5,
    confidence: float = 0.95,
    targets: TargetSpace | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SiteMap:
    """Map sites by the published procedure: liberal, for comparison with it.

    Parameters
    ----------
    features : mapping of str to array or DataArray of shape (n_events, n_features)
        As for `integration_sites`; of the candidates of a space (layers, networks) each
        target takes the one with the best validation score.
    responses : array or DataArray
        As for `integration_sites`, (n_events, n_sites, n_times) as an array; events in
        the order of time.
    unimodal, multimodal, controls, times, q, targets
        As for `integration_sites`. The random twin of the network is a control, and is
        compared by itself: it decides no site.
    n_resamples : int
        Resamples of events, each fitted again; and of bins.
    min_bins : int
        Bins of a site that both compared models must predict.
    rng : int or numpy.random.Generator, optional
        An integer gives parts of the targets the resamples of all.
    alphas : array of shape (n_alphas,), optional
        Seven from 0.1 to 1e5 if not given.
    n_folds : int
    confidence : float
        Of all intervals.
    progress : callable, optional
        Called with the number of finished and of all models.

    Returns
    -------
    sites : SiteMap
        ``is_site``: the multimodal model beats the best unimodal one (highest score)
        and the concatenation of all, each with ``q_<comparison>`` at most ``q``. Scores
        are means, over the bins that a model predicts, of its mean test score over
        resamples; nan where these are fewer than ``min_bins``. ``n_bins_<model>``
        counts them. Where one of two compared models has too few, the other wins by
        default: ``default_<comparison>`` names it, and ``by_default`` marks targets
        that would be sites if that counted as a test. They are no sites.
        On (model, site, time) ``evidence`` has ``validation`` and ``test`` (all events)
        with their resampled ``…_mean``, ``…_low`` and ``…_high``, and ``alpha``;
        ``score_course`` is ``test_mean`` with that of the best unimodal model.

    Raises
    ------
    neuromm.core.UsageError
        If a space is missing, an argument is out of range, or there are too few events
        or bins.

    Notes
    -----
    A model predicts a bin if the lower end of its resampled validation score is above
    0. A comparison takes the bins that both models predict, resamples them, and has
    p = (1 + resamples in which the mean difference is not positive) / (1 +
    n_resamples). ``gain`` with its interval is that of the smallest difference.
    """
    check_spaces(features, unimodal, multimodal, controls)
    _check(n_resamples, min_bins, q, confidence, (*unimodal, multimodal, *controls))
    labelled, layout = labelled_responses(responses, None, times)
    if layout.columns.shape[1] < min_bins:
        raise UsageError(
            f"the protocol compares {min_bins} time bins of a site or more, and there "
            f"are {layout.columns.shape[1]}: give responses with times (161 bins in "
            "the paper), or lower min_bins"
        )
    seed = drawn_seed(rng)
    y = labelled.to_numpy()
    spaces = candidate_spaces(features, (*unimodal, multimodal, *controls), labelled)
    both = [one for name in unimodal for one in spaces[name].values()]
    spaces[CONCATENATION] = {CONCATENATION: np.concatenate(both, axis=1)}
    resamples = sorted_resamples(len(y), n_resamples, seed)
    grid = PROTOCOL_ALPHAS if alphas is None else np.sort(np.atleast_1d(alphas))
    tick = ticker(progress, sum(map(len, spaces.values())))
    scores = {}
    for name, candidates in spaces.items():
        scores[name] = _best_candidate(
            candidates, y, resamples, grid, n_folds, confidence, tick
        )
    bins = _binned(scores, layout)
    bins["time"] = labelled["time"].to_numpy()[layout.columns[0]]
    draws = _BinDraws(min_bins, n_resamples, seed, confidence)
    evidence = _evidence(bins, unimodal, multimodal, controls, draws)
    names = {
        str(name): ("site", layout.coords[name].to_numpy()) for name in layout.coords
    }
    return SiteMap(
        evidence=decided(evidence.assign_coords(names), q, "bh", families=FAMILIES),
        targets=targets,
        attrs={
            "protocol": PROTOCOL,
            "multimodal": multimodal,
            "unimodal": list(unimodal),
            "controls": list(controls),
            "cv": f"{n_folds} contiguous folds, half validation and half test, no gap",
            "block": 1,
            "n_resamples": int(n_resamples),
            "n_events": len(y),
            "n_bins": int(layout.columns.shape[1]),
            "min_bins": int(min_bins),
            "q": q,
            "correction": "bh",
            "over_time": "mean",
            "families": list(FAMILIES),
            "confidence": confidence,
            "seed": seed,
            "alphas": [float(alpha) for alpha in grid],
        },
    )


def _check(
    n_resamples: int, min_bins: int, q: float, confidence: float, names: Sequence[str]
) -> None:
    if n_resamples < 100:
        raise UsageError(f"n_resamples must be 100 or more, got {n_resamples}")
    if min_bins < 2:
        raise UsageError(f"min_bins must be 2 or more, got {min_bins}")
    if not 0 < q < 1 or not 0 < confidence < 1:
        raise UsageError("q and confidence must lie between 0 and 1")
    for name in (BEST_UNIMODAL, LINEAR_PART):
        if name in names:
            raise UsageError(f"a space of the protocol cannot be called {name}")


def _best_candidate(
    candidates: Mapping[str, NDArray[np.floating]],
    y: NDArray[np.floating],
    resamples: NDArray[np.intp],
    grid: Array,
    n_folds: int,
    confidence: float,
    tick: Callable[[], None],
) -> tuple[HalfFoldScores, ResampledScores]:
    """Scores of the candidate with the best validation score, per target."""
    found: tuple[HalfFoldScores, ResampledScores] | None = None
    for x in candidates.values():
        plain = half_fold_scores(x, y, alphas=grid, n_folds=n_folds)
        drawn = resampled_scores(
            x, y, resamples, alphas=grid, n_folds=n_folds, confidence=confidence
        )
        tick()
        if found is not None:
            better = plain.validation > found[0].validation
            plain = HalfFoldScores(
                validation=np.where(better, plain.validation, found[0].validation),
                test=np.where(better, plain.test, found[0].test),
                alphas=np.where(better, plain.alphas, found[0].alphas),
            )
            drawn = ResampledScores(
                validation=np.where(better, drawn.validation, found[1].validation),
                test=np.where(better, drawn.test, found[1].test),
            )
        found = plain, drawn
    if found is None:
        raise UsageError("a space has no candidate")
    return found


def _binned(
    scores: Mapping[str, tuple[HalfFoldScores, ResampledScores]], layout: SiteLayout
) -> xr.Dataset:
    """Scores of every model in every bin, on (model, site, time)."""
    values: dict[str, list[Array]] = {}
    for plain, drawn in scores.values():
        one = {
            "validation": plain.validation,
            "test": plain.test,
            "alpha": plain.alphas,
        }
        for kind, found in (("validation", drawn.validation), ("test", drawn.test)):
            one |= {f"{kind}_mean": found[0], f"{kind}_low": found[1]}
            one[f"{kind}_high"] = found[2]
        for name, array in one.items():
            values.setdefault(name, []).append(array[layout.columns])
    return xr.Dataset(
        {name: (("model", "site", "time"), np.stack(v)) for name, v in values.items()},
        coords={"model": list(scores)},
    )


def _evidence(
    bins: xr.Dataset,
    unimodal: Sequence[str],
    multimodal: str,
    controls: Sequence[str],
    draws: _BinDraws,
) -> xr.Dataset:
    """Comparisons at every site, from the bins that both models predict."""
    survives = (bins["validation_low"] > 0).to_numpy()
    test = bins["test_mean"].to_numpy()
    models = [str(name) for name in bins["model"].to_numpy()]
    n_bins = survives.sum(axis=2)
    total = np.where(survives, test, 0.0).sum(axis=2)
    score = np.where(n_bins >= draws.min_bins, total / np.maximum(n_bins, 1), np.nan)
    own = models.index(multimodal)
    alone = [models.index(name) for name in unimodal]
    best = np.where(np.isnan(score[alone]), -np.inf, score[alone]).argmax(axis=0)
    rivals = {BEST_UNIMODAL: np.array(alone)[best]}
    for name in (CONCATENATION, *controls):
        rivals[name] = np.full(len(best), models.index(name))
    parts = [
        _compared(test, survives, score, own, rival, draws) for rival in rivals.values()
    ]
    joined = pd.concat(parts, keys=list(rivals), names=["comparison", "site"])
    wide = {name: joined[name].unstack("site").loc[list(rivals)] for name in joined}
    gains = wide["gain"].loc[list(FAMILIES)].to_numpy()
    weakest = np.where(np.isnan(gains), np.inf, gains).argmin(axis=0)
    untested = np.isnan(gains).any(axis=0)
    columns = np.arange(gains.shape[1])
    named = np.array(models, dtype=object)
    chosen = named[np.stack(list(rivals.values()))[weakest, columns]]
    at_weakest = {
        name: (
            "site",
            np.where(untested, np.nan, wide[name].to_numpy()[weakest, columns]),
        )
        for name in ("gain", "ci_low", "ci_high")
    }
    told = {
        f"n_bins_{name}": ("site", n) for name, n in zip(models, n_bins, strict=True)
    }
    scored = np.concatenate([score, score[rivals[BEST_UNIMODAL], columns][None]])
    course = np.concatenate([test, test[rivals[BEST_UNIMODAL], columns][None]])
    evidence = xr.Dataset(
        {
            "score_course": (("model", "site", "time"), course),
            "score": (("model", "site"), scored),
            "p_comparison": (("comparison", "site"), wide["p"].to_numpy()),
            **at_weakest,
            "competitor": ("site", np.where(untested, "", chosen)),
        },
        coords={
            "model": [*models, BEST_UNIMODAL],
            "comparison": list(rivals),
            **told,
            **_defaults(rivals, score, own, named),
        },
        attrs={"multimodal": multimodal},
    )
    evidence = evidence.merge(bins, join="outer", compat="no_conflicts")
    order = [*unimodal, BEST_UNIMODAL, multimodal, CONCATENATION, *controls]
    return evidence.sel(model=order)


def _defaults(
    rivals: Mapping[str, NDArray[np.intp]],
    score: Array,
    own: int,
    named: NDArray[np.object_],
) -> dict[str, tuple[str, NDArray[np.object_]]]:
    """Name of the only model of a pair that predicts enough bins; else "n/a"."""
    columns = np.arange(score.shape[1])
    mine = ~np.isnan(score[own])
    found = {}
    for name, rival in rivals.items():
        theirs = ~np.isnan(score[rival, columns])
        winner = np.full(len(columns), "n/a", dtype=object)
        winner[mine & ~theirs] = named[own]
        winner[theirs & ~mine] = named[rival][theirs & ~mine]
        found[f"default_{name}"] = ("site", winner)
    return found


def _compared(
    test: Array,
    survives: NDArray[np.bool_],
    score: Array,
    own: int,
    rival: NDArray[np.intp],
    draws: _BinDraws,
) -> pd.DataFrame:
    """Gain with its interval, and p, of one model over another at each site."""
    rows = []
    for site, other in enumerate(rival):
        both = survives[own, site] & survives[other, site]
        tested = not np.isnan(score[own, site] + score[other, site])
        if tested and both.sum() >= draws.min_bins:
            difference = test[own, site, both] - test[other, site, both]
            rows.append(draws.of_mean(difference))
        else:
            rows.append((np.nan,) * 4)
    return pd.DataFrame(rows, columns=["gain", "ci_low", "ci_high", "p"], dtype=float)

"""Encoding of one subject: nested cross-validation, scores, significance.

For each feature space, each outer fold is held out once; penalties are chosen on the
rest by an inner cross-validation; held-out predictions are scored. Whatever is learnt
(means and scales of features, penalties, weights, which of several layers is taken)
comes from training samples alone.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import (
    DataError,
    EncodingResult,
    TargetSpace,
    UsageError,
    pair_samples,
)
from neuromm.encoding.candidate_choice import CandidateChoice
from neuromm.encoding.ceilings import noise_ceiling
from neuromm.encoding.default_folds import (
    default_block,
    inner_splits,
    outer_folds,
    run_labels,
)
from neuromm.encoding.feature_scaling import training_scaler
from neuromm.encoding.fit_progress import drawn_seed, ticker
from neuromm.encoding.memory import parse_memory
from neuromm.encoding.permutation import check_blocks, permutation_test
from neuromm.encoding.ridge_fit import RidgeFit, edge_shares, fit_ridge
from neuromm.encoding.splitters import Split
from neuromm.kernels import Moments, is_constant
from neuromm.kernels.arrays import Backend, on_device
from neuromm.kernels.ridge_modes import Scoring

__all__ = ["encode"]

logger = logging.getLogger(__name__)

Array = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all feature spaces of one call share."""

    responses: xr.DataArray
    y: Array
    valid: NDArray[np.bool_]
    ceiling: NDArray[np.floating] | None
    folds: list[Split]
    description: str
    inner_cv: Any
    alphas: NDArray[np.float64]
    scoring: Scoring
    standardize: bool
    memory_limit: int | None
    n_permutations: int
    block: int
    seed: int
    keep_weights: bool
    keep_predictions: bool
    backend: Backend
    device: str | None
    targets: TargetSpace | None
    tick: Callable[[], None]


@dataclass
class _Tally:
    """What is gathered over the outer folds of one feature space."""

    r: list[NDArray[np.float64]] = field(default_factory=list)
    r2: list[NDArray[np.float64]] = field(default_factory=list)
    alpha: list[NDArray[np.float64]] = field(default_factory=list)
    candidate: list[NDArray[np.intp]] = field(default_factory=list)
    forms: set[str] = field(default_factory=set)
    pooled: Moments | None = None
    predictions: Array | None = None


def encode(
    features: xr.DataArray | Mapping[str, xr.DataArray | Mapping[str, xr.DataArray]],
    responses: xr.DataArray,
    *,
    targets: TargetSpace | None = None,
    cv: Any = None,
    inner_cv: Any = None,
    alphas: ArrayLike | None = None,
    scoring: Literal["r2", "correlation", "mse"] = "r2",
    n_permutations: int = 0,
    block: int | None = None,
    joint: bool = True,
    keep_weights: bool = False,
    keep_predictions: bool = False,
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    progress: Callable[[int, int], None] | None = None,
    standardize: bool = True,
    backend: Backend = "numpy",
    device: str | None = None,
) -> dict[str, EncodingResult]:
    """Predict each target from each feature space and score held-out samples.

    Parameters
    ----------
    features : DataArray or mapping of str to DataArray, dims (sample, feature)
        Paired with the responses by subject, run and onset. A space may itself be a
        mapping of candidates (layers, networks): in each outer fold, each target takes
        the one with the best inner score, which no held-out sample takes part in.
    responses : DataArray, dims ([repeat,] sample, target)
        Repeats are averaged, and give the ``ceiling``.
    targets : TargetSpace, optional
        Handed on to the results.
    cv : int, splitter or list of (train, test), optional
        Outer folds. By default one run is left out at a time; with a single run, five
        contiguous blocks between which training samples are purged: over the span of
        the epoch where targets have a ``time``, else over ten samples.
    inner_cv : int or splitter, optional
        Folds of the training samples by which penalties are chosen; by default formed
        as the outer ones.
    alphas : array of shape (n_alphas,), optional
        By default 19 values from 1e-4 to 1e5 times the number of samples, which is the
        mean eigenvalue of z-scored features.
    scoring : {"r2", "correlation", "mse"}
        Chooses penalties. r and R2 are reported whichever it is.
    n_permutations : int
        0 leaves out ``p`` and ``q``. The same permutations, within runs, serve every
        feature space. Needs predictions of all samples in memory.
    block : int, optional
        Samples a permuted block has at least; by default 10 and 10 s, at most a
        quarter of a run.
    joint : bool
        Also fit the concatenation of all spaces, if there are two or more, as
        ``"joint"``; not if a space has that name, as that of a multimodal network may.
        Candidates of a space stand in it side by side.
    keep_weights : bool
        Fit all samples once more and keep the coefficients.
    keep_predictions : bool
        Keep the held-out predictions.
    memory_limit : int, str or None
        For each ridge fit, as for `RidgeCV`.
    rng : int or numpy.random.Generator
        Of the permutations; nothing else is random.
    progress : callable, optional
        Called with the number of finished and of all fits, one an outer fold and space.
    standardize : bool
        z-score features with the mean and standard deviation of the training samples
        of each fold. False only centres them, which keeps the meaning of their scale
        (as voxelwise modelling with banded penalties does). Columns that are constant
        in the training samples are left out of that fold.
    backend : {"numpy", "torch", "cupy"}
        Array library that fits.
    device : str, optional
        Of the fits, such as ``"cuda:0"``; by default the host, and CuPy's current one.

    Returns
    -------
    results : dict of str to EncodingResult
        Weights are in units of the response a standard deviation of the feature (a
        unit of it if not standardised). Where a space has candidates, ``candidate``
        (fold, target) says which one was taken, by its place in
        ``attrs["candidates"]``, -1 for a target that is not scored; the weights of
        those that the fit of all samples does not take are 0.

    Raises
    ------
    neuromm.core.DataError
        If samples of the responses have no features, or features hold nan.
    neuromm.core.UsageError
        If folds cannot be formed.

    Notes
    -----
    ``r`` and ``r2`` are those of the predictions of all folds put together, neither
    averaged over folds nor chosen by. R2 is 1 - SSE / SST with SST about the mean of
    the held-out responses, the convention of `r2_score`; a model that predicts each
    fold by its training mean scores just below 0. A target that is constant or holds
    nan is nan everywhere and listed in ``attrs["masked_targets"]``.

    ``p`` takes the fitted models as given and widens the null for the responses that
    folds share (`permutation_test`, ``cross_validated``). It errs on the safe side: of
    3000 targets of white noise in 2 to 8 runs, 1 to 2.5 % had p <= 0.05 and 0.1 to
    0.5 % p <= 0.01.
    """
    spaces = _feature_spaces(features, joint)
    matrix, ceiling = _mean_response(responses)
    if targets is not None and targets.n_targets != matrix.sizes["target"]:
        raise UsageError(
            f"targets has {targets.n_targets} targets, and the responses have "
            f"{matrix.sizes['target']}"
        )
    y = matrix.to_numpy()
    y = y if y.dtype in (np.float32, np.float64) else y.astype(np.float64)
    folds, description = outer_folds(matrix, cv)
    block = default_block(matrix) if block is None else block
    if n_permutations:  # before hours of fitting, not after
        check_blocks(run_labels(matrix), block)
    grid = np.geomspace(1e-4, 1e5, 19) * len(y) if alphas is None else alphas
    job = _Job(
        responses=matrix,
        y=y,
        valid=np.isfinite(y).all(axis=0) & ~is_constant(y),
        ceiling=ceiling,
        folds=folds,
        description=description,
        inner_cv=inner_cv,
        alphas=np.atleast_1d(np.asarray(grid, dtype=np.float64)),
        scoring=scoring,
        standardize=standardize,
        memory_limit=parse_memory(memory_limit),
        n_permutations=n_permutations,
        block=block,
        seed=drawn_seed(rng),
        keep_weights=keep_weights,
        keep_predictions=keep_predictions,
        backend=backend,
        device=device,
        targets=targets,
        tick=ticker(progress, sum(map(len, spaces.values())) * len(folds)),
    )
    return {name: _encode_space(name, space, job) for name, space in spaces.items()}


def _encode_space(
    name: str, space: Mapping[str, Mapping[str, xr.DataArray]], job: _Job
) -> EncodingResult:
    several = list(space) != [name]
    paired = {
        key: _paired_matrix(f"{name}/{key}" if several else name, parts, job.responses)
        for key, parts in space.items()
    }
    candidates = [x for x, _ in paired.values()]
    tally = _Tally()
    if job.keep_predictions or job.n_permutations:
        tally.predictions = np.full_like(job.y, np.nan)
    for train, test in job.folds:
        _add_fold(tally, candidates, train, test, job)
    weights = None
    if job.keep_weights:
        labels = [
            f"{key}:{column}" if several else column
            for key, (_, columns) in paired.items()
            for column in columns
        ]
        weights = _weights(candidates, labels, job)
    predictions = None
    if job.keep_predictions and tally.predictions is not None:
        predictions = job.responses.copy(data=tally.predictions).rename("predictions")
    return EncodingResult(
        space=name,
        scores=_scores(tally, job, several),
        targets=job.targets,
        weights=weights,
        predictions=predictions,
        attrs=_attributes(tally, sum(x.shape[1] for x in candidates), job)
        | ({"candidates": list(space)} if several else {}),
    )


def _add_fold(
    tally: _Tally,
    candidates: Sequence[Array],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    job: _Job,
) -> None:
    inner = inner_splits(job.responses, train, job.inner_cv)
    prediction = np.empty((len(test), job.y.shape[1]), dtype=job.y.dtype)
    alpha = np.full(job.y.shape[1], np.nan)
    choice = CandidateChoice.of(job.y.shape[1])
    for x in candidates:
        fitted, scale = _fit(x, train, inner, job)
        better = choice.better(fitted.cv_scores)
        prediction[:, better] = fitted.predict(scale(x[test]))[:, better]
        alpha[better] = fitted.best_alphas[better]
        tally.forms.add(fitted.solver_form)
        job.tick()
    prediction[:, ~job.valid] = np.nan
    moments = Moments.of(job.y[test], prediction)
    tally.r.append(moments.correlation())
    tally.r2.append(moments.r2())
    tally.alpha.append(np.where(job.valid, alpha, np.nan))
    tally.candidate.append(np.where(job.valid, choice.taken, -1))
    tally.pooled = moments if tally.pooled is None else tally.pooled.merge(moments)
    if tally.predictions is not None:
        tally.predictions[test] = prediction


def _weights(
    candidates: Sequence[Array], labels: Sequence[str], job: _Job
) -> xr.DataArray:
    """Coefficients of the fit of all samples; 0 for candidates that are not taken."""
    everything = np.arange(len(job.y))
    inner = inner_splits(job.responses, everything, job.inner_cv)
    choice = CandidateChoice.of(job.y.shape[1])
    parts: list[Array] = []
    for x in candidates:
        fitted, _ = _fit(x, everything, inner, job)
        better = choice.better(fitted.cv_scores)
        for part in parts:
            part[:, better] = 0
        parts.append(np.where(better, fitted.coef, 0))
    coef = np.where(job.valid, np.concatenate(parts), np.nan)
    return xr.DataArray(
        coef.astype(job.y.dtype, copy=False),
        dims=("feature", "target"),
        coords={"feature": list(labels), **_target_coords(job.responses)},
        attrs={"standardized": int(job.standardize)},
        name="weights",
    )


def _fit(
    x: Array, train: NDArray[np.intp], inner: Sequence[Split], job: _Job
) -> tuple[RidgeFit, Callable[[Array], Array]]:
    scale = training_scaler(x[train], job.y.dtype, standardize=job.standardize)
    fitted = fit_ridge(
        on_device(scale(x[train]), job.backend, job.device),
        job.y[train],
        inner,
        job.alphas,
        scoring=job.scoring,
        memory_limit=job.memory_limit,
    )
    return fitted, scale


def _scores(tally: _Tally, job: _Job, several: bool) -> xr.Dataset:
    if tally.pooled is None:
        raise UsageError("cv gives no fold")
    columns: dict[str, Any] = {
        "r": ("target", tally.pooled.correlation()),
        "r2": ("target", tally.pooled.r2()),
        "r_fold": (("fold", "target"), np.stack(tally.r)),
        "r2_fold": (("fold", "target"), np.stack(tally.r2)),
        "alpha": (("fold", "target"), np.stack(tally.alpha)),
    }
    if several:
        columns["candidate"] = (("fold", "target"), np.stack(tally.candidate))
    if job.n_permutations and tally.predictions is not None:
        runs = run_labels(job.responses)
        held_out = np.sort(np.concatenate([test for _, test in job.folds]))
        onset = job.responses["onset"].to_numpy()[held_out]
        in_time = held_out[np.argsort(onset, kind="stable")]
        tested = permutation_test(
            tally.predictions[in_time],
            job.y[in_time],
            groups=runs[in_time],
            block=job.block,
            n_permutations=job.n_permutations,
            rng=job.seed,
            cross_validated=True,
        )
        columns["p"] = ("target", tested.p)
        columns["q"] = ("target", tested.q)
    if job.ceiling is not None:
        columns["ceiling"] = ("target", job.ceiling)
    runs = run_labels(job.responses)
    held = [",".join(dict.fromkeys(runs[test])) for _, test in job.folds]
    return xr.Dataset(
        columns,
        coords={
            "fold": np.arange(len(job.folds)),
            "held_out_runs": ("fold", np.array(held, dtype=object)),
            **_target_coords(job.responses),
        },
    )


def _attributes(tally: _Tally, n_features: int, job: _Job) -> dict[str, Any]:
    smallest, largest = edge_shares(np.stack(tally.alpha), job.alphas)
    names = job.responses["target"].to_numpy()[~job.valid]
    attrs: dict[str, Any] = {
        "scoring": job.scoring,
        "cv": job.description,
        "n_folds": len(job.folds),
        "n_samples": len(job.y),
        "n_features": n_features,
        "solver_form": "+".join(sorted(tally.forms)),
        "alphas": [float(alpha) for alpha in job.alphas],
        "share_smallest_alpha": smallest,
        "share_largest_alpha": largest,
        "standardize": job.standardize,
        "masked_targets": [str(name) for name in names],
    }
    if job.n_permutations:
        attrs |= {
            "n_permutations": job.n_permutations,
            "block": job.block,
            "seed": job.seed,
        }
    return attrs


def _feature_spaces(
    features: xr.DataArray | Mapping[str, xr.DataArray | Mapping[str, xr.DataArray]],
    joint: bool,
) -> dict[str, dict[str, dict[str, xr.DataArray]]]:
    """Spaces, of each its candidates, and of each of these what stands side by side."""
    if isinstance(features, xr.DataArray):
        features = {str(features.attrs.get("space") or "features"): features}
    if not features:
        raise UsageError("encode needs at least one feature space, got none")
    spaces = {}
    for name, space in features.items():
        given = {name: space} if isinstance(space, xr.DataArray) else dict(space)
        if not given:
            raise UsageError(f"the feature space {name!r} has no candidate")
        spaces[name] = {str(key): {str(key): one} for key, one in given.items()}
    if joint and len(features) > 1:
        if "joint" in features:
            logger.info(
                "'joint' is the feature space of that name: the model of all feature "
                "spaces together is left out"
            )
        else:
            spaces["joint"] = {"joint": _side_by_side(spaces)}
    return spaces


def _side_by_side(
    spaces: Mapping[str, Mapping[str, Mapping[str, xr.DataArray]]],
) -> dict[str, xr.DataArray]:
    return {
        name if key == name else f"{name}/{key}": matrix
        for name, space in spaces.items()
        for key, parts in space.items()
        for matrix in parts.values()
    }


def _mean_response(
    responses: xr.DataArray,
) -> tuple[xr.DataArray, NDArray[np.floating] | None]:
    if "repeat" not in responses.dims:
        return responses.transpose("sample", "target"), None
    repeats = responses.transpose("repeat", "sample", "target")
    if repeats.sizes["repeat"] < 2:
        return repeats.isel(repeat=0, drop=True), None
    return repeats.mean("repeat", keep_attrs=True), noise_ceiling(repeats.to_numpy())


def _paired_matrix(
    name: str, parts: Mapping[str, xr.DataArray], responses: xr.DataArray
) -> tuple[Array, list[str]]:
    """Features on the samples of the responses, side by side, and their names."""
    matrices, columns = [], []
    for space, part in parts.items():
        paired, _ = pair_samples(part.transpose("sample", "feature"), responses)
        matrices.append(paired.to_numpy())
        labels = [str(label) for label in paired["feature"].to_numpy()]
        columns += [f"{space}:{one}" if len(parts) > 1 else one for one in labels]
    x = np.concatenate(matrices, axis=1)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=0))
    if bad.size:
        rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise DataError(
            f"the features {name!r} hold missing or infinite values in {bad.size} of "
            f"{x.shape[1]} columns (the first is {columns[bad[0]]!r}) and {rows.size} "
            f"of {len(x)} samples. Fill them in, or leave those samples out."
        )
    return x, columns


def _target_coords(responses: xr.DataArray) -> dict[str, Any]:
    return {
        str(name): ("target", coord.to_numpy())
        for name, coord in responses.coords.items()
        if coord.dims == ("target",)
    }

"""Scores of patterns over the voxels of a region: 2V2 accuracy and correlations.

Two stimuli i and j are told apart if their responses y and predictions yhat match
better as they belong than crosswise:

    C_ii + C_jj > C_ij + C_ji,    C_ij = cos(y_i, yhat_j)

2V2 accuracy is the share of pairs for which this holds; chance is one half. With rows
scaled to length one, the difference of the two sides is (y_i - y_j)(yhat_i - yhat_j)':
what all stimuli share, such as the mean pattern of a region, takes no part in it but
by the lengths.

References
----------
Mitchell TM et al. (2008) Predicting human brain activity associated with the meanings
of nouns. Science 320:1191-1195.
Oota SR et al. (2022) Visio-linguistic brain encoding. COLING 2022, 116-133.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.encoding.scores import correlation_score

__all__ = ["pattern_r", "roi_scores", "two_v_two", "voxel_r"]

# Cosines of equal rows differ by rounding; half of 1e-12 of a cosine is no evidence.
_TIE = 1e-12

# Rows of a tile of the cosine matrix: two tiles of 2048 x 2048 take 64 MB.
_TILE_ROWS = 2048


def two_v_two(
    y: ArrayLike, prediction: ArrayLike, groups: ArrayLike | None = None
) -> float:
    """Share of pairs of stimuli that the predictions tell apart.

    Parameters
    ----------
    y, prediction : arrays of shape (n_samples, n_voxels)
        Measured and predicted responses of one region, of held-out stimuli, in any
        unit.
    groups : array of shape (n_samples,), optional
        Only pairs within a group count, such as the stimuli of one fold, whose
        predictions come from one model. All pairs count if not given, as in Oota et
        al. (2022), who pool the folds.

    Returns
    -------
    accuracy : float
        In [0, 1], 0.5 by chance; a tie counts half. nan if no group has two samples.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is nan or infinite.

    Notes
    -----
    The N x N matrix of cosines is one product, computed tile by tile: 2 N^2 p
    operations and 64 MB, whatever N is. A row of zeros has the cosine 0 with all.

    Pairs share stimuli: unrelated predictions of N stimuli err by about 0.4 / sqrt(N)
    around one half, far more than as many coins as there are pairs. Test an accuracy by
    permuting predictions among stimuli, not by a binomial test.

    Examples
    --------
    >>> y = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    >>> two_v_two(y, y)
    1.0
    """
    truth, guess = _patterns(y, prediction)
    hits, n_pairs = 0.0, 0
    for rows in _groups(groups, len(truth)):
        right, count = _told_apart(_unit_rows(truth[rows]), _unit_rows(guess[rows]))
        hits, n_pairs = hits + right, n_pairs + count
    return hits / n_pairs if n_pairs else float("nan")


def pattern_r(
    y: ArrayLike, prediction: ArrayLike, groups: ArrayLike | None = None
) -> float:
    """Correlation over the voxels of a region, averaged over stimuli.

    Parameters
    ----------
    y, prediction : arrays of shape (n_samples, n_voxels)
        As for `two_v_two`; at least two voxels.
    groups : array of shape (n_samples,), optional
        Stimuli are averaged within each group first, then groups: the "Pearson" of
        Oota et al. (2022), where a group is a fold.

    Returns
    -------
    r : float
        In [-1, 1]. A constant predicted pattern counts 0; a constant measured pattern
        is left out; nan if none is left.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is nan or infinite.

    Notes
    -----
    The mean pattern of the region takes part: a model that predicts nothing but the
    mean over stimuli scores high wherever voxels differ in their mean response. Centre
    each voxel over the training samples first, or read it beside `voxel_r`, which is
    blind to the mean pattern.
    """
    truth, guess = _patterns(y, prediction)
    by_stimulus = correlation_score(truth.T, guess.T)
    means = [_mean(by_stimulus[rows]) for rows in _groups(groups, len(truth))]
    return _mean(np.array(means))


def voxel_r(y: ArrayLike, prediction: ArrayLike) -> NDArray[np.floating]:
    """Correlation over stimuli, for each voxel.

    Parameters
    ----------
    y, prediction : arrays of shape (n_samples, n_voxels)

    Returns
    -------
    r : array of shape (n_voxels,)
        As `correlation_score`: nan for a voxel that never varies, 0 for a constant
        prediction.
    """
    truth, guess = _patterns(y, prediction)
    return correlation_score(truth, guess)


def roi_scores(
    y: ArrayLike | xr.DataArray,
    prediction: ArrayLike | xr.DataArray,
    roi: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """The three scores of each region.

    Parameters
    ----------
    y, prediction : arrays or DataArrays of shape (n_samples, n_voxels)
    roi : sequence of str of length n_voxels, optional
        Region of each voxel; the coordinate ``roi`` of ``y`` if not given.
    groups : array of shape (n_samples,), optional
        As for `two_v_two` and `pattern_r`.

    Returns
    -------
    table : DataFrame
        A row a region, in the order of the first voxel of each: ``roi``, ``n_voxels``,
        ``n_samples``, ``two_v_two``, ``pattern_r``, and the mean and the median of
        `voxel_r` over the voxels that vary, ``voxel_r`` and ``voxel_r_median``.

    Raises
    ------
    ValueError
        If there is no region for each voxel, the shapes differ, or a value is nan.
    """
    if roi is None:
        if not isinstance(y, xr.DataArray) or "roi" not in y.coords:
            raise ValueError(
                "each voxel needs a region: give roi, or a DataArray with the "
                "coordinate 'roi' on its targets"
            )
        roi = [str(name) for name in y["roi"].to_numpy()]
    truth, guess = _patterns(y, prediction)
    if len(roi) != truth.shape[1]:
        raise ValueError(
            f"each voxel needs a region, got {len(roi)} regions for {truth.shape[1]} "
            "voxels"
        )
    labels = np.array(list(roi), dtype=object)
    rows = []
    for name in dict.fromkeys(labels):
        voxels = labels == name
        own = voxel_r(truth[:, voxels], guess[:, voxels])
        varying = own[~np.isnan(own)]
        rows.append(
            {
                "roi": name,
                "n_voxels": int(voxels.sum()),
                "n_samples": len(truth),
                "two_v_two": two_v_two(truth[:, voxels], guess[:, voxels], groups),
                "pattern_r": pattern_r(truth[:, voxels], guess[:, voxels], groups),
                "voxel_r": _mean(varying),
                "voxel_r_median": float(np.median(varying)) if len(varying) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _patterns(
    y: ArrayLike, prediction: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    truth, guess = np.asarray(y), np.asarray(prediction)
    if truth.ndim != 2 or truth.shape != guess.shape:
        raise ValueError(
            "y and prediction must have the same shape (n_samples, n_voxels), got "
            f"{truth.shape} and {guess.shape}"
        )
    for name, values in (("y", truth), ("prediction", guess)):
        lost = ~np.isfinite(values)
        if lost.any():
            raise ValueError(
                f"{name} has {int(lost.sum())} values that are nan or infinite, in "
                f"{int(lost.any(axis=0).sum())} voxels: a pattern needs every voxel, "
                "so leave these voxels out of both"
            )
    return truth, guess


def _groups(groups: ArrayLike | None, n_samples: int) -> Iterator[NDArray[np.intp]]:
    if groups is None:
        yield np.arange(n_samples)
        return
    labels = np.asarray(groups)
    if labels.shape != (n_samples,):
        raise ValueError(
            f"groups must have one label per sample, got shape {labels.shape} for "
            f"{n_samples} samples"
        )
    for label in pd.unique(pd.Series(labels)):
        yield np.flatnonzero(labels == label)


def _unit_rows(values: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = values.astype(np.float64)
    # Largest magnitude first, so that squares of 1e-200 V don't vanish.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    unit: NDArray[np.float64] = np.divide(rows, length, out=rows, where=length > 0)
    return unit


def _told_apart(
    truth: NDArray[np.float64], guess: NDArray[np.float64]
) -> tuple[float, int]:
    """Pairs of unit rows that are told apart, ties half; and all pairs."""
    n_samples = len(truth)
    own = (truth * guess).sum(axis=1)
    hits = 0.0
    for first in range(0, n_samples, _TILE_ROWS):
        i = slice(first, first + _TILE_ROWS)
        for second in range(first, n_samples, _TILE_ROWS):
            j = slice(second, second + _TILE_ROWS)
            crossed = truth[i] @ guess[j].T
            crossed += crossed.T if first == second else guess[i] @ truth[j].T
            margin = own[i, None] + own[None, j] - crossed
            if first == second:
                margin = margin[np.triu_indices(len(margin), k=1)]
            won, tied = margin > _TIE, np.abs(margin) <= _TIE
            hits += float(won.sum()) + float(tied.sum()) / 2
    return hits, n_samples * (n_samples - 1) // 2


def _mean(values: NDArray[np.floating]) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")

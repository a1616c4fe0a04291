"""Features and responses with known weights and a closed form of the best score."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import feature_matrix, response_matrix

__all__ = ["EncodingDataset", "make_encoding_dataset"]

Array = NDArray[np.floating]

_SAMPLE_STEP_S = 2.0


@dataclass(frozen=True, kw_only=True)
class EncodingDataset:
    """Arrays with planted truth.

    Attributes
    ----------
    features : dict of str to DataArray, dims (sample, feature)
        One matrix a feature space; independent standard normal columns.
    responses : DataArray, dims (sample, target)
        Signal plus white noise of variance 1; ``kind`` is a coordinate of ``target``.
    weights : dict of str to DataArray, dims (feature, target)
        The true weights, with which ``sum(features @ weights)`` is the signal.
    truth : DataFrame
        A row a target: ``target``; ``kind`` (a feature space, ``"both"`` or
        ``"none"``); ``norm_<space>`` (length of its weight vector); ``r_max``, the
        correlation of the noise-free signal with the response in the long run.

    Notes
    -----
    ``r_max = sqrt(signal variance / total variance)``: no model correlates better with
    new responses, and the true weights reach it.
    """

    features: dict[str, xr.DataArray]
    responses: xr.DataArray
    weights: dict[str, xr.DataArray]
    truth: pd.DataFrame


def make_encoding_dataset(
    n_samples: int = 600,
    n_features: Mapping[str, int] | None = None,
    n_targets: int = 200,
    *,
    n_runs: int = 4,
    snr: float = 0.5,
    fractions: Mapping[str, float] | None = None,
    rng: int | np.random.Generator = 0,
) -> EncodingDataset:
    """Draw features and responses of which the best possible score is known.

    Parameters
    ----------
    n_samples : int
        Rows, in ``n_runs`` runs of nearly equal length; 2 s apart within a run.
    n_features : mapping of str to int, optional
        Feature space to number of features; ``{"vision": 20, "language": 20}`` if not
        given.
    n_targets : int
    n_runs : int
    snr : float
        Variance of the signal over variance of the noise, in every driven target.
    fractions : mapping of str to float, optional
        Share of the targets of each kind: a feature space, ``"both"`` (all spaces, with
        equal variance) and ``"none"`` (noise alone). Scaled to a sum of 1; equal shares
        if not given.
    rng : int or Generator

    Returns
    -------
    dataset : EncodingDataset

    Raises
    ------
    ValueError
        If a size, ``snr`` or a share is out of range, or a kind is unknown.

    Examples
    --------
    >>> data = make_encoding_dataset(n_samples=100, n_targets=8, snr=1.0)
    >>> data.responses.sizes["target"]
    8
    >>> data.truth["kind"].value_counts().to_dict() == dict.fromkeys(
    ...     ["vision", "language", "both", "none"], 2
    ... )
    True
    """
    sizes = dict(n_features or {"vision": 20, "language": 20})
    _check_sizes(n_samples, sizes, n_targets, n_runs, snr)
    kinds = _planted_kinds(sizes, n_targets, fractions)
    rng = np.random.default_rng(rng)
    weights = {
        space: _weights(rng, n, _share(kinds, space, len(sizes)), snr)
        for space, n in sizes.items()
    }
    x = {space: rng.standard_normal((n_samples, n)) for space, n in sizes.items()}
    signal = np.sum([x[space] @ weights[space] for space in sizes], axis=0)
    responses = signal + rng.standard_normal((n_samples, n_targets))
    run, onset = _samples(n_samples, n_runs)
    truth = _truth(kinds, weights, snr)
    features = {
        space: feature_matrix(x[space], onset=onset, run=run, space=space)
        for space in sizes
    }
    return EncodingDataset(
        features=features,
        responses=response_matrix(
            responses, onset=onset, run=run, targets=truth[["target", "kind"]]
        ),
        weights={
            space: xr.DataArray(
                weights[space],
                dims=("feature", "target"),
                coords={
                    "feature": features[space]["feature"].to_numpy(),
                    "target": truth["target"].to_numpy(),
                },
            )
            for space in sizes
        },
        truth=truth,
    )


def _check_sizes(
    n_samples: int, sizes: Mapping[str, int], n_targets: int, n_runs: int, snr: float
) -> None:
    if n_targets < 1 or min(sizes.values()) < 1:
        raise ValueError("n_targets and every entry of n_features must be at least 1")
    if not 1 <= n_runs <= n_samples:
        raise ValueError(
            f"n_runs must lie between 1 and n_samples ({n_samples}), got {n_runs}"
        )
    if snr <= 0:
        raise ValueError(f"snr must be above 0, got {snr}; use kind 'none' for noise")
    taken = {"both", "none"} & set(sizes)
    if taken:
        raise ValueError(f"a feature space cannot be called {', '.join(taken)}")


def _planted_kinds(
    sizes: Mapping[str, int], n_targets: int, fractions: Mapping[str, float] | None
) -> NDArray[np.str_]:
    known = [*sizes, "both", "none"]
    shares = dict(fractions or dict.fromkeys(known, 1.0))
    unknown = sorted(set(shares) - set(known))
    if unknown:
        raise ValueError(
            f"unknown kind {', '.join(unknown)} in fractions (known: "
            f"{', '.join(known)})"
        )
    if min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise ValueError(f"fractions must be >= 0 with a sum above 0, got {shares}")
    # Rounding the cumulative shares gives counts that sum to n_targets.
    edges = np.cumsum(list(shares.values())) / sum(shares.values()) * n_targets
    counts = np.diff(np.rint(edges).astype(int), prepend=0)
    return np.repeat(np.array(list(shares)), counts)


def _share(kinds: NDArray[np.str_], space: str, n_spaces: int) -> Array:
    """Part of each target's signal variance that a space gives."""
    return np.where(kinds == space, 1.0, np.where(kinds == "both", 1 / n_spaces, 0.0))


def _weights(
    rng: np.random.Generator, n_features: int, share: Array, snr: float
) -> Array:
    # Features have unit variance, so the variance of a signal is the squared length of
    # its weights; the noise has variance 1.
    directions = rng.standard_normal((n_features, len(share)))
    directions /= np.linalg.norm(directions, axis=0)
    return np.asarray(directions * np.sqrt(share * snr))


def _samples(n_samples: int, n_runs: int) -> tuple[list[str], Array]:
    runs = np.array_split(np.arange(n_samples), n_runs)
    labels = [str(number + 1) for number, rows in enumerate(runs) for _ in rows]
    onset = np.concatenate([np.arange(len(rows)) * _SAMPLE_STEP_S for rows in runs])
    return labels, onset


def _truth(
    kinds: NDArray[np.str_], weights: Mapping[str, Array], snr: float
) -> pd.DataFrame:
    driven = kinds != "none"
    return pd.DataFrame(
        {
            "target": [f"target{i:04d}" for i in range(len(kinds))],
            "kind": kinds.astype(object),
            **{f"norm_{s}": np.linalg.norm(w, axis=0) for s, w in weights.items()},
            "r_max": np.where(driven, np.sqrt(snr / (1 + snr)), 0.0),
        }
    )

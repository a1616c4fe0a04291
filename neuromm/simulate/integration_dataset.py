"""Responses to films, some of which integrate what is seen and what is heard."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import feature_matrix, response_matrix

__all__ = ["INTEGRATION_KINDS", "IntegrationDataset", "make_integration_dataset"]

Array = NDArray[np.floating]

INTEGRATION_KINDS = ("none", "vision", "language", "additive", "interactive")


@dataclass(frozen=True, kw_only=True)
class IntegrationDataset:
    """Arrays with planted sites of integration.

    Attributes
    ----------
    features : dict of str to DataArray, dims (sample, feature)
        ``"vision"`` and ``"language"``: independent standard normal columns.
        ``"joint"``: a rotation of both and of products of one with the other, as a
        network trained on both may have.
    responses : DataArray, dims (sample, target)
        Signal plus AR(1) noise, of variance 1 in all; ``kind`` is a coordinate of
        ``target``.
    truth : DataFrame
        A row a target: ``target``, ``kind``, ``r_max`` (correlation of the noise-free
        signal with the response) and ``is_site`` (kind ``"interactive"``: driven by
        products, of which no linear combination of vision and language knows).
    """

    features: dict[str, xr.DataArray]
    responses: xr.DataArray
    truth: pd.DataFrame


def make_integration_dataset(
    n_samples: int = 2000,
    n_targets: int = 100,
    *,
    n_features: int = 20,
    n_products: int = 20,
    n_runs: int = 4,
    r_max: float | tuple[float, float] = 0.3,
    autocorrelation: float = 0.5,
    fractions: Mapping[str, float] | None = None,
    rng: int | np.random.Generator = 0,
) -> IntegrationDataset:
    """Draw responses of five kinds, of which one is a site of integration.

    Parameters
    ----------
    n_samples : int
        Events, in ``n_runs`` runs of nearly equal length, 1 s apart.
    n_targets : int
    n_features : int
        Of vision and of language each.
    n_products : int
        Products of one feature of vision with one of language; of variance 1, and
        uncorrelated with either.
    n_runs : int
    r_max : float or (low, high)
        Correlation that the true model reaches, spread evenly over targets of a kind.
    autocorrelation : float
        Of the noise at a lag of one event, in [0, 1).
    fractions : mapping of str to float, optional
        Share of the targets of each kind; equal if not given.
    rng : int or numpy.random.Generator

    Raises
    ------
    ValueError
        If a size, ``r_max``, ``autocorrelation`` or a share is out of range.
    """
    low, high = (r_max, r_max) if isinstance(r_max, int | float) else r_max
    if not 0 < low <= high < 1:
        raise ValueError(f"r_max must lie between 0 and 1, got {r_max}")
    if not 0 <= autocorrelation < 1:
        raise ValueError(f"autocorrelation must lie in [0, 1), got {autocorrelation}")
    if min(n_samples, n_targets, n_features, n_products, n_runs) < 1:
        raise ValueError("sizes must be 1 or more")
    generator = np.random.default_rng(rng)
    kinds = _kinds(n_targets, fractions)
    vision, language = generator.standard_normal((2, n_samples, n_features))
    pairs = generator.integers(n_features, size=(2, n_products))
    products = vision[:, pairs[0]] * language[:, pairs[1]]
    sources = {
        "none": np.zeros((n_samples, 1)),
        "vision": vision,
        "language": language,
        "additive": np.concatenate([vision, language], axis=1),
        "interactive": products,
    }
    reached = np.zeros(n_targets)
    signal = np.zeros((n_samples, n_targets))
    for kind in INTEGRATION_KINDS[1:]:
        chosen = np.flatnonzero(kinds == kind)
        reached[chosen] = np.linspace(low, high, len(chosen))
        x = sources[kind]
        weights = generator.standard_normal((x.shape[1], len(chosen)))
        driven = x @ weights
        signal[:, chosen] = reached[chosen] * driven / driven.std(axis=0)
    noise = _autoregressive(generator, n_samples, n_targets, n_runs, autocorrelation)
    responses = signal + np.sqrt(1 - reached**2) * noise
    everything = np.concatenate([vision, language, products], axis=1)
    rotation = np.linalg.qr(
        generator.standard_normal((everything.shape[1], everything.shape[1]))
    )[0]
    run, onset = _samples(n_samples, n_runs)
    spaces = {"vision": vision, "language": language, "joint": everything @ rotation}
    truth = pd.DataFrame(
        {
            "target": [f"target{i:04d}" for i in range(n_targets)],
            "kind": kinds.astype(object),
            "r_max": reached,
            "is_site": kinds == "interactive",
        }
    )
    return IntegrationDataset(
        features={
            name: feature_matrix(x, onset=onset, run=run, space=name)
            for name, x in spaces.items()
        },
        responses=response_matrix(
            responses, onset=onset, run=run, targets=truth[["target", "kind"]]
        ),
        truth=truth,
    )


def _kinds(n_targets: int, fractions: Mapping[str, float] | None) -> NDArray[np.str_]:
    shares = dict(fractions or dict.fromkeys(INTEGRATION_KINDS, 1.0))
    unknown = sorted(set(shares) - set(INTEGRATION_KINDS))
    if unknown or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise ValueError(
            f"fractions must give {', '.join(INTEGRATION_KINDS)} shares of 0 or above, "
            f"got {fractions}"
        )
    # Rounding the cumulative shares gives counts that sum to n_targets.
    edges = np.cumsum(list(shares.values())) / sum(shares.values()) * n_targets
    counts = np.diff(np.rint(edges).astype(int), prepend=0)
    return np.repeat(np.array(list(shares)), counts)


def _autoregressive(
    rng: np.random.Generator,
    n_samples: int,
    n_targets: int,
    n_runs: int,
    autocorrelation: float,
) -> Array:
    """AR(1) noise of variance 1, from its stationary state in every run."""
    from scipy.signal import lfilter

    drive = rng.standard_normal((n_samples, n_targets))
    drive *= np.sqrt(1 - autocorrelation**2)
    noise = np.empty_like(drive)
    for rows in np.array_split(np.arange(n_samples), n_runs):
        start = rng.standard_normal((1, n_targets)) * autocorrelation
        noise[rows] = lfilter(
            [1.0], [1.0, -autocorrelation], drive[rows], axis=0, zi=start
        )[0]
    return noise


def _samples(n_samples: int, n_runs: int) -> tuple[list[str], Array]:
    runs = np.array_split(np.arange(n_samples), n_runs)
    labels = [str(number + 1) for number, rows in enumerate(runs) for _ in rows]
    onset = np.concatenate([np.arange(len(rows), dtype=float) for rows in runs])
    return labels, onset

"""Labelled matrices of features and responses, paired by label.

features   dims ``(sample, feature)``
responses  dims ``(sample, target)`` or ``(repeat, sample, target)``

Both carry the coordinates ``stimulus`` (str), ``onset`` (s from the start of the run),
``run`` (str) and ``subject`` (str) on ``sample``. A sample is a volume in fMRI and an
event in EEG, MEG and iEEG.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from neuromm.core.errors import DataError

__all__ = ["SAMPLE_COORDS", "feature_matrix", "pair_samples", "response_matrix"]

SAMPLE_COORDS = ("subject", "run", "onset", "stimulus")

# Onsets are compared in steps of 0.1 ms: finer than any sampling here, and far above
# the rounding of a decimal in a table.
_ONSET_STEP_S = 1e-4


def feature_matrix(
    values: ArrayLike,
    *,
    onset: ArrayLike,
    run: str | Sequence[str] = "1",
    subject: str = "",
    stimulus: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    space: str = "",
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Label a feature matrix.

    Parameters
    ----------
    values : array of shape (n_samples, n_features)
    onset : array of shape (n_samples,)
        Seconds from the start of the run.
    run : str or sequence of str of length n_samples
    subject : str
    stimulus : sequence of str of length n_samples, optional
    names : sequence of str of length n_features, optional
        Names of the features; ``0 … n_features - 1`` if not given.
    space : str
        Name of the feature space, such as ``"vision"``.
    attrs : mapping, optional
        Further attributes, such as ``model`` and ``layer``.

    Returns
    -------
    features : DataArray, dims (sample, feature)
    """
    matrix = np.asarray(values)
    labels = [str(i) for i in range(matrix.shape[-1])] if names is None else list(names)
    return xr.DataArray(
        matrix,
        dims=("sample", "feature"),
        coords={
            **_sample_coords(matrix.shape[0], onset, run, subject, stimulus),
            "feature": labels,
        },
        attrs={"space": space, **(attrs or {})},
        name="features",
    )


def response_matrix(
    values: ArrayLike,
    *,
    onset: ArrayLike,
    run: str | Sequence[str] = "1",
    subject: str = "",
    stimulus: Sequence[str] | None = None,
    targets: pd.DataFrame | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Label a response matrix.

    Parameters
    ----------
    values : array of shape (n_samples, n_targets) or (n_repeats, n_samples, n_targets)
    onset, run, subject, stimulus
        As for `feature_matrix`.
    targets : DataFrame, optional
        ``TargetSpace.coords()``; each column becomes a coordinate of ``target``, and
        ``target`` itself the index.
    attrs : mapping, optional
        Further attributes, such as ``units``.

    Returns
    -------
    responses : DataArray, dims ([repeat,] sample, target)
    """
    matrix = np.asarray(values)
    dims = ("repeat", "sample", "target")[-matrix.ndim :]
    coords: dict[str, Any] = dict(
        _sample_coords(matrix.shape[-2], onset, run, subject, stimulus)
    )
    if targets is None:
        coords["target"] = [str(i) for i in range(matrix.shape[-1])]
    else:
        for name in targets.columns:
            column = targets[name].to_numpy()
            coords[name] = ("target", column) if name != "target" else column
    return xr.DataArray(
        matrix, dims=dims, coords=coords, attrs=dict(attrs or {}), name="responses"
    )


def pair_samples(
    features: xr.DataArray, responses: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Bring features to the samples of the responses, by subject, run and onset.

    Parameters
    ----------
    features : DataArray, dims (sample, feature)
        May hold more samples than the responses, in any order.
    responses : DataArray, dims ([repeat,] sample, target)

    Returns
    -------
    features, responses : DataArray
        One row per sample of ``responses``, in its order.

    Raises
    ------
    DataError
        If a sample of the responses has no features, or features and responses hold
        different numbers of samples with one label.

    Notes
    -----
    Events that begin together share a label; they are paired in the order in which both
    sides hold them.
    """
    wanted, present = _sample_labels(responses), _sample_labels(features)
    in_responses, in_features = wanted.value_counts(), present.value_counts()
    shared = in_responses.index.intersection(in_features.index)
    unequal = shared[in_responses[shared].to_numpy() != in_features[shared].to_numpy()]
    if len(unequal):
        label = unequal[0]
        raise DataError(
            f"features have {in_features[label]} rows and responses "
            f"{in_responses[label]} for the same sample (subject, run, onset) = "
            f"{_readable(label)}: which belongs to which cannot be told"
        )
    rows = _numbered(present).get_indexer(_numbered(wanted))
    if (rows < 0).any():
        lacking = [_readable(label) for label in wanted[rows < 0][:5]]
        raise DataError(
            f"{int((rows < 0).sum())} of {len(wanted)} samples of the responses have "
            f"no row in the features, such as (subject, run, onset) = "
            f"{', '.join(lacking)}. In fMRI a row is one volume: were the same dummy "
            "volumes dropped from both?"
        )
    return features.isel(sample=rows), responses


def _sample_coords(
    n_samples: int,
    onset: ArrayLike,
    run: str | Sequence[str],
    subject: str,
    stimulus: Sequence[str] | None,
) -> dict[str, tuple[str, Any]]:
    runs = [run] * n_samples if isinstance(run, str) else list(run)
    stimuli = [""] * n_samples if stimulus is None else [str(s) for s in stimulus]
    onsets = np.asarray(onset, dtype=float)
    for name, labels in (("run", runs), ("stimulus", stimuli), ("onset", onsets)):
        if len(labels) != n_samples:
            raise ValueError(
                f"{name} must have one value per sample, got {len(labels)} values for "
                f"{n_samples} samples"
            )
    return {
        "subject": ("sample", np.array([subject] * n_samples, dtype=object)),
        "run": ("sample", np.array(runs, dtype=object)),
        "onset": ("sample", onsets),
        "stimulus": ("sample", np.array(stimuli, dtype=object)),
    }


def _sample_labels(matrix: xr.DataArray) -> pd.MultiIndex:
    steps = np.rint(matrix["onset"].to_numpy() / _ONSET_STEP_S).astype(np.int64)
    return pd.MultiIndex.from_arrays(
        [matrix["subject"].to_numpy(), matrix["run"].to_numpy(), steps]
    )


def _numbered(labels: pd.MultiIndex) -> pd.MultiIndex:
    """Labels with the number of each among its equals, which makes them unique."""
    frame = labels.to_frame(index=False, name=["subject", "run", "step"])
    frame["number"] = frame.groupby(["subject", "run", "step"]).cumcount()
    return pd.MultiIndex.from_frame(frame)


def _readable(label: Any) -> str:
    subject, run, step = label
    return f"({subject or '-'}, {run}, {step * _ONSET_STEP_S:.4g} s)"

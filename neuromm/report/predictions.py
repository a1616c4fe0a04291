"""Held-out predictions of a unit, for analyses that the scores do not answer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from neuromm.core import EncodingResult, UsageError
from neuromm.core.files import atomic_path
from neuromm.report.naming import bids_name, contrast_label

__all__ = ["write_predictions"]


def write_predictions(
    root: str | Path,
    entities: Mapping[str, str],
    datatype: str,
    result: EncodingResult,
    responses: xr.DataArray,
) -> Path:
    """Write held-out predictions and the responses that they are of.

    Parameters
    ----------
    root : path-like
        Output folder.
    entities : mapping of str to str
        Entities of the unit.
    datatype : {"func", "eeg", "meg", "ieeg"}
    result : EncodingResult
        With ``predictions``.
    responses : DataArray, dims (sample, target)

    Returns
    -------
    path : Path
        ``…_contrast-<space>_desc-encoding_predictions.npz``, read with
        ``numpy.load(path, allow_pickle=False)``: ``predictions`` and ``responses``
        (n_samples, n_targets) in float32, ``run``, ``onset`` (s) and ``target``.

    Raises
    ------
    UsageError
        If the result holds no predictions.
    """
    if result.predictions is None:
        raise UsageError(f"the result of {result.space} was made without predictions")
    folder = Path(root, f"sub-{entities['subject']}")
    if entities.get("session"):
        folder /= f"ses-{entities['session']}"
    labels = {
        **entities,
        "contrast": contrast_label(result.space),
        "description": "encoding",
    }
    path = folder / datatype / bids_name(labels, "predictions", ".npz")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            predictions=result.predictions.to_numpy().astype(np.float32),
            responses=responses.to_numpy().astype(np.float32),
            run=responses["run"].to_numpy().astype(str),
            onset=responses["onset"].to_numpy(),
            target=responses["target"].to_numpy().astype(str),
        )
    return path

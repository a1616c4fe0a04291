"""Expression of a whole section, a batch of spots at a time."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.models.gene_dml.model import GeneDML
from neuromm.models.triplex import TRIPLEX

__all__ = ["SectionPrediction", "predict_expression"]


class SectionPrediction(NamedTuple):
    """What was predicted of a section.

    Attributes
    ----------
    expression : array of shape (n_spots, n_genes)
        In the unit of the training targets.
    fused : array of shape (n_spots, dim)
        What it was predicted from.
    """

    expression: NDArray[np.float32]
    fused: NDArray[np.float32]


def predict_expression(
    model: GeneDML | TRIPLEX, features: SpotFeatures, *, batch_size: int = 512
) -> SectionPrediction:
    """Predict the expression at every spot of a section.

    Parameters
    ----------
    model : GeneDML or TRIPLEX
        Put into evaluation mode for the time, on its device.
    features : SpotFeatures
        Of the encoder that it was trained with.
    batch_size : int
        Spots at once; the result does not depend on it but by rounding.

    Returns
    -------
    prediction : SectionPrediction

    Raises
    ------
    UsageError
        If the features are of another length, or ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    overview = _tensor(features.overview, device)
    grid = torch.from_numpy(features.grid.astype(np.int64)).to(device)
    found = []
    try:
        with torch.inference_mode():
            for start in range(0, features.n_spots, batch_size):
                own = slice(start, start + batch_size)
                output = model(
                    _tensor(features.target[own], device),
                    _tensor(features.neighbors[own], device),
                    overview,
                    grid,
                    neighbor_mask=torch.from_numpy(features.neighbor_mask[own]).to(
                        device
                    ),
                    rows=torch.arange(features.n_spots, device=device)[own],
                )
                found.append((output.expression.cpu(), output.fused.cpu()))
    finally:
        model.train(was_training)
    expression, fused = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return SectionPrediction(expression, fused)


def _tensor(values: NDArray[np.floating], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

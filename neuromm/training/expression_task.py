"""Expression of genes: spots of several sections in a batch, each with its section."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuromm.core import UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.metrics import expression_correlation
from neuromm.models import (
    GeneDMLConfig,
    TRIPLEXConfig,
    gene_dml_losses,
    triplex_loss,
)
from neuromm.training.tasks import Batch

__all__ = ["ExpressionTask", "TissueSpots"]


class TissueSpots:
    """Spots of sections as samples, and their sections whole.

    Parameters
    ----------
    features : sequence of SpotFeatures
        One a section.
    expression : sequence of arrays of shape (n_spots, n_genes)
        In the order of the spots of each section.

    Raises
    ------
    UsageError
        If numbers of sections, spots or genes do not match.

    Notes
    -----
    All of it is held in memory as float32, 4 (n_tokens + n_tiles + 1) n_features bytes
    a spot: with 1024 features 0.1 MB for a patch of one vector, 0.9 MB for one of 197.
    """

    def __init__(
        self,
        features: Sequence[SpotFeatures],
        expression: Sequence[NDArray[np.floating]],
    ) -> None:
        if not features or len(features) != len(expression):
            raise UsageError(
                f"needs expression for each section, got {len(features)} sections and "
                f"{len(expression)} tables"
            )
        for own, values in zip(features, expression, strict=True):
            if values.shape != (own.n_spots, expression[0].shape[1]):
                raise UsageError(
                    f"{own.section}: expression must have shape ({own.n_spots}, "
                    f"{expression[0].shape[1]}), got {values.shape}"
                )
        self.sections = [own.section for own in features]
        self.expression = _joined(expression)
        self.target = _joined([own.target for own in features])
        self.neighbors = _joined([own.neighbors for own in features])
        self.neighbor_mask = torch.from_numpy(
            np.concatenate([own.neighbor_mask for own in features])
        )
        self.overview = _joined([own.overview for own in features])
        self.grid = torch.from_numpy(
            np.concatenate([own.grid for own in features]).astype(np.int64)
        )
        sizes = [own.n_spots for own in features]
        self.section = torch.repeat_interleave(
            torch.arange(len(sizes)), torch.tensor(sizes)
        )

    def __len__(self) -> int:
        """Give the number of spots."""
        return len(self.target)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Give one spot, with its place among all."""
        return {
            "target": self.target[index],
            "neighbors": self.neighbors[index],
            "neighbor_mask": self.neighbor_mask[index],
            "expression": self.expression[index],
            "spot": torch.tensor(index),
        }


class ExpressionTask:
    """Train `GeneDML` or `TRIPLEX` on spots, and score them section by section.

    Parameters
    ----------
    spots : TissueSpots
        Those that `fit` or `evaluate` is given.
    config : GeneDMLConfig or TRIPLEXConfig
        Of the model: which losses, and their weights.

    Notes
    -----
    Scores are ``pcc``, the mean correlation over genes and sections, and ``mse``.
    """

    def __init__(
        self, spots: TissueSpots, config: GeneDMLConfig | TRIPLEXConfig
    ) -> None:
        self._spots = spots
        self._config = config

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Prediction, instances and groups of a batch together."""
        truth = batch["expression"]
        if isinstance(self._config, TRIPLEXConfig):
            return triplex_loss(self._called(model, batch), truth, self._config)
        output = self._called(model, batch, truth)
        return gene_dml_losses(output, truth, self._config).total

    def measure(self, model: nn.Module, batch: Batch) -> Batch:
        """What was predicted and measured at each spot, and its section."""
        # Nothing that was measured is given to the model here.
        output = self._called(model, batch)
        return {
            "predicted": output.expression.float(),
            "observed": batch["expression"],
            "section": self._spots.section[batch["spot"].cpu()],
        }

    def scores(self, measured: Batch) -> dict[str, float]:
        """Correlation and squared error, means over sections."""
        found = expression_correlation(
            measured["predicted"].numpy(),
            measured["observed"].numpy(),
            measured["section"].numpy(),
        )
        return {"pcc": found.pcc, "mse": found.mse}

    def _called(
        self, model: nn.Module, batch: Batch, expression: Tensor | None = None
    ) -> Any:
        """The model sees the sections of the batch whole."""
        spots, device = self._spots, batch["target"].device
        chosen = batch["spot"].cpu()
        whole = torch.isin(spots.section, spots.section[chosen].unique())
        place = torch.cumsum(whole, dim=0) - 1
        given = [] if expression is None else [expression]
        return model(
            batch["target"],
            batch["neighbors"],
            spots.overview[whole].to(device),
            spots.grid[whole].to(device),
            *given,
            neighbor_mask=batch["neighbor_mask"],
            section=spots.section[whole].to(device),
            rows=place[chosen].to(device),
        )


def _joined(parts: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))

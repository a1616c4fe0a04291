"""Scores of predicted expression, as reports tell them.

References
----------
Chung et al. (2024) Accurate spatial gene expression prediction by integrating
multi-resolution features. CVPR (PCC(A) and PCC(H)).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from neuromm.core import UsageError

__all__ = [
    "INTERVAL",
    "MEASURES",
    "RIDGE",
    "ExpressionSectionScores",
    "chosen_sentence",
    "measure_name",
    "model_title",
]

RIDGE = "ridge"
"""Name of the linear baseline on the same features."""

MEASURES: Mapping[str, tuple[str, int, str, str]] = {
    "pcc": (
        "PCC(A)",
        3,
        "",
        "Pearson correlation over spots, mean over the genes that have one",
    ),
    "pcc_h": (
        "PCC(H)",
        3,
        "",
        "the same, mean over the genes that are predicted best",
    ),
    "mse": (
        "MSE",
        3,
        "squared",
        "squared error, mean over spots and genes; less is better",
    ),
    "mae": (
        "MAE",
        3,
        "unit",
        "absolute error, mean over spots and genes; less is better",
    ),
    "gsc": (
        "GSC",
        3,
        "",
        "whether genes go together as measured: correlation, over pairs of genes, of "
        "predicted with measured correlations",
    ),
    "ssc": (
        "SSC",
        3,
        "",
        "whether genes lie in space as measured: correlation, over genes, of predicted "
        "with measured Moran's I",
    ),
}
"""Name, places after the point, kind of unit and meaning of each measure."""

INTERVAL = "95 % of bootstrap samples of patients"


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpressionSectionScores:
    """How well models predict the expression of one section.

    Attributes
    ----------
    models : mapping of str to mapping of str to float
        By the name of a model its measures: ``pcc``, ``pcc_h``, ``mse``, ``mae``,
        ``gsc``, ``ssc``; nan for what could not be measured, and what is left out is
        shown as such. The model of the page goes by the name that the predictions
        give it, the linear baseline by ``ridge``.
    genes : DataFrame
        A row a gene: ``gene``, ``pcc`` of the model of the page (nan for a gene that
        does not vary, measured or predicted), and as ``pcc_<name>`` those of others,
        such as ``pcc_ridge``.
    intervals : mapping of str to mapping of str to (low, high)
        Of measures of ``models``, where there are any.
    interval : str
        What the intervals are.
    highly_chosen_on : {"test", "train"}
        What the genes of PCC(H) were chosen on; see
        `neuromm.metrics.ExpressionScores.highly_predicted`.
    n_highly : int
        Genes of PCC(H).

    Raises
    ------
    UsageError
        If there is no model, a measure is unknown, or the genes lack a column, come
        twice or have impossible correlations.
    """

    models: Mapping[str, Mapping[str, float]]
    genes: pd.DataFrame
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(
        default_factory=dict
    )
    interval: str = INTERVAL
    highly_chosen_on: Literal["test", "train"] = "test"
    n_highly: int = 50

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("scores need the measures of one model at least")
        for told in (self.models, self.intervals):
            unknown = {m for one in told.values() for m in one} - set(MEASURES)
            if unknown:
                raise UsageError(
                    f"measures are {', '.join(MEASURES)}, got "
                    + ", ".join(sorted(unknown))
                )
        if strangers := set(self.intervals) - set(self.models):
            raise UsageError(
                f"intervals of models without measures: {', '.join(sorted(strangers))}"
            )
        chosen_sentence(self.highly_chosen_on, self.n_highly)
        self._check_genes()

    def _check_genes(self) -> None:
        if missing := {"gene", "pcc"} - set(self.genes):
            raise UsageError(
                f"genes must have the columns gene and pcc, lacks "
                f"{', '.join(sorted(missing))}"
            )
        twice = self.genes["gene"][self.genes["gene"].duplicated()]
        if len(twice):
            raise UsageError(f"genes come twice, such as {twice.iloc[0]}")
        for name in self.others:
            values = self.genes[name].to_numpy(dtype=float)
            if (np.abs(values[~np.isnan(values)]) > 1).any():
                raise UsageError(f"correlations of {name} lie outside of -1 and 1")

    @property
    def others(self) -> list[str]:
        """Columns of correlations, that of the page's model first."""
        names = [str(n) for n in self.genes if str(n).startswith("pcc_")]
        return ["pcc", *names]

    @property
    def n_constant(self) -> int:
        """Genes without a correlation of the page's model."""
        return int(self.genes["pcc"].isna().sum())


def chosen_sentence(chosen_on: str, n_genes: int) -> str:
    """How the genes of PCC(H) were chosen, and what follows."""
    how = {
        "test": "on the very spots that are scored, as in the literature: a choice by "
        "the test data, which makes the number too high",
        "train": "on the training sections, before the scored spots were seen",
    }
    if chosen_on not in how or n_genes < 1:
        raise UsageError(
            f"highly_chosen_on must be one of {', '.join(how)} and n_highly at least "
            f"1, got {chosen_on!r} and {n_genes}"
        )
    return f"The {n_genes} genes of PCC(H) were chosen {how[chosen_on]}."


def measure_name(measure: str, unit: str) -> str:
    """Name of a measure with its unit, where it has one."""
    name, _, kind, _ = MEASURES[measure]
    named = {"": "", "unit": f" ({unit})", "squared": f" ({unit}, squared)"}
    return name + named[kind]


def model_title(model: str) -> str:
    """A model's name for readers."""
    return "ridge probe" if model == RIDGE else model

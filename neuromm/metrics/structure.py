"""Whether predicted expression keeps how genes go together and how they lie in space.

A model that minimises a squared error predicts a mean, and a mean is smooth: its
correlations can be high where relations between genes and patterns in space are not
those that were measured.

From the literature: Moran's I, by Moran (1950) for neighbours and by Cliff & Ord (1981)
for any weights; the names GSC, for correlations between genes, and SSC, for Moran's I
of genes, by Si et al. (2026). Their released code (commit 3099d3b) computes neither,
and we have not seen their formulae.

Our choice: to correlate the two matrices over pairs of genes, as in the test of Mantel
(1967), and Moran's I over genes; section by section; neighbours of weight 1; genes that
do not vary left out. Values are not comparable with those of Si et al.

References
----------
Cliff & Ord (1981) Spatial processes: models and applications. Pion, London.
Mantel (1967) The detection of disease clustering and a generalized regression approach.
Cancer Research 27:209-220.
Moran (1950) Notes on continuous stochastic phenomena. Biometrika 37:17-23.
Si et al. (2026) FLAG: foundation model representation with latent diffusion alignment
via graph for spatial gene expression prediction. ICML. arXiv 2605.18055.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.metrics.expression import column_correlation

__all__ = ["StructureScores", "expression_structure", "morans_i"]


@dataclass(frozen=True, slots=True, eq=False)
class StructureScores:
    """Agreement in structure of predicted and measured expression of one section.

    Attributes
    ----------
    gene : float
        GSC, by our definition: Pearson correlation of the two matrices of correlations
        between genes, over pairs of genes (the upper triangle without its diagonal).
    spatial : float
        SSC, by our definition: Pearson correlation over genes of the two values of
        Moran's I.
    predicted_moran, observed_moran : arrays of shape (n_genes,)
        Moran's I of each gene; nan for a gene that does not vary.
    n_constant : int
        Genes that do not vary, measured or predicted. Both scores leave them out.

    Notes
    -----
    Scores are nan if fewer than three genes are left, or what is correlated does not
    vary. A score says nothing about levels: genes whose Moran's I is halved throughout
    have a ``spatial`` of 1, so look at the two arrays beside it.

    Noise of counts weakens correlations between measured genes, and their Moran's I. A
    prediction has none of it: even the true mean of each spot scores below 1, and below
    draws around it, which predict each spot worse.
    """

    gene: float
    spatial: float
    predicted_moran: NDArray[np.float64]
    observed_moran: NDArray[np.float64]
    n_constant: int


def expression_structure(
    predicted: ArrayLike, observed: ArrayLike, touching: Any
) -> StructureScores:
    """Agreement of relations between genes, and of patterns in space, in one section.

    Parameters
    ----------
    predicted, observed : arrays of shape (n_spots, n_genes)
        Of one section. Pooled sections would score how sections differ.
    touching : array or sparse array of shape (n_spots, n_spots)
        Weights of neighbours, see `morans_i`.

    Returns
    -------
    scores : StructureScores

    Raises
    ------
    UsageError
        If shapes do not match, values are not finite, or no spots touch.

    Notes
    -----
    GSC and SSC are names by Si et al. (2026), the formulae are those of
    `StructureScores` and ours: compare values with published ones only where the same
    formula, neighbours and genes are known to be behind both.
    """
    ours = np.asarray(predicted, dtype=np.float64)
    truth = np.asarray(observed, dtype=np.float64)
    if ours.shape != truth.shape:
        raise UsageError(
            "predicted and observed must have one shape (n_spots, n_genes), got "
            f"{ours.shape} and {truth.shape}"
        )
    predicted_moran = morans_i(ours, touching)
    observed_moran = morans_i(truth, touching)
    kept = ~(np.isnan(predicted_moran) | np.isnan(observed_moran))
    n_kept = int(kept.sum())
    gene = spatial = np.nan
    if n_kept >= 3:
        pairs = np.triu_indices(n_kept, k=1)
        gene = _correlation(
            _between_genes(ours[:, kept])[pairs],
            _between_genes(truth[:, kept])[pairs],
        )
        spatial = _correlation(predicted_moran[kept], observed_moran[kept])
    return StructureScores(
        gene=gene,
        spatial=spatial,
        predicted_moran=predicted_moran,
        observed_moran=observed_moran,
        n_constant=len(kept) - n_kept,
    )


def morans_i(values: ArrayLike, touching: Any) -> NDArray[np.float64]:
    """Moran's I: how much neighbouring spots resemble each other.

    Parameters
    ----------
    values : array of shape (n_spots, n_genes)
    touching : array or sparse array of shape (n_spots, n_spots)
        Weight of each pair, 0 on the diagonal; for square and hexagonal arrays see
        `neuromm.prepare.expression.neighbours`.

    Returns
    -------
    moran : array of shape (n_genes,)
        ``n_spots / sum(w) * sum_ij(w_ij z_i z_j) / sum_i(z_i ** 2)``, with z the value
        less its mean. -1 / (n_spots - 1) is expected without any pattern, positive
        values where neighbours resemble each other; nan for a gene that does not vary.
        The range depends on the weights, and need not be [-1, 1].

    Raises
    ------
    UsageError
        If shapes do not match, values are not finite, or no spots touch.

    References
    ----------
    Moran (1950) and Cliff & Ord (1981), as in the head of this module.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or touching.shape != (len(table), len(table)):
        raise UsageError(
            "values must have shape (n_spots, n_genes) and touching (n_spots, n_spots),"
            f" got {table.shape} and {touching.shape}"
        )
    if not np.isfinite(table).all():
        raise UsageError("expression holds nan or infinity")
    total = float(touching.sum())
    if total <= 0:
        raise UsageError(
            "no spots touch, so Moran's I has no pairs: are array_row and array_col "
            "those of the right kind of array?"
        )
    apart = table - table.mean(axis=0)
    power = np.square(apart).sum(axis=0)
    # Equal values have a mean that rounding may put beside them.
    power[np.ptp(table, axis=0) == 0] = np.nan
    together = (apart * (touching @ apart)).sum(axis=0)
    result: NDArray[np.float64] = len(table) / total * together / power
    return result


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(column_correlation(x[:, None], y[:, None])[0])


def _between_genes(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.atleast_2d(np.corrcoef(table, rowvar=False))

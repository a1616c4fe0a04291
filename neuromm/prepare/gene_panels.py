"""Which genes are predicted: panels chosen from training sections alone.

References
----------
TRIPLEX (Chung et al., CVPR 2024), public scripts: most expressed genes of a cohort.
HEST-1k (Jaume et al., NeurIPS 2024): 50 highly variable genes, section by section.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import UsageError

__all__ = ["mean_panel", "mean_variance_panel", "variable_panel"]

_HOUSEKEEPING = ("MT-", "RPS", "RPL")


def mean_panel(
    sections: Mapping[str, Any], n_genes: int = 250, *, min_spots: float = 0.1
) -> list[str]:
    """Genes with most counts in all training sections together ("mean", HEG).

    Parameters
    ----------
    sections : mapping from name to anndata.AnnData
        Raw counts of the **training** sections.
    n_genes : int
    min_spots : float
        Share of all spots in which a gene must have been seen.

    Returns
    -------
    genes : list of str
        Most counts first; ties by name.

    Raises
    ------
    UsageError
        If fewer genes qualify; genes must have been measured in every section.
    """
    shared = _shared(sections)
    counts, seen, n_spots = np.zeros(len(shared)), np.zeros(len(shared)), 0
    for adata in sections.values():
        values = _counts(adata, shared)
        counts += np.asarray(values.sum(axis=0)).ravel()
        seen += np.asarray((values > 0).sum(axis=0)).ravel()
        n_spots += adata.n_obs
    table = pd.DataFrame({"gene": shared, "counts": counts})[
        seen >= min_spots * n_spots
    ]
    table = table.sort_values(["counts", "gene"], ascending=[False, True])
    return _first(list(table["gene"]), n_genes, f"in {min_spots:.0%} of the spots")


def variable_panel(sections: Mapping[str, Any], n_genes: int = 50) -> list[str]:
    """Genes that vary most within sections ("var", HVG).

    Parameters
    ----------
    sections : mapping from name to anndata.AnnData
        Raw counts of the **training** sections.
    n_genes : int

    Returns
    -------
    genes : list of str
        As `scanpy.pp.highly_variable_genes` ranks them, a section a batch, after
        normalising to 10,000 counts and ln(1 + x).
    """
    import scanpy

    joined = _joined(sections)
    several = {"batch_key": "section"} if len(sections) > 1 else {}
    table = scanpy.pp.highly_variable_genes(
        joined, n_top_genes=n_genes, inplace=False, **several
    )
    table.index = joined.var_names
    ranked = table[table["highly_variable"]]
    order = ["dispersions_norm"]
    if several:
        order = ["highly_variable_nbatches", "dispersions_norm"]
    ranked = ranked.sort_values(order, ascending=False)
    return _first(list(ranked.index), n_genes, "with any variance")


def mean_variance_panel(
    sections: Mapping[str, Any], n_genes: int = 200, *, n_variable: int = 2000
) -> list[str]:
    """Genes high in mean and in variance (HMHVG), without housekeeping genes.

    Parameters
    ----------
    sections : mapping from name to anndata.AnnData
        Raw counts of the **training** sections.
    n_genes : int
    n_variable : int
        Highly variable genes of each section, whose union is ranked.

    Returns
    -------
    genes : list of str
        By the sum of their ranks in mean and standard deviation of the logarithm,
        mitochondrial (``MT-``) and ribosomal (``RPS``, ``RPL``) genes left out.
    """
    import scanpy

    joined = _joined(sections)
    candidates: set[str] = set()
    for name in sections:
        part = joined[(joined.obs["section"] == name).to_numpy()].copy()
        n_top = min(n_variable, part.n_vars)
        table = scanpy.pp.highly_variable_genes(part, n_top_genes=n_top, inplace=False)
        candidates |= set(part.var_names[table["highly_variable"].to_numpy()])
    names = sorted(
        name for name in candidates if not name.upper().startswith(_HOUSEKEEPING)
    )
    values = joined[:, names].X
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    table = pd.DataFrame({"mean": values.mean(axis=0), "sd": values.std(axis=0)}, names)
    ranks = table.rank(ascending=False).sum(axis=1).sort_index()
    ranked = list(ranks.sort_values(kind="stable").index)
    return _first(ranked, n_genes, "among the variable ones")


def _shared(sections: Mapping[str, Any]) -> list[str]:
    if not sections:
        raise UsageError("a panel is chosen from one training section at least")
    names = [set(adata.var_names) for adata in sections.values()]
    shared = sorted(set.intersection(*names))
    if not shared:
        raise UsageError(
            "no gene was measured in every section. Are names symbols in some and "
            "identifiers in others?"
        )
    return shared


def _counts(adata: Any, genes: list[str]) -> Any:
    part = adata[:, genes]
    return (part.to_memory() if part.isbacked else part).X


def _joined(sections: Mapping[str, Any]) -> Any:
    """Sections below each other, normalised to 10,000 counts and ln(1 + x)."""
    import anndata
    import scanpy

    shared = _shared(sections)
    parts = {
        name: anndata.AnnData(
            _counts(adata, shared).copy(),
            obs=pd.DataFrame(index=adata.obs_names),
            var=pd.DataFrame(index=shared),
        )
        for name, adata in sections.items()
    }
    joined = anndata.concat(parts, label="section", index_unique="-")
    joined.X = joined.X.astype(np.float32)
    scanpy.pp.normalize_total(joined, target_sum=1e4)
    scanpy.pp.log1p(joined)
    return joined


def _first(genes: list[str], n_genes: int, which: str) -> list[str]:
    if n_genes < 1 or n_genes > len(genes):
        raise UsageError(f"{n_genes} genes wanted, and there are {len(genes)} {which}")
    return genes[:n_genes]

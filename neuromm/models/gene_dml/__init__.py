"""Gene-DML: expression of genes at spots, from three scales of a stained section."""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.models.gene_dml.config import GeneDMLConfig
    from neuromm.models.gene_dml.model import CARD, GeneDML, GeneDMLOutput
    from neuromm.models.gene_dml.objective import GeneDMLLosses, gene_dml_losses
    from neuromm.models.gene_dml.prediction import (
        SectionPrediction,
        predict_expression,
    )

__all__ = [
    "CARD",
    "GeneDML",
    "GeneDMLConfig",
    "GeneDMLLosses",
    "GeneDMLOutput",
    "SectionPrediction",
    "gene_dml_losses",
    "predict_expression",
]

_HOMES = {
    "CARD": "neuromm.models.gene_dml.model",
    "GeneDML": "neuromm.models.gene_dml.model",
    "GeneDMLConfig": "neuromm.models.gene_dml.config",
    "GeneDMLLosses": "neuromm.models.gene_dml.objective",
    "GeneDMLOutput": "neuromm.models.gene_dml.model",
    "SectionPrediction": "neuromm.models.gene_dml.prediction",
    "gene_dml_losses": "neuromm.models.gene_dml.objective",
    "predict_expression": "neuromm.models.gene_dml.prediction",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

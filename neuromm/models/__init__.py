"""The published models, each from its paper: settings, a named output and a card."""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.models.card import ModelCard
    from neuromm.models.disc_scores import DiscScores, score_discs
    from neuromm.models.discs import DiscRegions, disc_regions
    from neuromm.models.gene_dml import (
        GeneDML,
        GeneDMLConfig,
        GeneDMLLosses,
        GeneDMLOutput,
        SectionPrediction,
        gene_dml_losses,
        predict_expression,
    )
    from neuromm.models.intensity import IntensityScaling, TrainedRange
    from neuromm.models.ivdnet import IVDNet, IVDNetConfig, IVDNetOutput
    from neuromm.models.triplex import (
        TRIPLEX,
        TRIPLEXConfig,
        TRIPLEXOutput,
        triplex_loss,
    )
    from neuromm.models.uncertainty import VolumePrediction, predict_with_uncertainty
    from neuromm.models.volume_prediction import predict_volume

__all__ = [
    "TRIPLEX",
    "DiscRegions",
    "DiscScores",
    "GeneDML",
    "GeneDMLConfig",
    "GeneDMLLosses",
    "GeneDMLOutput",
    "IVDNet",
    "IVDNetConfig",
    "IVDNetOutput",
    "IntensityScaling",
    "ModelCard",
    "SectionPrediction",
    "TRIPLEXConfig",
    "TRIPLEXOutput",
    "TrainedRange",
    "VolumePrediction",
    "disc_regions",
    "gene_dml_losses",
    "predict_expression",
    "predict_volume",
    "predict_with_uncertainty",
    "score_discs",
    "triplex_loss",
]

_HOMES = {
    "TRIPLEX": "neuromm.models.triplex",
    "TRIPLEXConfig": "neuromm.models.triplex",
    "TRIPLEXOutput": "neuromm.models.triplex",
    "triplex_loss": "neuromm.models.triplex",
    "DiscRegions": "neuromm.models.discs",
    "DiscScores": "neuromm.models.disc_scores",
    "GeneDML": "neuromm.models.gene_dml.model",
    "GeneDMLConfig": "neuromm.models.gene_dml.config",
    "GeneDMLLosses": "neuromm.models.gene_dml.objective",
    "GeneDMLOutput": "neuromm.models.gene_dml.model",
    "IVDNet": "neuromm.models.ivdnet",
    "IVDNetConfig": "neuromm.models.ivdnet",
    "IVDNetOutput": "neuromm.models.ivdnet",
    "IntensityScaling": "neuromm.models.intensity",
    "ModelCard": "neuromm.models.card",
    "TrainedRange": "neuromm.models.intensity",
    "VolumePrediction": "neuromm.models.uncertainty",
    "disc_regions": "neuromm.models.discs",
    "gene_dml_losses": "neuromm.models.gene_dml.objective",
    "SectionPrediction": "neuromm.models.gene_dml.prediction",
    "predict_expression": "neuromm.models.gene_dml.prediction",
    "predict_volume": "neuromm.models.volume_prediction",
    "predict_with_uncertainty": "neuromm.models.uncertainty",
    "score_discs": "neuromm.models.disc_scores",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

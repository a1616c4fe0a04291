"""Feature spaces: tables of any backbone, brought to the samples of a recording."""

from neuromm.features.backbones import (
    Backbone,
    LayeredBackbone,
    TokenStates,
    WordInContext,
    load_backbone,
)
from neuromm.features.checked_table import feature_table
from neuromm.features.design import event_features, volume_features
from neuromm.features.exchange import read_features, write_features
from neuromm.features.feature_cache import FeatureCache
from neuromm.features.film_energy import film_luminance, motion_energy
from neuromm.features.film_frames import film_frames, scene_cuts
from neuromm.features.image_pixels import ImagePreparation
from neuromm.features.layer_candidates import layer_candidates, split_candidates
from neuromm.features.layer_hooks import LayerReading, module_layers
from neuromm.features.nuisance_spaces import (
    audio_envelope,
    autocorrelation_only,
    joined_runs,
    matched_dimension,
    permuted_rows,
    position_in_run,
    word_rate,
)
from neuromm.features.patch_file import patch_file_features
from neuromm.features.spot_encoding import spot_features
from neuromm.features.stimulus_rows import (
    StimulusRows,
    frame_rows,
    image_rows,
    paired_rows,
    text_file_rows,
    text_rows,
    word_rows,
    words_at,
)
from neuromm.features.stimulus_tables import layer_features, stimulus_features
from neuromm.features.stored_spot_features import (
    obsm_spot_features,
    stored_spot_features,
    write_spot_features,
)
from neuromm.features.table import FeatureEvents, FeatureTable
from neuromm.features.torch_backbone import module_backbone

__all__ = [
    "Backbone",
    "FeatureCache",
    "FeatureEvents",
    "FeatureTable",
    "ImagePreparation",
    "LayerReading",
    "LayeredBackbone",
    "StimulusRows",
    "TokenStates",
    "WordInContext",
    "audio_envelope",
    "autocorrelation_only",
    "event_features",
    "feature_table",
    "film_frames",
    "film_luminance",
    "frame_rows",
    "image_rows",
    "joined_runs",
    "layer_candidates",
    "layer_features",
    "load_backbone",
    "matched_dimension",
    "module_backbone",
    "module_layers",
    "motion_energy",
    "obsm_spot_features",
    "paired_rows",
    "patch_file_features",
    "permuted_rows",
    "position_in_run",
    "read_features",
    "scene_cuts",
    "split_candidates",
    "spot_features",
    "stimulus_features",
    "stored_spot_features",
    "text_file_rows",
    "text_rows",
    "volume_features",
    "word_rate",
    "word_rows",
    "words_at",
    "write_features",
    "write_spot_features",
]
